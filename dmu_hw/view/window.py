"""From a plan to the window that the inverse looks through."""

from __future__ import annotations

from dmu_hw.loops import Role
from dmu_hw.plan import Plan
from dmu_hw.reconstruct import Window


def window_of(plan: Plan, role: Role) -> Window:
    """How a plan looks at the sample in one of its roles."""
    take, maps = plan.takes[role], plan.part.channel.pixels
    roi = take.mode.roi
    rows, columns = slice(roi.y, roi.y + roi.height), slice(roi.x, roi.x + roi.width)
    pixels = None if maps is None else maps.seen(rows, columns, take.mode.binning)
    return Window(plan.optics, plan.protocol.field_px, plan.centre_um, take.power_mw, take.mode.exposure_ms, pixels)

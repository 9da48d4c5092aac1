"""All that the memory of the DMD is to hold for a run."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from dmu_hw.data import BoolArray
from dmu_hw.physics.projection import onto_mirrors
from dmu_hw.plan import Part, Plan, Take


def mirror_frames(plan: Plan) -> BoolArray:
    """Mirror frames (place, row, column): channel by channel what each of them shows, and then what looks show."""
    return frames_of(plan.parts, plan.watch_take, plan.corner_um)


def frames_of(parts: Mapping[str, Part], watch_take: Take | None, corner_um: tuple[float, float]) -> BoolArray:
    """The same, while there is no plan yet."""
    found = [frames for part in parts.values() for frames in _frames_of(part, corner_um)]
    if watch_take is not None:
        optics = parts[watch_take.channel].channel.optics
        found.append(onto_mirrors(watch_take.stack, optics, corner_um))
    return np.concatenate(found)


def _frames_of(part: Part, corner_um: tuple[float, float]) -> list[BoolArray]:
    """Patterns, and behind them uniform light for references, the marker, and the patterns of chosen fields."""
    optics, takes = part.channel.optics, part.takes
    frames = [onto_mirrors(part.stack, optics, corner_um)]
    if {"plain", "full"} & takes.keys():
        frames.append(np.ones((1, *frames[0].shape[1:]), dtype=bool))
    marker = takes["patterns"].marker
    if marker is not None:
        frames.append(onto_mirrors(marker.as_stack(), optics, corner_um))
    if "chosen" in takes:
        frames.append(onto_mirrors(takes["chosen"].stack, optics, corner_um))
    return frames

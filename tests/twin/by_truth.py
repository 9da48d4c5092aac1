"""One routine on a rig that is believed to be mapped as it is: what it finds does not depend on how well others do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dmu_hw.guard import Guard
from dmu_hw.instrument import Instrument
from dmu_hw.physics.optics import Optics
from dmu_hw.routine import Evidence, Routine
from tests.twin.rigs import Drawn, draw_rig


def mapped_rig(seed: int, folder: Path, **changes: Any) -> Drawn:
    """A rig that is drawn, whose map from mirrors to sample is known."""
    folder.mkdir(exist_ok=True)
    true = draw_rig(seed, folder).world.truth.mirrors.to_sample.model_dump(mode="json")
    optics = {**changes.pop("optics", {}), "mirrors": {"to_sample": true}}
    return draw_rig(seed, folder, optics=optics, **changes)


def taken(drawn: Drawn, routine: Routine) -> tuple[Evidence, Optics]:
    """What a routine measures, and what it may believe."""
    with drawn.rig.opened() as rig:
        drawn.world.hold(routine.sample)
        instrument = Instrument(rig, rig.channels[""], rig.optics, Guard(rig), lambda _done, _of: None)
        return routine.measure(instrument), rig.optics


def mirror_px_of(drawn: Drawn) -> float:
    """Side of a mirror's image in pixels."""
    optics = drawn.world.truth
    side_um: float = (optics.mirrors.area_um2 / (optics.mirrors.shape[0] * optics.mirrors.shape[1])) ** 0.5
    return side_um / optics.sensor_pixel_um

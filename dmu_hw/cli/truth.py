"""What the simulated specimen looked like, kept beside a run so that people can see how good an image is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

from dmu_hw.data import Float32Array, Int32Array
from dmu_hw.omezarr import Image, Labels, Store
from dmu_hw.plan import Plan, Shot
from dmu_hw.ports import Roi
from dmu_hw.rig import Rig
from dmu_hw.writer import field_corners, time_step_s, z_step_um

Place = tuple[int, int, int]
"""Field, time and plane."""
_KEPT_BURSTS = 64
"""Memory is bounded: of a longer run the truth of the first bursts is kept."""


class Scene(Protocol):
    """A look at the specimen itself."""

    @property
    def image(self) -> Float32Array: ...

    @property
    def labels(self) -> Int32Array: ...


@runtime_checkable
class Simulated(Protocol):
    """A connection that knows what is really there."""

    def scene(
        self,
        roi: Roi,
        xy_um: tuple[float, float] | None = None,
        time_ms: float | None = None,
        light: str = "light",
        filters: Mapping[str, str] | None = None,
    ) -> Scene: ...


class Truth:
    """The specimen in one channel, at the place and time of each burst."""

    def __init__(self, world: Simulated, plan: Plan, *, labelled: bool) -> None:
        self._world = world
        self._plan = plan
        self._labelled = labelled
        self.images: dict[Place, Float32Array] = {}
        self.labels: dict[Place, Int32Array] = {}
        """Which object each pixel belongs to, if that is asked for."""

    def look(self, shot: Shot, time_ms: float | None = None) -> None:
        """After a burst; or, with the time when it ended, after a run was cut."""
        if shot.role == "patterns" and self._plan.concerns(shot) and len(self.images) < _KEPT_BURSTS:
            place, xy_um = (shot.position, shot.time, shot.z), None
            if time_ms is not None and shot.x_um is not None and shot.y_um is not None:
                xy_um = (shot.x_um, shot.y_um)
            channel = self._plan.part.channel
            scene = self._world.scene(self._plan.roi, xy_um, time_ms, channel.light, channel.filters)
            self.images[place] = scene.image
            if self._labelled:
                self.labels[place] = scene.labels


def save_truths(path: Path, plan: Plan, truths: Mapping[str, Truth], *, labelled: bool) -> None:
    """All channels in one store."""
    pixel_um = plan.object_pixel_um
    shape = (plan.times, len(truths), plan.planes, *plan.protocol.field_px)
    steps = z_step_um(plan), time_step_s(plan)
    names = [name or "truth" for name in truths]
    images = [
        Image(name, shape, "float32", pixel_um, *steps, corner, names, (0.0, 1.0), labelled, plan.waves_nm(truths))
        for name, corner in field_corners(plan, pixel_um)
    ]
    store = Store.create(path, images, {})
    objects = Labels(path, mode="r+") if labelled else None
    for channel, truth in enumerate(truths.values()):
        for (field, time, plane), image in truth.images.items():
            store.array(field)[time, channel, plane] = image
        if objects is not None:
            for place, labels in truth.labels.items():
                objects.put(place, labels)


def truths_of(rig: Rig, plan: Plan, *, labelled: bool) -> dict[str, Truth]:
    """The truth behind a simulated rig by channels, with its objects if they are asked for; none behind a real one."""
    for link in rig.connections:
        if isinstance(link, Simulated):
            return {name: Truth(link, plan.of(name), labelled=labelled) for name in plan.parts}
    return {}

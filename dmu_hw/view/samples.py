"""The few bursts of a run that a report shows. Only these are read, one after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmu_hw.data import Float32Array, Int32Array
from dmu_hw.doubtful import Burst, Doubtful
from dmu_hw.loops import Role, Stop
from dmu_hw.metrics import psnr_db
from dmu_hw.omezarr import Labels, Store
from dmu_hw.plan import Plan, Shot
from dmu_hw.reconstruct import Calibrated, enlarged
from dmu_hw.runfolder import RunFolder
from dmu_hw.view.window import window_of

MAX_BURSTS = 4
MAX_FRAMES = 9
WINDOW_PX = 256
"""Of a larger field, the middle is shown."""
_REFERENCES: tuple[Role, ...] = ("plain", "full")


@dataclass(frozen=True, eq=False)
class Sample:
    """What is shown of one burst. Images are on the object grid, 1 is the brightest dye of the model."""

    shot: Shot
    began_s: float | None
    """Its first frame on the rig's clock."""
    frames: list[NDArray[Any] | None]
    """The first raw frames; None is missing."""
    images: dict[str, Float32Array]
    """`reconstruction`, `truth`, `error` (how far they are apart), `spread`, `plain`, `full`: those that there are."""
    psnr_db: dict[str, float]
    """Of the images against the truth, over the whole field; not of one that was made for a segmenter."""
    labels: dict[str, Int32Array]
    """The objects in `reconstruction` and `truth`, of a run that segments."""
    counts: dict[str, int]
    """How many they are in the whole field."""
    judged: Burst | None = None
    """Whether the reconstruction is to be believed, where its bundle tells."""
    overview: Float32Array | None = None
    """The whole field, coarsely, where the images show only its middle."""


@dataclass(frozen=True)
class Crop:
    """The part of every field that is shown, in object pixels."""

    y: slice
    x: slice
    whole: bool

    @property
    def shape(self) -> tuple[int, int]:
        return self.y.stop - self.y.start, self.x.stop - self.x.start

    @property
    def part(self) -> tuple[slice, slice]:
        return self.y, self.x

    def coarse(self, factor: int) -> tuple[slice, slice]:
        """The same on pixels that are `factor` times larger."""
        return slice(self.y.start // factor, self.y.stop // factor), slice(
            self.x.start // factor, self.x.stop // factor
        )


def crop_of(plan: Plan) -> Crop:
    """The middle of the field, in whole camera pixels."""
    side = plan.stack.camera_pixel
    (rows, columns), largest = plan.protocol.field_px, max(side, WINDOW_PX // side * side)

    def middle(count: int) -> slice:
        if count <= WINDOW_PX:
            return slice(0, count)
        start = (count - largest) // 2 // side * side
        return slice(start, start + largest)

    return Crop(middle(rows), middle(columns), max(rows, columns) <= WINDOW_PX)


def chosen(plan: Plan) -> list[Shot]:
    """Bursts of the only channel from the whole length of a run, the first and the last among them."""
    loops, channel = plan.shots.loops, plan.takes["patterns"].channel
    count = loops.places // len(loops.channels)
    numbers = np.linspace(0, count - 1, min(MAX_BURSTS, count)).round().astype(int)
    places = [np.unravel_index(number, (loops.times, loops.fields, loops.planes)) for number in numbers]
    stops = [Stop(int(time), int(field), int(plane), "patterns", channel) for time, field, plane in places]
    return [plan.shots[loops.index(stop)] for stop in stops]


class Sampler:
    """Reads what there is of a burst from the stores of a run; `plan` is that of one channel."""

    def __init__(self, run: RunFolder, plan: Plan) -> None:
        self.plan = plan
        self.crop = crop_of(plan)
        channel = plan.takes["patterns"].channel
        self._frames = {role: Store(run.frames_of(role, channel)) for role in plan.takes}
        stores = {
            name: Store(path)
            for name, path in (("reconstruction", run.reconstruction), ("truth", run.truth))
            if path.exists()
        }
        # of a channel whose frames were recorded only there is no reconstruction, though there is one of others
        self._images = {name: store for name, store in stores.items() if store.has(channel)}
        self._channel = {name: store.channel(channel) for name, store in self._images.items()}
        self._labels = {name: Labels(store.path) for name, store in self._images.items() if store.labelled}
        made = self._images.get("reconstruction")
        self._doubtful = Doubtful(made.path) if made is not None and Doubtful.there(made) else None
        self._calibrated = {
            role: Calibrated(window_of(plan, role), self._side(role)) for role in _REFERENCES if role in plan.takes
        }

    def sample(self, shot: Shot) -> Sample:
        place = shot.position, shot.time, shot.z
        images = {name: store.burst(*place)[self._channel[name]] for name, store in self._images.items()}
        images |= {
            role: self._reference(role, place)
            for role in self._calibrated
            if np.isfinite(self._exposed_ms(role, place)[0])
        }
        images = {name: image for name, image in images.items() if np.isfinite(image).all()}
        judged: dict[str, float] = {}
        if (truth := images.get("truth")) is not None:
            judged = {name: psnr_db(image, truth) for name, image in images.items() if self._resembles(name)}
            if "reconstruction" in judged:
                images["error"] = np.abs(images["reconstruction"] - truth)
        if (spread := self._spread(place)) is not None and "reconstruction" in images:
            images["spread"] = spread
        objects = {name: store.burst(*place)[0] for name, store in self._labels.items() if name in images}
        return Sample(
            shot,
            self._began_s(place),
            self._raw(place),
            {name: image[self.crop.part].copy() for name, image in images.items()},
            judged,
            {name: labels[self.crop.part].copy() for name, labels in objects.items()},
            {name: int(np.count_nonzero(np.unique(labels))) for name, labels in objects.items()},
            self._judged(place),
            self._overview(images),
        )

    def _spread(self, place: tuple[int, int, int]) -> Float32Array | None:
        """How far pixels of the reconstruction may be off, where that was kept."""
        return None if self._doubtful is None else self._doubtful.spreads(place, self._channel["reconstruction"])

    def _judged(self, place: tuple[int, int, int]) -> Burst | None:
        return None if self._doubtful is None else self._doubtful.said(place, self._channel["reconstruction"])

    @property
    def segments(self) -> bool:
        """Whether the reconstructions are there for the objects in them."""
        return "reconstruction" in self._labels

    def _resembles(self, name: str) -> bool:
        """Whether an image is meant to look like the specimen."""
        return name != "truth" and not (name == "reconstruction" and self.segments)

    @property
    def expected(self) -> set[str]:
        """Names of images that a burst without gaps has; the truth may be known of the first bursts only."""
        return self._images.keys() | self._calibrated.keys()

    def _raw(self, place: tuple[int, int, int]) -> list[NDArray[Any] | None]:
        field, time, plane = place
        exposed = np.isfinite(self._exposed_ms("patterns", place))
        frames = np.asarray(self._frames["patterns"].array(field)[time, :MAX_FRAMES, plane])
        part = self.crop.coarse(self._side("patterns"))
        return [frame[part] if here else None for frame, here in zip(frames, exposed, strict=False)]

    def _reference(self, role: Role, place: tuple[int, int, int]) -> Float32Array:
        return enlarged(self._calibrated[role], self._frames[role].burst(*place)[0])

    def _exposed_ms(self, role: Role, place: tuple[int, int, int]) -> NDArray[np.float64]:
        """When each frame of a burst was taken; NaN is missing."""
        field, time, plane = place
        return np.asarray(self._frames[role].times(field)[time, :, plane], np.float64)

    def _began_s(self, place: tuple[int, int, int]) -> float | None:
        exposed_ms = self._exposed_ms("patterns", place)
        taken_ms = exposed_ms[np.isfinite(exposed_ms)]
        return float(taken_ms.min()) / 1e3 if taken_ms.size else None

    def _side(self, role: Role) -> int:
        """Camera pixel in object pixels."""
        return self.plan.takes[role].mode.binning * self.plan.optics.sensor_ratio

    def _overview(self, images: dict[str, Float32Array]) -> Float32Array | None:
        """The reconstruction of the whole field, each pixel the mean of a block."""
        image = images.get("reconstruction", images.get("full"))
        if self.crop.whole or image is None:
            return None
        factor = -(-max(image.shape) // WINDOW_PX)
        rows, columns = (side // factor for side in image.shape)
        blocks = image[: rows * factor, : columns * factor].reshape(rows, factor, columns, factor)
        coarse: Float32Array = blocks.mean(axis=(1, 3))
        return coarse

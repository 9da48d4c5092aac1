"""The images of a run: the store that they go into, and making them burst by burst from the frames of another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dmu_hw.bundle import Bundle
from dmu_hw.data import Estimate, Progress, Uint16Array
from dmu_hw.doubt import REASONS
from dmu_hw.doubtful import Doubtful
from dmu_hw.moves import move
from dmu_hw.omezarr import PART, Image, Labels, Store
from dmu_hw.reconstruct import Parts, Reconstructor, Window

Place = tuple[int, int, int]
"""Field, time and plane."""
Failed = Callable[[Place, Exception], None]
"""Called with the place of a burst and with what its inverse raised."""


@dataclass(frozen=True)
class Source:
    """The frames of one channel of a run, and what makes images of them."""

    frames: Store
    bundle: Bundle
    window: Window
    channel: str = ""
    """Its name; empty in a run that has one only."""
    waves_nm: tuple[tuple[float | None, float | None], ...] = ()
    """Of excitation and emission, in a run that has several."""
    keep_spread: bool = True
    """Whether how far pixels may be off is kept, if the bundle knows it."""

    @property
    def taught(self) -> bool:
        """Whether the bundle knows anything of when not to believe it."""
        return bool(Parts.of(self.bundle.weights).doubt)

    @property
    def spread(self) -> bool:
        return self.keep_spread and bool(Parts.of(self.bundle.weights).spread)

    def exposed_ms(self, place: Place) -> float | None:
        """When a burst began; None if a frame of it is missing."""
        field, time, plane = place
        times_ms = np.asarray(self.frames.times(field)[time, :, plane])
        return None if np.isnan(times_ms).any() else float(times_ms[0])


def reconstruct_run(
    sources: Sequence[Source], path: Path, progress: Progress | None = None, failed: Failed | None = None
) -> None:
    """Every complete burst of a run, one after the other: memory does not grow with the run. Where somebody asks to be
    told of failures, a burst whose inverse fails has no image and no time, as one that is not complete; else the first
    failure ends it."""
    part = path.with_name(path.name + PART)
    begin(sources, part)
    fill(sources, part, list(places_of(sources[0].frames)), progress, failed)
    move(part, path)


def begin(sources: Sequence[Source], path: Path) -> None:
    """A store for the images, all black. Channels lie on one grid, and so in one store."""
    labelled = any(source.bundle.header.task == "segment" for source in sources)
    frames = sources[0].frames
    images = [_image(sources, frames.image(field), labelled=labelled) for field in range(len(frames))]
    told = [_told(source) for source in sources]
    Store.create(path, images, {"channels": told} if sources[0].channel else told[0])
    if any(source.taught or source.spread for source in sources):
        words = list(dict.fromkeys(REASONS.values()))
        Doubtful.add(path, images, words, spread=any(source.spread for source in sources))


def places_of(frames: Store) -> Iterator[Place]:
    """All bursts of a store."""
    for field in range(len(frames)):
        times, _, planes = frames.image(field).shape[:3]
        yield from ((field, time, plane) for time in range(times) for plane in range(planes))


def fill(
    sources: Sequence[Source],
    path: Path,
    places: Sequence[Place],
    progress: Progress | None = None,
    failed: Failed | None = None,
) -> None:
    """Make the images of some bursts. Others may be made at the same time if no field and time point is in both."""
    store = Store(path, mode="r+")
    beside = Beside(
        Labels(path, mode="r+") if store.labelled else None,
        Doubtful(path, mode="r+") if Doubtful.there(store) else None,
    )
    for channel, source in enumerate(sources):
        reconstructor = Reconstructor(source.bundle, source.window)
        for done, place in enumerate(places, start=1):
            _make(source, reconstructor, place, (store, beside, channel), failed)
            if progress is not None:
                progress(channel * len(places) + done, len(sources) * len(places))


@dataclass(frozen=True)
class Beside:
    """What goes into a store beside images."""

    objects: Labels | None
    doubts: Doubtful | None

    def put(self, place: Place, channel: int, estimate: Estimate) -> None:
        if self.objects is not None and estimate.labels is not None:
            self.objects.put(place, estimate.labels)
        if self.doubts is not None:
            self.doubts.put(place, channel, estimate)


def _make(
    source: Source,
    reconstructor: Reconstructor,
    place: Place,
    into: tuple[Store, Beside, int],
    failed: Failed | None,
) -> None:
    """One image, put where it belongs, and after it the time that says that it is there."""
    (field, time, plane), (store, beside, channel) = place, into
    exposed_ms = source.exposed_ms(place)
    if exposed_ms is None:
        return
    estimate = _estimated(reconstructor, source.frames.burst(*place), place, failed)
    if estimate is None:
        return
    store.array(field)[time, channel, plane] = estimate.image
    beside.put(place, channel, estimate)
    store.times(field)[time, channel, plane] = exposed_ms


def _estimated(
    reconstructor: Reconstructor, frames: Uint16Array, place: Place, failed: Failed | None
) -> Estimate | None:
    try:
        return reconstructor.estimate(frames)
    except Exception as error:
        if failed is None:
            raise
        failed(place, error)
        return None


def _told(source: Source) -> dict[str, str]:
    """Of one channel, for the store."""
    header = source.bundle.header
    named = {"channel": source.channel} if source.channel else {}
    return {
        **named,
        "bundle": header.name,
        "bundle_hash": source.bundle.hash,
        "model": header.model,
        "task": header.task,
    }


def _image(sources: Sequence[Source], frames: Image, *, labelled: bool) -> Image:
    """The reconstruction's metadata from those of the frames: smaller pixels, the same field."""
    window, alone = sources[0].window, "seen by the segmenter" if labelled else "reconstruction"
    pixel_um = window.optics.object_pixel_um
    z, y, x = frames.corner_um
    move_um = (pixel_um - frames.pixel_um) / 2
    return replace(
        frames,
        shape=(frames.shape[0], len(sources), frames.shape[2], *window.field_px),
        dtype="float32",
        pixel_um=pixel_um,
        corner_um=(z, y + move_um, x + move_um),
        channels=[source.channel or alone for source in sources],
        display=(0.0, 1.0),
        labelled=labelled,
        waves_nm=[waves_nm for source in sources for waves_nm in source.waves_nm],
    )

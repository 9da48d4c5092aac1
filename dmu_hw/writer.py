"""Spool and journal → OME-Zarr, behind the run, checked against the journal before the spool may go."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dmu_hw.data import Progress
from dmu_hw.errors import RunError
from dmu_hw.journal import RESUMED, Line, crc32c, read_journal
from dmu_hw.moves import move
from dmu_hw.omezarr import PART, Image, Store
from dmu_hw.plan import Plan, Shot, Take
from dmu_hw.runfolder import RunFolder
from dmu_hw.spool import SpoolReader


def write_stores(run: RunFolder, plan: Plan, progress: Progress | None = None) -> None:
    """Copy every burst of the journal into its store, read it back, and compare. Cut at any moment, it can be called
    again: a store bears its name only when it is whole, and the spool goes when all of them do."""
    paths = {(take.channel, take.role): run.frames_of(take.role, take.channel) for take in plan.all_takes}
    stores = {
        (take.channel, take.role): Store.create(_part(path), _images(plan, take), _facts(plan, take))
        for take in plan.all_takes
        if not (path := paths[take.channel, take.role]).exists()
    }
    reader = SpoolReader(run.spool)
    done = 0
    try:
        for lines in bursts(run.journal) if stores else ():
            shot = _shot_of(plan, lines)
            if (shot.channel, shot.role) in stores:
                _copy(stores[shot.channel, shot.role], plan.take_of(shot), shot, lines, reader)
            done += 1
            if progress is not None:
                progress(done, len(plan.shots))
    finally:
        reader.close()
    for kind in stores:
        move(_part(paths[kind]), paths[kind])
    if not plan.protocol.keep_spool:
        _remove_spool(run)


def _remove_spool(run: RunFolder) -> None:
    """It goes as a whole: whoever finds it finds all of it."""
    going = run.spool.with_name(run.spool.name + PART)
    if run.spool.exists():
        if hasattr(os, "sync"):
            os.sync()  # reading back proves what the system has; only now is it on the disk as well
        move(run.spool, going)
    if going.exists():
        shutil.rmtree(going)


def _shot_of(plan: Plan, lines: list[Line]) -> Shot:
    index = lines[0]["shot"]
    if not 0 <= index < len(plan.shots):
        raise RunError(f"the journal tells of shot {index}, the plan has {len(plan.shots)}")
    return plan.shots[index]


def bursts(journal: Path) -> Iterator[list[Line]]:
    """The frame and missing lines of each sealed burst, burst by burst; only bursts that wait for their seal are held
    in memory. What was not sealed when a run was cut is void: it was taken again."""
    pending: dict[int, list[Line]] = {}
    for line in read_journal(journal):
        if line["kind"] in ("frame", "missing"):
            pending.setdefault(line["shot"], []).append(line)
        elif line["kind"] == "sealed":
            for shot in line["shots"]:
                if shot not in pending:
                    raise RunError(f"{journal}: shot {shot} is sealed, but there is no frame of it")
                yield pending.pop(shot)
        elif line["kind"] == RESUMED:
            pending.clear()


def _copy(store: Store, take: Take, shot: Shot, lines: list[Line], reader: SpoolReader) -> None:
    """One burst; frames that are missing stay black, with no time."""
    stack = np.zeros((take.stack.count, *take.mode.shape), dtype=np.uint16)
    times = np.full(take.stack.count, np.nan)
    if sorted(line["pattern"] for line in lines) != list(range(take.stack.count)):
        told = [line["pattern"] for line in lines]
        raise RunError(f"{reader.folder}: shot {shot.index} has {take.stack.count} patterns, the journal tells {told}")
    frames = [line for line in lines if line["kind"] == "frame"]
    for line in frames:
        pixels = reader.frame(line)
        if pixels.shape != take.mode.shape:
            raise RunError(f"{reader.folder}: a frame of shot {shot.index} is {pixels.shape}, not {take.mode.shape}")
        stack[line["pattern"]] = pixels
        times[line["pattern"]] = line["time_ms"]
    place = (shot.time, slice(None), shot.z)
    store.array(shot.position)[place] = stack
    store.times(shot.position)[place] = times
    back = store.burst(shot.position, shot.time, shot.z)
    for line in frames:
        if not is_frame(back[line["pattern"]], line):
            raise RunError(f"{store.path}: shot {shot.index}, pattern {line['pattern']} was not stored as it was taken")


def is_frame(pixels: np.ndarray[Any, Any], line: Line) -> bool:
    """Whether pixels are those that the journal speaks of."""
    return bool(crc32c(np.ascontiguousarray(pixels, dtype="<u2").tobytes()) == line["crc32c_pixels"])


def _part(path: Path) -> Path:
    """A store that is not whole yet says so in its name."""
    return path.with_name(path.name + PART)


def _facts(plan: Plan, take: Take) -> dict[str, object]:
    channel = plan.parts[take.channel].channel
    return {
        "role": take.role,
        # which light, through which filters
        **({"channel": channel.as_json()} if channel.name else {}),
        # which burst is which shot of the journal: dmu_hw.loops
        "loops": plan.shots.loops.as_json(),
        "patterns": take.stack.name,
        "pattern_hashes": list(take.stack.hashes),
        "camera_pixel": take.mode.binning * channel.optics.sensor_ratio,
        "power_mw": take.power_mw,
        "exposure_ms": take.mode.exposure_ms,
    }


def _images(plan: Plan, take: Take) -> list[Image]:
    rows, columns = take.mode.shape
    optics = plan.parts[take.channel].channel.optics
    pixel_um = take.mode.binning * optics.sensor_pixel_um
    shape = (plan.times, take.stack.count, plan.planes, rows, columns)
    labels = [f"{take.stack.name} {index} {pattern}" for index, pattern in enumerate(take.stack.hashes)]
    offset = optics.sensor.offset_adu
    full = take.mode.binning**2 * optics.photons_per_pixel(take.power_mw, take.mode.exposure_ms)
    white = min(optics.sensor.largest_adu, offset + 0.4 * full * optics.sensor.gain_adu_per_e)
    steps, waves_nm = (z_step_um(plan), time_step_s(plan)), plan.waves_nm([take.channel]) * take.stack.count
    return [
        Image(name, shape, "uint16", pixel_um, *steps, corner, labels, (offset, white), waves_nm=waves_nm)
        for name, corner in field_corners(plan, pixel_um)
    ]


def z_step_um(plan: Plan) -> float:
    """The mean distance of planes; 1 where there is one only."""
    offsets = plan.shots.offsets_um
    return abs(offsets[-1] - offsets[0]) / (len(offsets) - 1) or 1.0 if len(offsets) > 1 else 1.0


def time_step_s(plan: Plan) -> float:
    return plan.shots.timing.step_s


def field_corners(plan: Plan, pixel_um: float) -> Iterator[tuple[str, tuple[float, float, float]]]:
    """Name and first pixel of every field, (z, y, x): where the first one is on the stage, and from there along the
    axes of the camera."""
    first = plan.shots.places[0]
    for position, place in enumerate(plan.shots.places):
        here_um = plan.mechanics.seen((first.x_um or 0.0, first.y_um or 0.0), (place.x_um or 0.0, place.y_um or 0.0))
        x, y = (there + corner + pixel_um / 2 for there, corner in zip(here_um, plan.corner_um, strict=True))
        z = (place.z_um or 0.0) + (plan.shots.offsets_um[0] if place.z_um is not None else 0.0)
        yield plan.name_of(position), (z, y, x)

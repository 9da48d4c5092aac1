"""`dmu show`: numbers on the mirrors, to be looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dmu_hw.cli.output import DONE, Output
from dmu_hw.cli.session import load_instrument
from dmu_hw.data import BoolArray, Uint16Array
from dmu_hw.errors import InputError, Problem
from dmu_hw.guard import Guard
from dmu_hw.hours import HourMeter
from dmu_hw.instrument import Instrument
from dmu_hw.lock import rig_held
from dmu_hw.rig import Rig

COUNT = 24
"""Patterns that are loaded: as many as a DLPC900 keeps in one image, where one may be taken for another."""


@dataclass(frozen=True)
class Wish:
    """What somebody wants to see."""

    patterns: tuple[int, ...]
    power_mw: float | None
    exposure_ms: float
    seconds: float
    out: Path


def numbered(shape: tuple[int, int], count: int) -> BoolArray:
    """Each pattern is its own number; a square is in the corner of the first mirror."""
    rows, columns = shape
    font = ImageFont.load_default(size=min(rows, columns) // 2)
    frames = np.zeros((count, rows, columns), dtype=np.bool_)
    for number, frame in enumerate(frames):
        picture = Image.new("1", (columns, rows))
        ImageDraw.Draw(picture).text((columns / 2, rows / 2), str(number), fill=1, font=font, anchor="mm")
        frame[:] = np.asarray(picture)
        frame[: rows // 8, : rows // 8] = True
    return frames


def show_patterns(path: Path, channel: str | None, wish: Wish, output: Output) -> None:
    """Without power nothing is lit, and only the mirrors are opened; with it the camera takes a picture of each."""
    rig = load_instrument(path)
    count = min(COUNT, rig.dmd.memory_frames)
    foreign = [str(number) for number in wish.patterns if not 0 <= number < count]
    if foreign:
        raise InputError([Problem("--pattern", f"should be 0 to {count - 1}, given {', '.join(foreign)}")])
    frames = numbered(rig.dmd.shape, count)
    if wish.power_mw is None:
        _show(rig, frames, wish, output)
        output.finish(DONE, pictures=[])
    output.lights = True
    pictures = _photograph(rig, _channel(rig, channel), frames, wish)
    wish.out.mkdir(parents=True, exist_ok=True)
    for name, pixels in pictures.items():
        _save(pixels, wish.out / f"{name}.png")
        output.say(f"{wish.out / f'{name}.png'}: {pixels.min()} to {pixels.max()}, {pixels.mean():.1f} on average")
    output.finish(DONE, pictures=[str(wish.out / f"{name}.png") for name in pictures])


def _show(rig: Rig, frames: BoolArray, wish: Wish, output: Output) -> None:
    """One after the other, in whatever light there is."""
    link = rig.connection(rig.file.parts["dmd"].connection or "")
    with rig_held(rig.file):
        try:
            if link is not None:
                link.open()
            rig.dmd.open()
            rig.dmd.load(frames)
            for number in wish.patterns:
                rig.dmd.show(number)
                output.say(f"pattern {number}")
                rig.clock.sleep_ms(1e3 * wish.seconds)
        finally:
            rig.dmd.close()
            if link is not None:
                link.close()


def _photograph(rig: Rig, channel: str, frames: BoolArray, wish: Wish) -> dict[str, Uint16Array]:
    """A dark picture, and one of each pattern."""
    power_mw = wish.power_mw or 0.0
    chosen = rig.channels[channel]
    if power_mw > rig.highest_mw(chosen.light):
        what = f"the rig allows {chosen.light} {rig.highest_mw(chosen.light):g} mW, given {power_mw:g}"
        raise InputError([Problem("--power", what)])
    with rig_held(rig.file), rig.opened():
        guard, meter = Guard(rig), HourMeter(rig.file)
        work, woke_ms = Instrument(rig, chosen, chosen.optics, guard, lambda _done, _total: None), rig.clock.now_ms()
        try:
            pictures = {"dark": work.dark(wish.exposure_ms, 1)[0]}
            work.load(frames)
            mode = work.mode(wish.exposure_ms)
            rig.camera.configure(mode)
            with work.lit(power_mw, _longest_ms(rig, wish)):
                for number in wish.patterns:
                    rig.dmd.show(number)
                    rig.clock.sleep_ms(rig.settle_ms)
                    pictures[f"pattern-{number}"] = work.snap(mode)
        finally:
            guard.off()
            meter.count(work.light_on_ms, rig.clock.now_ms() - woke_ms, ended=True)
    return pictures


def _longest_ms(rig: Rig, wish: Wish) -> float:
    return len(wish.patterns) * (2 * wish.exposure_ms + rig.settle_ms + 1000.0)


def _channel(rig: Rig, name: str | None) -> str:
    names: Sequence[str] = tuple(rig.channels)
    if name is None and len(names) == 1:
        return names[0]
    if name is None or name not in names:
        what = f"should be one of {', '.join(names)}" if names != ("",) else "this rig has no channels"
        raise InputError([Problem("--channel", what)])
    return name


def _save(pixels: Uint16Array, path: Path) -> None:
    """Stretched from its darkest to its brightest pixel."""
    low, span = int(pixels.min()), max(1, int(np.ptp(pixels)))
    Image.fromarray(((pixels.astype(np.float32) - low) * (255 / span)).astype(np.uint8)).save(path)

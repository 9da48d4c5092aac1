"""What is asked of the instrument: exposures round a step from one pattern to another, pulses as fast as can be, and
sequences of patterns that can be told apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmu_hw.data import BoolArray, Uint16Array
from dmu_hw.errors import DeviceTimeout
from dmu_hw.exposing import NoLightError, fitting_exposure_ms
from dmu_hw.instrument import Instrument
from dmu_hw.ports import CameraMode, RawFrame, Roi
from dmu_hw.routine import Evidence
from dmu_hw.routines.timing.transition import Exposures, Rates, Transition, transition

CODES = 7
"""Patterns that a sequence is told by."""
FIRST, OTHER, DARK = 0, 1, 2
"""Places in the memory of the DMD; codes come behind them."""
_BLOCKS = 48
"""Of pixels along the longer side of a frame, whose means are kept."""
_SQUARES = 16
"""Along the shorter side of the array."""
_STEADY = 6
_LEAST_SCALE_MS = 0.05
_COARSE, _FINE, _REPEATS, _AGAIN = 20, 24, 4, 40
_PULSES = 6
_DOUBLINGS = 8
_WARM_MS = 2.0
"""From switching the light on to what is measured."""
_PART = 0.4
"""Of what the camera can tell that the longest exposure uses."""


def measured(instrument: Instrument, power_mw: float) -> Evidence:
    """All of it."""
    return _Measuring(instrument, power_mw).evidence()


def patterns(shape: tuple[int, int]) -> BoolArray:
    """Two chessboards that complement each other, no light, and codes that resemble neither each other nor those."""
    rows, columns = shape
    side = max(1, min(shape) // _SQUARES)
    row, column = np.arange(rows)[:, None] // side, np.arange(columns)[None, :] // side
    board = (row + column) % 2 == 0
    luck = np.random.default_rng(0xC0DE).random((CODES, rows // side + 1, columns // side + 1)) < 0.5
    return np.stack([board, ~board, np.zeros(shape, dtype=bool), *luck[:, row, column]])


class _Measuring:
    """One rig, whoever sets its pace."""

    def __init__(self, instrument: Instrument, power_mw: float) -> None:
        self.instrument = instrument
        self.stepping = instrument.rig.settings.stepping
        self.told_ms = instrument.dmd.settle_ms
        self.window = _window(instrument.whole, strip=self.stepping == "camera")
        self.power_mw = power_mw
        self.scale_ms = max(8 * self.told_ms, 8 * _LEAST_SCALE_MS)
        """All that is looked at happens within it."""
        self.facts: dict[str, Any] = {"stepping": self.stepping, "told_settle_ms": self.told_ms}
        self.arrays: dict[str, NDArray[Any]] = {}

    def evidence(self) -> Evidence:
        instrument, shown = self.instrument, patterns(self.instrument.mirrors_shape)
        try:
            longest_ms = fitting_exposure_ms(instrument, shown[FIRST], power_mw=self.power_mw, part=_PART)
        except NoLightError as error:
            return Evidence({}, {"no_light": str(error)})
        instrument.load(shown)
        self._dim(longest_ms)
        for doubling in range(_DOUBLINGS):
            instrument.progress(doubling, _DOUBLINGS + 4)
            self._steady()
            if groups_of(self.arrays) is None:
                return Evidence(self.arrays, self.facts)  # there is nothing to look at
            coarse = self._coarse()
            if coarse is not None or doubling == _DOUBLINGS - 1:
                break
            self.scale_ms *= 2
            self._dim(longest_ms)
        if coarse is not None:
            coarse = self._close("close", coarse, 1.7 * self.scale_ms / _COARSE, 1)
        if coarse is not None:
            self._close("fine", coarse, 0.0, _REPEATS)
        instrument.progress(_DOUBLINGS + 1, _DOUBLINGS + 4)
        if self.stepping == "dmd" and coarse is not None:
            self._again(coarse)
        self._readout()
        instrument.progress(_DOUBLINGS + 2, _DOUBLINGS + 4)
        if self.stepping == "dmd":
            self._fastest()
        if self.stepping != "software":
            self._order(longest_ms)
        instrument.progress(_DOUBLINGS + 4, _DOUBLINGS + 4)
        self.facts |= {"scale_ms": self.scale_ms, "power_mw": self.power_mw}
        return Evidence(self.arrays, self.facts)

    def _dim(self, longest_ms: float) -> None:
        """Exposures follow from the times that are looked for, so it is the light that must not be too bright."""
        if 2 * self.scale_ms > longest_ms:
            self.power_mw *= longest_ms / (2 * self.scale_ms)

    # ---------------------------------------------------------------- light of patterns that stand

    def _steady(self) -> None:
        """All three states of the mirrors, each long after its step, and no light at all."""
        exposure_ms = self.scale_ms
        mode = self.instrument.mode(exposure_ms, roi=self.window)
        self.instrument.camera.configure(mode)
        frames = []
        for index in (FIRST, OTHER, DARK):
            with self._lit(exposure_ms * _STEADY):
                self.instrument.dmd.show(index)
                self.instrument.clock.sleep_ms(5 * self.scale_ms)
                frames.append([self._blocks(self.instrument.snap(mode)) for _ in range(_STEADY)])
        dark = self.instrument.dark(exposure_ms, _STEADY, roi=self.window)
        self.arrays |= {"steady": np.array(frames), "dark": np.array([self._blocks(frame) for frame in dark])}
        self.facts["steady_ms"] = exposure_ms

    # ---------------------------------------------------------------- round a step

    def _coarse(self) -> Transition | None:
        """Roughly when what happens; None if not all of it happens within the time that was looked at."""
        span_ms = self.scale_ms
        asked = np.linspace(0.15, 1.85, _COARSE) if self.stepping == "dmd" else np.linspace(0, 0.8, _COARSE)
        self._scan("coarse", asked * span_ms, 1)
        found = self._seen("coarse")
        fits = found is not None and found.late_ms + found.settle_ms < 0.7 * span_ms and found.late_ms < 0.7 * span_ms
        return found if fits else None

    def _close(self, name: str, coarse: Transition, spare_ms: float, repeats: int) -> Transition | None:
        """The same once more, closer to where it happens: from a while before the step to a while after its end."""
        span_ms = self.scale_ms
        width_ms = max(coarse.settle_ms, 0.01 * span_ms)
        begin_ms = span_ms - coarse.late_ms if self.stepping == "dmd" else 0.0
        low_ms, high_ms = begin_ms - max(0.6 * width_ms, spare_ms), begin_ms + max(1.8 * width_ms, width_ms + spare_ms)
        shortest_ms = 0.1 * span_ms if self.stepping == "dmd" else 0.0
        self._scan(name, np.linspace(max(low_ms, shortest_ms), high_ms, _FINE), repeats)
        return self._seen(name)

    def _seen(self, name: str) -> Transition | None:
        """What a scan tells; None: the light has gone."""
        groups = groups_of(self.arrays)
        if groups is None:
            return None
        seen = exposures_of(self.arrays, self.facts, name, groups)
        return transition(seen, rates_of(self.arrays, self.facts, groups), self.scale_ms)

    def _again(self, coarse: Transition) -> None:
        """One and the same exposure many times: what differs is when the camera answers."""
        exposure_ms = self.scale_ms - coarse.late_ms + 1.5 * coarse.settle_ms
        self._scan("again", np.array([exposure_ms]), _AGAIN)

    def _scan(self, name: str, asked_ms: NDArray[np.float64], repeats: int) -> None:
        """Exposures with one number that differs: how long (the DMD sets the pace), or how late after the step."""
        take = {"dmd": self._by_dmd, "camera": self._by_camera, "software": self._by_software}[self.stepping]
        blocks, spans, stamps = [], [], []
        for value_ms in np.repeat(asked_ms, repeats):
            frame, span, stamp_ms = take(float(value_ms))
            blocks.append(self._blocks(frame))
            spans.append(span)
            stamps.append(stamp_ms)
        self.arrays |= {name: np.array(blocks), f"{name}_ms": np.array(spans)}
        self.facts[f"{name}_stamps_ms"] = stamps

    def _by_dmd(self, exposure_ms: float) -> tuple[Uint16Array, tuple[float, float], float]:
        """The pulse of the first pattern begins the exposure, which goes on into the next one. The step is that
        between them; and when the frame says that it began, after the pulse."""
        instrument, period_ms = self.instrument, self.scale_ms
        mode = instrument.mode(exposure_ms, roi=self.window, external=True)
        instrument.camera.configure(mode)
        with self._lit(2 * period_ms):
            instrument.camera.arm(1)
            begin_ms = instrument.clock.now_ms()
            instrument.dmd.start((FIRST, OTHER), period_ms)
            frame = instrument.pop(mode, 2 * period_ms)
            pixels = instrument.upright(frame)
        instrument.camera.disarm()
        return pixels, (-period_ms, exposure_ms - period_ms), frame.time_ms - begin_ms

    def _by_camera(self, gap_ms: float) -> tuple[Uint16Array, tuple[float, float], float]:
        """The end of the first exposure is the step; the second begins after the gap."""
        instrument, exposure_ms = self.instrument, self.scale_ms
        mode = instrument.mode(exposure_ms, roi=self.window, interval_ms=exposure_ms + gap_ms)
        instrument.camera.configure(mode)
        with self._lit(3 * exposure_ms + gap_ms):
            instrument.dmd.start((FIRST, OTHER, DARK), None)
            instrument.clock.sleep_ms(5 * self.scale_ms)
            instrument.camera.arm(2)
            first = instrument.pop(mode).time_ms
            frame = instrument.pop(mode)
            pixels = instrument.upright(frame)
            instrument.dmd.stop()
        gap_ms = max(gap_ms, self._readout_of(mode))
        return pixels, (gap_ms, gap_ms + exposure_ms), frame.time_ms - first

    def _by_software(self, wait_ms: float) -> tuple[Uint16Array, tuple[float, float], float]:
        """This program steps, waits, and asks for a frame."""
        instrument, exposure_ms = self.instrument, self.scale_ms
        mode = instrument.mode(exposure_ms, roi=self.window)
        instrument.camera.configure(mode)
        with self._lit(8 * exposure_ms):
            instrument.dmd.show(FIRST)
            instrument.clock.sleep_ms(5 * self.scale_ms)
            instrument.dmd.show(OTHER)
            step_ms = instrument.clock.now_ms()
            instrument.clock.sleep_ms(wait_ms)
            start_ms = instrument.clock.now_ms() - step_ms
            instrument.camera.arm(1)
            frame = instrument.pop(mode)
            pixels = instrument.upright(frame)
        return pixels, (start_ms, start_ms + exposure_ms), frame.time_ms - step_ms

    # ---------------------------------------------------------------- how fast

    def _readout(self) -> None:
        """Frames of the whole chip as fast as the camera takes them by itself."""
        mode = self.instrument.mode(self.scale_ms)
        self.facts |= {
            "readout_ms": self._readout_of(mode),
            "told_readout_ms": self.instrument.camera.readout_ms(mode),
        }

    def _readout_of(self, mode: CameraMode) -> float:
        """From the end of an exposure to the next, as the frames' own times say."""
        key = f"readout of {mode.roi}"
        if key not in self.facts:
            instrument, free = self.instrument, replace(mode, interval_ms=0.0, trigger="internal")
            instrument.camera.configure(free)
            instrument.camera.arm(_PULSES)
            frames = [(frame.number, frame.time_ms) for frame in (instrument.pop(free) for _ in range(_PULSES))]
            instrument.camera.configure(mode)
            (first, first_ms), (last, last_ms) = frames[0], frames[-1]
            self.facts[key] = (last_ms - first_ms) / max(1, last - first) - mode.exposure_ms
        return float(self.facts[key])

    def _fastest(self) -> None:
        """The shortest period at which the camera answers every pulse, and whether it does at the one that runs would
        have."""
        exposure_ms = max(self.scale_ms / 8, self.facts["readout_ms"] / 4)
        slow = exposure_ms + self.told_ms + max(self.facts["readout_ms"], self.facts["told_readout_ms"])
        low, high = max(exposure_ms, 1.001 * self.told_ms), 2 * slow
        if self._missed(exposure_ms, low) == 0:
            high = low
        while high - low > 0.01 * (high - exposure_ms):
            middle = (low + high) / 2
            low, high = (low, middle) if self._missed(exposure_ms, middle) == 0 else (middle, high)
        self.facts |= {"pulse_exposure_ms": exposure_ms, "shortest_period_ms": high}
        planned = exposure_ms + self.told_ms + max(self.facts["told_readout_ms"], high - exposure_ms)
        missed = sum(self._missed(exposure_ms, planned) for _ in range(3))
        self.facts |= {"planned_period_ms": planned, "missed": missed, "pulses": 3 * _PULSES}

    def _missed(self, exposure_ms: float, period_ms: float) -> int:
        """Pulses of a sequence that the camera did not answer; no light is needed for that."""
        mode = self.instrument.mode(exposure_ms, external=True)
        self.instrument.camera.configure(mode)
        return _PULSES - len(list(self._sequence((DARK,) * _PULSES, mode, period_ms)))

    def _sequence(self, order: tuple[int, ...], mode: CameraMode, period_ms: float | None) -> Iterator[RawFrame]:
        """The frames that come of a sequence; their pixels only hold until the next."""
        instrument = self.instrument
        # where exposures step the mirrors, the last one only shows that they went on
        count = len(order) - (period_ms is None)
        if period_ms is not None:
            instrument.camera.arm(count)
            instrument.dmd.start(order, period_ms)
        else:
            instrument.dmd.start(order, None)
            instrument.clock.sleep_ms(5 * self.scale_ms)
            instrument.camera.arm(count)
        try:
            for _ in range(count):
                longest_ms = 2 * (period_ms or mode.interval_ms) + instrument.camera.readout_ms(mode) + _WARM_MS
                yield instrument.camera.pop(longest_ms + mode.exposure_ms)
        except DeviceTimeout:
            return
        finally:
            instrument.camera.disarm()
            instrument.dmd.stop()

    # ---------------------------------------------------------------- which pattern comes first

    def _order(self, longest_ms: float) -> None:
        """Every code by itself, then all of them as a sequence, with time to spare."""
        instrument = self.instrument
        exposure_ms = min(longest_ms, 2 * self.scale_ms)
        codes = tuple(range(DARK + 1, DARK + 1 + CODES))
        spare_ms = 3 * (self.scale_ms + self.facts["readout_ms"] + self.facts["told_readout_ms"])
        alone = instrument.mode(exposure_ms)
        instrument.camera.configure(alone)
        shown = []
        with self._lit(CODES * (exposure_ms + spare_ms)):
            for code in codes:
                instrument.dmd.show(code)
                instrument.clock.sleep_ms(5 * self.scale_ms)
                shown.append(self._blocks(instrument.snap(alone)))
        paced = self.stepping == "dmd"
        mode = instrument.mode(exposure_ms, external=paced, interval_ms=0.0 if paced else exposure_ms + spare_ms)
        seen, numbers = [], []
        for _ in range(2):
            instrument.camera.configure(mode)
            with self._lit(CODES * (exposure_ms + spare_ms)):
                for frame in self._sequence(codes, mode, exposure_ms + spare_ms if paced else None):
                    seen.append(self._blocks(instrument.upright(frame)))
                    numbers.append(frame.number)
        self.arrays |= {"codes": np.array(shown), "sequence": np.array(seen or [np.zeros_like(shown[0])])}
        self.facts["sequence_numbers"] = numbers

    # ----------------------------------------------------------------

    def _lit(self, longest_ms: float) -> Any:
        """Light that has been on for a while."""
        return _Warm(self.instrument, self.power_mw, 4 * longest_ms + 50 * self.scale_ms)

    def _blocks(self, frame: Uint16Array) -> NDArray[np.float32]:
        """Means of blocks of pixels, (y, x)."""
        side = max(1, max(frame.shape) // _BLOCKS)
        rows, columns = (length // side for length in frame.shape)
        cut = frame[: rows * side, : columns * side].reshape(rows, side, columns, side)
        return np.asarray(cut.mean(axis=(1, 3)), dtype=np.float32)


class _Warm:
    """`lit` of the instrument, entered a moment before it is needed."""

    def __init__(self, instrument: Instrument, power_mw: float, longest_ms: float) -> None:
        self._instrument = instrument
        self._lit = instrument.lit(power_mw, min(longest_ms + 2000.0, instrument.rig.settings.limits.on_time_ms))

    def __enter__(self) -> None:
        self._lit.__enter__()
        self._instrument.clock.sleep_ms(_WARM_MS)

    def __exit__(self, *error: Any) -> None:
        self._lit.__exit__(*error)


def _window(whole: Roi, *, strip: bool) -> Roi:
    """A camera that sets the pace reads out between two exposures: few rows leave time to look at the mirrors."""
    rows = max(8, whole.height // 16) if strip else whole.height
    return Roi(whole.x, whole.y + (whole.height - rows) // 2, whole.width, rows)


# ---------------------------------------------------------------- what is to be seen in it

Groups = tuple[NDArray[np.bool_], NDArray[np.bool_]]


def groups_of(arrays: Any) -> Groups | None:
    """Blocks that only the first pattern lights, and those that only the other one does; None: there are hardly any."""
    first, other, dark = arrays["steady"].astype(float).mean(axis=1) - arrays["dark"].astype(float).mean(axis=0)
    both = first + other - 2 * dark
    bright = both > max(0.3 * np.percentile(both, 98), 1e-9)
    contrast = np.divide(first - other, both, out=np.zeros_like(both), where=bright)
    groups = contrast > 0.5, contrast < -0.5
    noise = 5 * arrays["dark"].astype(float).std(axis=0).mean()
    lit = all(group.sum() >= 4 and np.median(both[group]) > noise for group in groups)
    return groups if lit else None


def rates_of(arrays: Any, facts: Any, groups: Groups) -> Rates:
    steady = arrays["steady"].astype(float).mean(axis=1) - arrays["dark"].astype(float).mean(axis=0)
    first, other, dark = (_sums(frame[None], groups)[:, 0] / facts["steady_ms"] for frame in steady)
    return Rates((first[0], first[1]), (dark[0], dark[1]), (other[0], other[1]))


def exposures_of(arrays: Any, facts: Any, name: str, groups: Groups) -> Exposures:
    """One scan, as light of the groups."""
    light = _sums(arrays[name].astype(float) - arrays["dark"].astype(float).mean(axis=0), groups)
    start_ms, stop_ms = np.asarray(arrays[f"{name}_ms"], dtype=float).T
    return Exposures(start_ms, stop_ms, light, floats=facts["stepping"] == "dmd")


def _sums(frames: NDArray[np.float64], groups: Groups) -> NDArray[np.float64]:
    """(group, frame)."""
    return np.stack([frames[:, group].sum(axis=1) for group in groups])

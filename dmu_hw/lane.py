"""One reconstructor on its device, warmed before there is light: how many bursts it takes at once, and by what numbers,
is tried out rather than assumed.

On a GPU, one stream copies and another works: while one batch is worked on, the next is on its way there and the one
before on its way back, through memory that the system cannot move. On a CPU a batch is made where it is submitted.

Nothing is compiled: on two cores torch's compiler took most of a minute, all of it before the first light, to save a
fifth of the time of a field.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dmu_hw.bundle import Bundle
from dmu_hw.data import Estimate, Uint16Array
from dmu_hw.errors import InputError, Problem
from dmu_hw.pursuit import Pursuit
from dmu_hw.reconstruct import Made, Reconstructor, Window
from dmu_hw.rehearsal import Rehearsal

HALF_COST_DB = 0.05
_HALF = {"cpu": torch.bfloat16, "cuda": torch.float16}
_FASTER = 0.9
"""What is to be called faster takes less than this part of the time."""
_MOST_AT_ONCE = 32
_BATCH_S = 0.05
"""Larger batches would take longer, and whoever waits for the first of one waits for all of it."""
_TRIES, _TRYING_S = 5, 0.3


def device_of(settings: Pursuit, where: str) -> torch.device:
    """Where to reconstruct; InputError if there is no such thing."""
    there = torch.cuda.is_available()
    if settings.device == "cuda" and not there:
        raise InputError([Problem(where, "there is no GPU that torch can use; allowed: auto, cpu")])
    return torch.device("cuda" if there and settings.device != "cpu" else "cpu")


@dataclass(frozen=True, eq=False)
class Pending:
    """A batch that a device may still be at work on."""

    made: Made
    done: Any = None
    """The event after which it is there; None on a CPU."""


class Lane:
    """Bursts of one kind → estimates."""

    def __init__(self, bundle: Bundle, window: Window, device: torch.device, *, half: bool = False) -> None:
        """`half`: whether numbers of 16 bits may be tried."""
        self.bundle = bundle
        self.reconstructor = Reconstructor(bundle, window, device)
        self.device = device
        self.batch = 1
        """As many bursts as it pays to take at once."""
        self.half_cost_db: float | None = None
        """None: full precision."""
        self.ahead = 0 if device.type == "cpu" else 1
        """Batches that may be under way while another is submitted."""
        self._may_halve = half
        self._copies: torch.cuda.Stream | None = None
        self._work: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._copies, self._work = _stream(device), _stream(device)
            for model in (self.reconstructor.model, self.reconstructor.segmenter):
                _lay_channels_last(model)
            torch.cuda.synchronize(device)  # neither stream waits for what others have begun

    def warm(self) -> None:
        """Try out all that is to be decided, and so do all that is done only once."""
        rehearsal = Rehearsal.of(self.bundle, self.reconstructor.calibrated.window)
        frames = self._as_large(rehearsal.frames)
        one_s = self._halved_s(rehearsal, frames) if self._may_halve else self._takes_s([frames])
        self._choose_batch(frames, one_s)

    def _as_large(self, frames: Uint16Array) -> Uint16Array:
        """The frames of a rehearsal, over and over, as large as those of the run."""
        window, side = self.reconstructor.calibrated.window, self.bundle.patterns.camera_pixel
        rows, columns = (length // side for length in window.field_px)
        times = (1, -(-rows // frames.shape[1]), -(-columns // frames.shape[2]))
        return np.ascontiguousarray(np.tile(frames, times)[:, :rows, :columns])

    def _halved_s(self, rehearsal: Rehearsal, frames: Uint16Array) -> float:
        """How long a burst takes after numbers of 16 bits were adopted, or were not."""
        half = _HALF[self.device.type]

        def by(numbers: torch.dtype | None) -> Callable[[], object]:
            def work() -> None:
                self.reconstructor.half = numbers
                self.estimates([frames])

            return work

        full_s, half_s = least_s(by(None), by(half))
        if half_s < _FASTER * full_s:
            cost_db = rehearsal.costs(self.bundle, self.device, half)
            if cost_db < HALF_COST_DB:
                self.half_cost_db, self.reconstructor.half = cost_db, half
                return half_s
        self.reconstructor.half = None
        return full_s

    def _choose_batch(self, frames: Uint16Array, one_s: float) -> None:
        best_s = one_s
        count = 2
        while count <= _MOST_AT_ONCE and count * best_s < _BATCH_S:
            each_s = self._takes_s([frames] * count) / count
            if each_s >= _FASTER * best_s:
                return
            self.batch, best_s, count = count, each_s, 2 * count

    def _takes_s(self, bursts: Sequence[Uint16Array]) -> float:
        return least_s(lambda: self.estimates(bursts))[0]

    # ---------------------------------------------------------------- the way there and back

    def estimates(self, bursts: Sequence[Uint16Array]) -> list[Estimate]:
        return self.fetch(self.submit(bursts))

    def submit(self, bursts: Sequence[Uint16Array]) -> Pending:
        """Begin with a batch."""
        stacked = torch.from_numpy(np.stack(bursts))
        if self._copies is None or self._work is None:
            return Pending(self.reconstructor.made(stacked))
        with torch.cuda.stream(self._copies):
            frames = stacked.pin_memory().to(self.device, non_blocking=True)
        self._work.wait_stream(self._copies)
        with torch.cuda.stream(self._work):
            frames.record_stream(self._work)
            return Pending(self.reconstructor.made(frames), self._work.record_event())

    def fetch(self, pending: Pending) -> list[Estimate]:
        """Wait for a batch."""
        if self._copies is None:
            return self.reconstructor.finished(pending.made)
        self._copies.wait_event(pending.done)
        with torch.cuda.stream(self._copies):
            fetched = {name: _on_its_way(tensor, self._copies) for name, tensor in _results(pending.made).items()}
            there = self._copies.record_event()
        there.synchronize()
        # what cannot be moved is scarce, and somebody may keep an estimate
        back = {name: tensor.clone() for name, tensor in fetched.items()}
        return self.reconstructor.finished(replace(pending.made, **back))


def least_s(*works: Callable[[], object]) -> list[float]:
    """The shortest of a few times that each took, the first not counted. They take turns: what else the machine does
    meanwhile is not to decide between them."""
    for work in works:
        work()
    best_s, began_s = [math.inf] * len(works), time.perf_counter()
    for _ in range(_TRIES):
        for number, work in enumerate(works):
            since_s = time.perf_counter()
            work()
            best_s[number] = min(best_s[number], time.perf_counter() - since_s)
        if time.perf_counter() - began_s > len(works) * _TRYING_S:
            break
    return best_s


def _results(made: Made) -> dict[str, Tensor]:
    """All that is wanted back from a device; signals are only what it came from."""
    found = {field.name: getattr(made, field.name) for field in fields(made) if field.name != "signals"}
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}


def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def _on_its_way(tensor: Tensor, copies: torch.cuda.Stream) -> Tensor:
    """Where it will lie in memory that the system cannot move."""
    tensor.record_stream(copies)
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)


def _lay_channels_last(model: object) -> None:
    """As the GPU's units for matrices want it."""
    for part in model.modules() if isinstance(model, nn.Module) else ():
        if isinstance(part, nn.Conv2d):
            part.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

"""What pycromanager calls: bursts begin, frames pass, bursts end. From three of its threads."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from dmu_hw.errors import DeviceError, RunError
from dmu_hw.plan import Take
from dmu_hw.pycromanager.arrivals import Arrivals
from dmu_hw.pycromanager.asked import PATTERN, Asked, Axes, listed
from dmu_hw.pycromanager.faults import Faults
from dmu_hw.pycromanager.live import Live
from dmu_hw.pycromanager.mirrors import Mirrors

_ASK_AGAIN_S = 0.0005


class Hooks:
    """They raise nothing. After a fault no burst begins: a hook that returns None has pycromanager take no frame."""

    def __init__(
        self,
        core: Any,
        take: Take,
        mirrors: Mirrors,
        asked: Asked,
        arrivals: Arrivals,
        faults: Faults,
        timeout_ms: float,
    ) -> None:
        self.live: Live | None = None
        """Where bursts go, if they are reconstructed at once."""
        self._core = core
        self._take = take
        self._mirrors = mirrors
        self._asked = asked
        self._arrivals = arrivals
        self._faults = faults
        self._timeout_ms = timeout_ms
        self._begun: list[Axes] = []
        """Frames of the burst on its way."""

    def post_hardware(self, events: Any) -> Any:
        """With the whole list of a burst, or one event, just before the camera starts."""
        with self._faults:
            if self._faults:
                return None
            self._begin(events if isinstance(events, list) else [events])
            return events
        return None

    def post_camera(self, event: Any) -> Any:
        """The camera takes a sequence, or has snapped a frame. What comes next in pycromanager is a loop that asks for
        frames without a pause and, if need be, for ever: it begins when all are there."""
        with self._faults:
            begun, self._begun = self._begun, []
            if begun:
                try:
                    if self._mirrors.step_by_themselves:
                        self._mirrors.camera_started()
                        self._wait(begun)
                finally:
                    self._mirrors.end()
        return event

    def image_process(self, image: Any, metadata: Any) -> tuple[Any, Any]:
        """Passes every frame on, whatever comes: pycromanager's thread dies of anything but a pair."""
        with self._faults:
            axes = dict(metadata["Axes"])
            arrived = self._arrivals.add(axes, image, metadata) if PATTERN in axes else None
            if arrived is not None and self.live is not None:
                self.live.add(arrived.axes, arrived.frames)
        return image, metadata

    def image_saved(self, axes: Any, dataset: Any) -> None:
        """Counts them."""
        with self._faults:
            self._asked.saved(axes)
            # or a script that is killed would leave no index, and none of its frames could be found
            index = getattr(dataset, "_index_file", None)
            if index is not None:
                with contextlib.suppress(ValueError):  # it is closed by now, and so written
                    index.flush()

    def _begin(self, events: list[dict[str, Any]]) -> None:
        sequence = [dict(event.get("axes", {})) for event in events]
        learned = [PATTERN in axes for axes in sequence]
        before, self._begun = self._begun, []
        if before:
            self._mirrors.end()
            raise RunError(f"{listed(before[:1])}: its burst did not end: is post_camera among the hooks?")
        if not any(learned):
            return  # of the script's own, in the dark as far as the mirrors go
        if not all(learned):
            raise RunError(f"pycromanager merged frames of a burst with others: {listed(sequence)}")
        self._check_camera()
        self._arrivals.expect(sequence)
        self._begun = sequence
        self._mirrors.begin([int(axes[PATTERN]) for axes in sequence])

    def _check_camera(self) -> None:
        """It is as the plan has it: another part of the script may have changed it."""
        mode, shape = self._take.mode, (self._core.getImageHeight(), self._core.getImageWidth())
        exposure_ms, wanted_ms = self._core.getExposure(), mode.exposure_ms
        if shape != mode.shape:
            raise DeviceError("camera", f"gives frames of {shape}, the protocol needs {mode.shape}: who changed it?")
        if abs(exposure_ms - wanted_ms) > 0.01 * (wanted_ms + 1):
            what = f"exposes for {exposure_ms:g} ms, the protocol says {wanted_ms:g} ms: who changed it?"
            raise DeviceError("camera", what)

    def _wait(self, sequence: list[Axes]) -> None:
        """Until all frames are there. A camera that has stopped gives no more; one that goes on for too long is
        stopped."""
        limit_ms = 2 * len(sequence) * self._take.period_ms + self._timeout_ms
        until_s = time.monotonic() + limit_ms / 1e3
        room = self._core.getBufferTotalCapacity()  # known now that the camera runs
        if len(sequence) > room:
            self._core.stopSequenceAcquisition()
            what = f"has a buffer of {room} frames, and a burst has {len(sequence)}: give the core a larger one"
            raise DeviceError("camera", what)
        while self._core.getRemainingImageCount() < len(sequence) and self._core.isSequenceRunning():
            if time.monotonic() >= until_s:
                self._core.stopSequenceAcquisition()
                count = self._core.getRemainingImageCount()
                what = (
                    f"gave {count} of {len(sequence)} frames within {limit_ms:.0f} ms, from {listed(sequence[:1])} on"
                )
                raise DeviceError("camera", what)
            time.sleep(_ASK_AGAIN_S)

"""What pycromanager calls: bursts begin, frames pass, bursts end. From three threads, and from that of the watch."""

from __future__ import annotations

import contextlib
from typing import Any

from dmu_hw.errors import DeviceError, RunError
from dmu_hw.ports import CameraMode
from dmu_hw.pycromanager.arrivals import Arrivals
from dmu_hw.pycromanager.asked import PATTERN, Asked, Axes, listed
from dmu_hw.pycromanager.faults import Faults
from dmu_hw.pycromanager.live import Live
from dmu_hw.pycromanager.mirrors import Mirrors, Order


class Hooks:
    """They raise nothing. After a fault no burst begins: a hook that returns None has pycromanager take no frame."""

    def __init__(
        self, core: Any, mode: CameraMode, mirrors: Mirrors, asked: Asked, arrivals: Arrivals, faults: Faults
    ) -> None:
        self.live: Live | None = None
        """Where bursts go, if they are reconstructed at once."""
        self._core = core
        self._mode = mode
        self._mirrors = mirrors
        self._asked = asked
        self._arrivals = arrivals
        self._faults = faults
        self._begun: tuple[Axes, Order] | None = None
        """The last frame of the burst that was begun last, and what ends it."""

    def post_hardware(self, events: Any) -> Any:
        """With the whole list of a burst, or one event, just before the camera starts."""
        with self._faults:
            if self._faults:
                return None
            self._begin(events if isinstance(events, list) else [events])
            return events
        return None

    def post_camera(self, event: Any) -> Any:
        """The camera takes a sequence, or has snapped a frame."""
        with self._faults:
            if self._begun is not None:
                self._mirrors.camera_started()
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
        """The last frame of a burst darkens the mirrors."""
        with self._faults:
            # or a script that is killed would leave no index, and none of its frames could be found
            index = getattr(dataset, "_index_file", None)
            if index is not None:
                with contextlib.suppress(ValueError):  # it is closed by now, and so written
                    index.flush()
            self._asked.saved(axes)
            begun = self._begun
            if begun is not None and dict(axes) == begun[0]:
                self._mirrors.end(begun[1])

    def _begin(self, events: list[dict[str, Any]]) -> None:
        sequence = [dict(event.get("axes", {})) for event in events]
        learned = [PATTERN in axes for axes in sequence]
        self._begun = None
        self._mirrors.end()
        if not any(learned):
            return  # of the script's own, in the dark as far as the mirrors go
        if not all(learned):
            raise RunError(f"pycromanager merged frames of a burst with others: {listed(sequence)}")
        self._check_camera()
        self._arrivals.expect(sequence)
        order = self._mirrors.begin([int(axes[PATTERN]) for axes in sequence], lambda: self._overdue(sequence))
        self._begun = sequence[-1], order

    def _check_camera(self) -> None:
        """It is as the plan has it: another part of the script may have changed it."""
        shape = self._core.getImageHeight(), self._core.getImageWidth()
        exposure_ms, wanted_ms = self._core.getExposure(), self._mode.exposure_ms
        if shape != self._mode.shape:
            raise DeviceError(
                "camera", f"gives frames of {shape}, the protocol needs {self._mode.shape}: who changed it?"
            )
        if abs(exposure_ms - wanted_ms) > 0.01 * (wanted_ms + 1):
            what = f"exposes for {exposure_ms:g} ms, the protocol says {wanted_ms:g} ms: who changed it?"
            raise DeviceError("camera", what)

    def _overdue(self, sequence: list[Axes]) -> None:
        """pycromanager would wait for ever for the frames that do not come, unless the camera is stopped."""
        first = listed(sequence[:1])
        self._faults.keep(DeviceError("camera", f"did not give {len(sequence)} frames in time, from {first} on"))
        with self._faults:
            self._mirrors.end()
        with self._faults:
            if self._core.isSequenceRunning():
                self._core.stopSequenceAcquisition()

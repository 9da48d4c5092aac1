"""ViALUX's library by ALP4lib. Both are loaded when a device is opened: the library comes with the instrument."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dmu_hw.errors import DeviceError

_LOST: tuple[type[Exception], ...] = (OSError, ValueError, KeyError, AttributeError, ctypes.ArgumentError)
"""What ALP4lib raises beside its own error: a library that is not there, a code that it does not know, a device that
was let go."""


@dataclass(frozen=True)
class Alp:
    """An open device, and what it raises."""

    calls: Any
    """ALP4lib's `ALP4`, or a twin."""
    error: type[Exception]

    @contextlib.contextmanager
    def failing_as(self, name: str, what: str) -> Iterator[None]:
        """Whatever goes wrong in a block is a DeviceError."""
        try:
            yield
        except (self.error, *_LOST) as error:
            raise DeviceError(name, f"ALP: {what} failed: {error}") from error


def open_alp(name: str, version: str, folder: Path | None, serial: int | None) -> Alp:
    """The only device there is, or the one with this serial number."""
    try:
        import ALP4  # noqa: PLC0415 - an extra that only this driver needs
    except ImportError as error:
        raise DeviceError(name, f"needs ALP4lib: pip install 'dmu-hw[vialux]' ({error})") from error
    with contextlib.redirect_stdout(sys.stderr):  # ALP4lib prints; our output may be read by a program
        try:
            calls = ALP4.ALP4(version=version, libDir=None if folder is None else str(folder))
        except _LOST as error:
            what = f"ViALUX's library ALP-{version} cannot be loaded: {error}"
            raise DeviceError(name, f"{what}; install it from the disk of the instrument, or say its folder") from error
        alp = Alp(calls, ALP4.ALPError)
        with alp.failing_as(name, "opening the device"):
            calls.Initialize(serial)
    return alp

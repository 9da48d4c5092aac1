"""Which piece of hardware a port's name stands for: after a cable was pulled the next device may bear it."""

from __future__ import annotations

import os
from pathlib import Path

from serial.tools import list_ports

_WINDOWS = os.name == "nt"
Identity = tuple[object, ...]


def identity_of(port: str) -> Identity | None:
    """A USB device tells it; of another port that is a file it is the moment at which that came to be. None: nobody
    knows, or there is none."""
    path = port if _WINDOWS else os.path.realpath(port)
    for found in list_ports.comports():
        if path.casefold() == found.device.casefold() and found.vid is not None:
            return found.vid, found.pid, found.serial_number or found.location
    if _WINDOWS:  # to look at COM3 as at a file would be to open it
        return None
    try:
        facts = Path(path).stat()
    except OSError:
        return None
    return facts.st_dev, facts.st_ino, facts.st_ctime_ns

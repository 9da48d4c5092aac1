"""Giving a file or a folder its name."""

from __future__ import annotations

import os
import time
from pathlib import Path

_WINDOWS = os.name == "nt"
_PATIENCE_S = 3.0
_AGAIN_S = 0.02


def move(source: Path, target: Path) -> None:
    """In place of a file that bears it. Windows moves nothing that somebody has open, and replaces nothing, be it a
    viewer, another part of this program or a virus scanner: they are given a while."""
    until_s = time.monotonic() + _PATIENCE_S
    while True:
        try:
            source.replace(target)
        except PermissionError:
            if not _WINDOWS or time.monotonic() >= until_s:
                raise
        else:
            return
        time.sleep(_AGAIN_S)

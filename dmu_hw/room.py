"""Room on the disk: enough for a whole run before it begins, and for the rest of it while it goes on."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from dmu_hw.errors import InputError, Problem, RunError

SPARE_BYTES = 50_000_000
"""For journal, settings, report and whatever the system needs."""
_LOOK_S = 1.0


def check_room(out: Path, wanted_bytes: int) -> None:
    """Refuse a run that has no place to go to, before anything is made."""
    place = out.absolute()
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        raise InputError([Problem(str(out), f"{place} is a file, where a folder is needed")])
    if not os.access(place, os.W_OK | os.X_OK):
        raise InputError([Problem(str(out), f"nobody may write into {place}")])
    free, wanted = shutil.disk_usage(place).free, wanted_bytes + SPARE_BYTES
    if free < wanted:
        raise InputError([Problem(str(out), f"{_gb(free)} are free, the run needs {_gb(wanted)}")])


class RoomWatch:
    """Looks now and then whether the rest of a run still fits; others fill the disk too."""

    def __init__(self, folder: Path, wanted_bytes: int) -> None:
        """`wanted_bytes` is what the whole run needs."""
        self.folder = folder
        self.wanted_bytes = wanted_bytes
        self._looked_s = -_LOOK_S

    def check(self, written_bytes: int) -> None:
        """End the run while there is still room for it to end in: between two bursts, in the dark."""
        now_s = time.monotonic()
        if now_s - self._looked_s < _LOOK_S:
            return
        self._looked_s = now_s
        free, wanted = shutil.disk_usage(self.folder).free, self.wanted_bytes - written_bytes + SPARE_BYTES
        if free < wanted:
            what = f"{_gb(free)} are left on the disk, the rest of the run needs {_gb(wanted)}"
            raise RunError(f"{self.folder}: {what}: stopped before it is full")


def _gb(count: int) -> str:
    return f"{count / 1e9:.2f} GB"

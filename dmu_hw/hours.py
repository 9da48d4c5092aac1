"""How long the lamp has burned and the mirrors have worked on each rig, over all its runs."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from pydantic import ValidationError

from dmu_hw.errors import InputError, Problem
from dmu_hw.files import NonNegative, Settings, write_whole
from dmu_hw.rig import RigFile
from dmu_hw.state import file_name, made, state_folder

log = logging.getLogger(__name__)
_HOUR_MS = 3.6e6
_EVERY_S = 60.0
"""A crash forgets no more than that."""


class Hours(Settings):
    """On the rig's clock."""

    rig: str
    file: str
    lamp_h: NonNegative = 0.0
    mirrors_h: NonNegative = 0.0


def hours_file(rig: RigFile) -> Path:
    name = rig.settings.name
    return state_folder("hours") / f"{file_name(name, str(rig.path.resolve()), name)}.json"


def read_hours(rig: RigFile) -> Hours:
    """So far; none where nothing has run yet."""
    path = hours_file(rig)
    try:
        return Hours.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return Hours(rig=rig.settings.name, file=str(rig.path.resolve()))
    except (OSError, ValidationError):
        what = "should hold the hours of lamp and mirrors, and cannot be read: mend it, or remove it to begin anew"
        raise InputError([Problem(str(path), what)]) from None


class HourMeter:
    """Adds up one run, every minute and at its end."""

    def __init__(self, rig: RigFile) -> None:
        self._rig = rig
        self._before = read_hours(rig)
        self._written_s = time.monotonic()

    def count(self, lamp_ms: float, mirrors_ms: float, *, ended: bool = False) -> Hours:
        """All hours, when this run has taken so much of lamp and mirrors so far."""
        before = self._before
        more = {"lamp_h": before.lamp_h + lamp_ms / _HOUR_MS, "mirrors_h": before.mirrors_h + mirrors_ms / _HOUR_MS}
        hours = before.model_copy(update=more)
        if ended or time.monotonic() - self._written_s >= _EVERY_S:
            self._written_s = time.monotonic()
            try:
                path = hours_file(self._rig)
                made(path.parent)
                write_whole(path, hours.model_dump_json(indent=1).encode())
            except OSError as error:  # no reason to end a run
                log.warning("%s: the hours of lamp and mirrors cannot be written: %s", error.filename, error.strerror)
        return hours

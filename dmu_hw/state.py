"""What this computer remembers of its instruments from run to run: who holds one, how long its lamp has burned."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from dmu_hw.errors import InputError, Problem

VARIABLE = "DMU_STATE"
"""Environment variable that names another folder."""


def state_folder(name: str) -> Path:
    """One of the folders of the state."""
    from platformdirs import user_state_path  # noqa: PLC0415 - only those who touch a rig pay for it

    given = os.environ.get(VARIABLE)
    return (Path(given) if given else user_state_path("dmu-hw", appauthor=False)) / name


def made(folder: Path) -> Path:
    """A folder of the state that is there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        what = f"cannot be made: {error.strerror}; set {VARIABLE} to a folder that can"
        raise InputError([Problem(str(folder), what)]) from None
    return folder


def file_name(name: str, *what: str) -> str:
    """A name that people recognise, and that no two things share."""
    return f"{name}-{hashlib.sha256(chr(0).join(what).encode()).hexdigest()[:12]}"

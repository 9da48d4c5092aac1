"""What this computer remembers of its instruments from run to run: who holds one, how long its lamp has burned."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

from dmu_hw.errors import InputError, Problem

VARIABLE = "DMU_STATE"
"""Environment variable that names another folder."""
_EVERYBODY = 0o1777
"""All may make files, and remove their own."""


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


def machine_folder(name: str) -> Path:
    """A folder of the state that all users of this computer share."""
    given = os.environ.get(VARIABLE)
    return (Path(given) if given else _of_all_users()) / name


def made_for_all(folder: Path) -> Path:
    """A folder of the state that is there, and that everybody may put files into."""
    try:
        for part in (folder.parent, folder):
            if not part.is_dir():
                part.mkdir(parents=True, exist_ok=True)
                part.chmod(_EVERYBODY)  # whatever the umask is
    except OSError as error:
        raise InputError([Problem(str(folder), f"cannot be made: {error.strerror}; {how_to_share(folder)}")]) from None
    return folder


def how_to_share(folder: Path) -> str:
    """What helps when another user's folder or file is in the way."""
    if sys.platform == "win32":
        means = f"an administrator lets all users of the rig change {folder} and what is in it"
    else:
        means = f"its owner or an administrator runs: chmod 1777 {folder}; chmod 666 {folder}/*"
    return f"{means}; or all users set {VARIABLE} to one folder that they share"


def _of_all_users() -> Path:
    """The same for everybody. What depended on permissions would part those who must find each other; what is emptied
    at each start of the computer would do, but is not open to all everywhere."""
    if sys.platform == "win32":
        return Path(os.environ.get("PROGRAMDATA", r"C:\ProgramData")) / "dmu-hw"
    shared = "/Users/Shared" if sys.platform == "darwin" else "/var/tmp"  # noqa: S108 - nothing secret, no fixed content
    return Path(shared) / "dmu-hw"


def file_name(name: str, *what: str) -> str:
    """A name that people recognise, and that no two things share."""
    return f"{name}-{hashlib.sha256(chr(0).join(what).encode()).hexdigest()[:12]}"

"""One controller per rig, and one per run folder: a lock of the operating system, which the end of its holder frees,
however it ends. Rigs are locked for all users of a computer."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from dmu_hw.errors import InputError, Problem
from dmu_hw.rig import RigFile
from dmu_hw.state import file_name, how_to_share, machine_folder, made_for_all

_IDENTITIES = ("port", "serial_number", "device_id", "address")
"""Settings of a driver that say which piece of hardware it is."""

if sys.platform == "win32":
    import msvcrt

    _FAR = 1 << 30
    """Beyond what is written: Windows lets nobody read what is locked."""

    def _grab(file: IO[bytes]) -> bool:
        with contextlib.suppress(OSError):
            file.seek(_FAR)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            return True
        return False

else:
    import fcntl

    def _grab(file: IO[bytes]) -> bool:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        return False


@contextmanager
def held(path: Path, what: str, *, for_all: bool = False) -> Iterator[None]:
    """Hold something by a file, which all users of this computer may share; refused, with who holds it, if somebody
    does."""
    try:
        file = _opened(path, for_all=for_all)
    except OSError as error:
        why = f"cannot be opened to lock {what}: {error.strerror}"
        raise InputError([Problem(str(path), f"{why}; {how_to_share(path.parent)}" if for_all else why)]) from None
    with file:
        if not _grab(file):
            raise InputError([Problem(what, f"is in use by {_holder(file)}")])
        _write(file, _here())
        try:
            yield
        finally:
            _write(file, {})


def _opened(path: Path, *, for_all: bool) -> IO[bytes]:
    """Made where there is none, for whoever comes after, too. Many systems let nobody open another user's file in a
    folder for all as if it were to be made, and a file that can only be read can be locked as well."""
    with contextlib.suppress(FileExistsError):
        made = open(path, "x+b")
        if for_all:
            path.chmod(0o666)  # whatever the umask is
        return made
    try:
        return open(path, "r+b")
    except PermissionError:
        return open(path, "rb")


def _here() -> dict[str, Any]:
    now = datetime.now().astimezone()
    return {"process": os.getpid(), "user": _user(), "since": now.isoformat(timespec="seconds")}


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, ImportError, OSError):  # a user without a name
        return ""


def _write(file: IO[bytes], facts: dict[str, Any]) -> None:
    """Who holds it, for people; what counts is the lock."""
    if file.writable():
        with contextlib.suppress(OSError):  # the disk is full
            file.seek(0)
            file.truncate(0)
            file.write(json.dumps(facts).encode())
            file.flush()


def _holder(file: IO[bytes]) -> str:
    file.seek(0)
    try:
        holder = json.loads(file.read())
        user = holder.get("user", "")
        whose = f" of user {user}" if user and user != _user() else ""
        return f"process {holder['process']}{whose} since {holder['since']}"
    except (ValueError, LookupError, TypeError):
        return "another process"


@contextmanager
def rig_held(rig: RigFile) -> Iterator[None]:
    """Hold an instrument: its file by path and name, and each device that tells which one it is, so that two files of
    one instrument do not go by each other."""
    folder, name = made_for_all(machine_folder("locks")), rig.settings.name
    claims = {f"rig {name}": file_name(name, str(rig.path.resolve()), name)}
    claims |= {f"{what} of rig {name}": file_name("device", key) for what, key in _devices(rig)}
    with ExitStack() as locks:
        for what, file in sorted(claims.items(), key=lambda claim: claim[1]):
            locks.enter_context(held(folder / f"{file}.lock", what, for_all=True))
        yield


def _devices(rig: RigFile) -> Iterator[tuple[str, str]]:
    """What each device is called, and the one piece of hardware that it is."""
    seen: set[str] = set()
    for part in rig.parts.values():
        for name in _IDENTITIES:
            value = getattr(part.settings, name, None)
            if not isinstance(value, str | int) or value == "":
                continue
            # a port may have many names (/dev/serial/by-id/…); Windows minds no case, and would open COM3 to look at it
            what = str(value)
            if name == "port" and os.name != "nt" and Path(what).exists():
                what = os.path.realpath(what)
            key = f"{name} {what}".casefold()
            if key not in seen:  # one box may be several devices of a rig
                seen.add(key)
                yield f"{name} {value}", key

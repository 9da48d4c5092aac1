"""One controller per rig, and one per run folder: a lock of the operating system, which the end of its holder frees,
however it ends."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO

from dmu_hw.errors import InputError, Problem
from dmu_hw.rig import RigFile
from dmu_hw.state import file_name, made, state_folder

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
def held(path: Path, what: str) -> Iterator[None]:
    """Hold something by a file; refused, with who holds it, if somebody does."""
    try:
        file = open(path, "a+b")
    except OSError as error:
        raise InputError([Problem(str(path), f"cannot be opened to lock {what}: {error.strerror}")]) from None
    with file:
        if not _grab(file):
            raise InputError([Problem(what, f"is in use by {_holder(file)}")])
        file.truncate(0)
        now = datetime.now().astimezone()
        file.write(json.dumps({"process": os.getpid(), "since": now.isoformat(timespec="seconds")}).encode())
        file.flush()
        yield


def _holder(file: IO[bytes]) -> str:
    file.seek(0)
    try:
        holder = json.loads(file.read())
        return f"process {holder['process']} since {holder['since']}"
    except (ValueError, LookupError, TypeError):
        return "another process, which has only just begun"


@contextmanager
def rig_held(rig: RigFile) -> Iterator[None]:
    """Hold an instrument: its file by path and name, and each device that tells which one it is, so that two files of
    one instrument do not go by each other."""
    folder, name = made(state_folder("locks")), rig.settings.name
    claims = {f"rig {name}": file_name(name, str(rig.path.resolve()), name)}
    claims |= {f"{what} of rig {name}": file_name("device", key) for what, key in _devices(rig)}
    with ExitStack() as locks:
        for what, file in sorted(claims.items(), key=lambda claim: claim[1]):
            locks.enter_context(held(folder / f"{file}.lock", what))
        yield


def _devices(rig: RigFile) -> Iterator[tuple[str, str]]:
    """What each device is called, and the one piece of hardware that it is."""
    seen: set[str] = set()
    for part in rig.parts.values():
        for name in _IDENTITIES:
            value = getattr(part.settings, name, None)
            if not isinstance(value, str | int) or value == "":
                continue
            # a port may have many names (/dev/serial/by-id/…), and Windows minds no case
            what = str(value)
            if name == "port" and Path(what).exists():
                what = os.path.realpath(what)
            key = f"{name} {what}".casefold()
            if key not in seen:  # one box may be several devices of a rig
                seen.add(key)
                yield f"{name} {value}", key

"""JSON lines, each with its own CRC32C: what happened in a run, in order, readable after any crash."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import google_crc32c

from dmu_hw.errors import RunError

Line = dict[str, Any]


def crc32c(content: bytes) -> str:
    """Checksum of some bytes, as eight hexadecimal digits."""
    return f"{google_crc32c.value(content):08x}"


class Journal:
    """Appends lines; `sync` returns when they are on the disk."""

    def __init__(self, path: Path) -> None:
        self._file: IO[bytes] = open(path, "ab")
        self._lock = threading.Lock()

    def add(self, kind: str, **fields: Any) -> None:
        """Write one line; it is durable after the next `sync`."""
        body = json.dumps({"kind": kind, **fields}, separators=(",", ":"), allow_nan=False)
        line = f'{body[:-1]},"crc32c":"{crc32c(body.encode())}"}}\n'
        with self._lock:
            self._file.write(line.encode())
            self._file.flush()

    def sync(self) -> None:
        with self._lock:
            sync_file(self._file)

    def close(self) -> None:
        if not self._file.closed:
            self.sync()
            self._file.close()


def sync_file(file: IO[bytes]) -> None:
    """Flush a file to the disk itself."""
    file.flush()
    (os.fdatasync if hasattr(os, "fdatasync") else os.fsync)(file.fileno())


def read_journal(path: Path) -> Iterator[Line]:
    """All lines in order. A line cut short at the very end is what a crash leaves and is dropped; any other damage is
    an error that names the line."""
    with open(path, "rb") as file:
        for number, raw in enumerate(file, start=1):
            line = _checked(raw)
            if line is not None:
                yield line
            elif file.read(1):
                raise RunError(f"{path}:{number}: line is damaged")


def _checked(raw: bytes) -> Line | None:
    """A line, if it is whole and its checksum fits."""
    head, mark, tail = raw.rpartition(b',"crc32c":"')
    if not mark or tail[8:] != b'"}\n' or crc32c(head + b"}").encode() != tail[:8]:
        return None
    line: Line = json.loads(raw)
    return line

"""JSON lines, each with its own CRC32C: what happened in a run, in order, readable after any crash."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import google_crc32c

from dmu_hw.errors import RunError

Line = dict[str, Any]
_MARK = b',"crc32c":"'
_TAIL_BYTES = len('01234567"}')
"""What stands between the mark and the end of a line."""


def crc32c(content: bytes) -> str:
    """Checksum of some bytes, as eight hexadecimal digits."""
    return f"{google_crc32c.value(content):08x}"


class Journal:
    """Appends lines; `sync` returns when they are on the disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[bytes] = open(path, "ab")
        self._lock = threading.Lock()
        self._syncing = threading.Lock()
        """While it is held the file stays open; lines may be added."""
        self._abandoned = False

    def add(self, kind: str, **fields: Any) -> None:
        """Write one line; it is durable after the next `sync`."""
        body = json.dumps({"kind": kind, **fields}, separators=(",", ":"), allow_nan=False)
        line = f'{body[:-1]},"crc32c":"{crc32c(body.encode())}"}}\n'
        with self._lock, self._named():
            self._file.write(line.encode())
            self._file.flush()

    def sync(self) -> None:
        """Of all lines that were added before. Nobody who adds others waits for it."""
        with self._syncing, self._named():
            with self._lock:
                self._file.flush()
            sync_handle(self._file.fileno())

    def abandon(self) -> None:
        """The disk hangs: `close` touches it no more."""
        self._abandoned = True

    def close(self) -> None:
        if self._file.closed or self._abandoned:
            return
        try:
            self.sync()
        finally:
            # what cannot be flushed here either, sync has told already
            with self._syncing, contextlib.suppress(OSError):
                self._file.close()

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """The lock is not taken in here: a Ctrl-C that came while this is entered would leave it taken for ever, and
        the writer with it."""
        try:
            yield
        except OSError as error:
            raise RunError(f"{self.path}: cannot be written: {error.strerror}") from error


def sync_file(file: IO[bytes]) -> None:
    """Flush a file to the disk itself."""
    file.flush()
    sync_handle(file.fileno())


def sync_handle(handle: int) -> None:
    """Put what the system has of a file on the disk."""
    (os.fdatasync if hasattr(os, "fdatasync") else os.fsync)(handle)


def read_journal(path: Path) -> Iterator[Line]:
    """All lines in order. A line cut short at the very end is what a crash leaves and is dropped; any other damage is
    an error that names the line. A run that was resumed says what stood before: those lines are still all there."""
    before = 0
    with open(path, "rb") as file:
        for number, raw in enumerate(file, start=1):
            line = _checked(raw)
            if line is not None:
                if line["kind"] == RESUMED and line["crc32c_before"] != f"{before:08x}":
                    raise RunError(f"{path}:{number}: the lines before it are not those that it was written after")
                yield line
            elif not _is_cut(raw):
                raise RunError(f"{path}:{number}: line is damaged")
            before = google_crc32c.extend(before, raw)


RESUMED = "resumed"
"""The kind of line that begins another life of a run."""


def mend_end(path: Path) -> str:
    """Take a line that was cut short off the end, so that others can follow; the checksum of all that stays."""
    whole = checksum = 0
    with open(path, "rb+") as file:
        for raw in file:
            if not raw.endswith(b"\n"):
                break
            whole += len(raw)
            checksum = google_crc32c.extend(checksum, raw)
        file.truncate(whole)
        sync_file(file)
    return f"{checksum:08x}"


def _checked(raw: bytes) -> Line | None:
    """A line, if it is whole and its checksum fits."""
    head, mark, tail = raw.rpartition(_MARK)
    if not mark or tail[8:] != b'"}\n' or crc32c(head + b"}").encode() != tail[:8]:
        return None
    line: Line = json.loads(raw)
    return line


def _is_cut(raw: bytes) -> bool:
    """Whether this can be the beginning of one line; a line break that was damaged joins two."""
    return not raw.endswith(b"\n") and len(raw.partition(_MARK)[2]) <= _TAIL_BYTES

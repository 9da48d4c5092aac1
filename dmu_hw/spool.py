"""Frames go at once into classic TIFF segments; the journal says where each one lies and what its checksum is."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path
from typing import IO

import numpy as np
import tifffile

from dmu_hw.data import Burst, Uint16Array
from dmu_hw.errors import RunError
from dmu_hw.journal import Journal, Line, crc32c, sync_file, sync_handle

_SEGMENT_BYTES = 1_500_000_000
_SEGMENT_FRAMES = 4000
_SYNC_S = 0.25
_RESERVE_BYTES = 1_000_000
"""Given back when the disk is full, so that the journal can seal what came before."""


class Spool:
    """Writes bursts; a burst is sealed when it is on the disk. One thread may close it while another writes."""

    def __init__(self, folder: Path, journal: Journal, *, resumed: bool = False, offset_ms: float = 0.0) -> None:
        """A spool that is resumed leaves its segments as they are and begins another. `offset_ms` is what the times of
        frames lack since the rig's clock began anew."""
        self.folder = folder
        self.journal = journal
        self._file: IO[bytes] | None = None
        self._writer: tifffile.TiffWriter | None = None
        self.offset_ms = offset_ms
        self._frames = 0
        self._unsealed: list[int] = []
        self._synced_s = time.monotonic()
        self._failed = False
        self._closed = False
        self._abandoned = False
        self._lock = threading.RLock()
        folder.mkdir(exist_ok=resumed)
        before = list(folder.glob("segment-*.tif"))
        self._segment = max((segment_number(path) for path in before), default=-1)
        self.written_bytes = sum(path.stat().st_size for path in before)
        """Pixels, the segments of a run before it was cut included."""
        self._reserve = folder / "reserve"
        self._reserve.write_bytes(os.urandom(_RESERVE_BYTES))

    def put(self, burst: Burst) -> None:
        """Write a burst and what is missing of it; sealed a quarter of a second later at most, or by `sync`."""
        with self._lock:
            if self._closed or self._failed:
                raise RunError(f"{self.folder}: takes no more; shot {burst.shot} comes too late")
            try:
                self._put(burst)
            except (OSError, RunError) as error:
                self._rescue()
                raise RunError(f"{self.folder}: a burst cannot be written: {error}") from error
            self.sync_when_due()

    def sync_when_due(self) -> None:
        """Seal what has waited long enough; to be called when nothing else is to be done."""
        with self._lock:
            if self._unsealed and time.monotonic() - self._synced_s >= _SYNC_S:
                self.sync()

    def sync(self) -> None:
        """Put everything on the disk and seal the bursts that are there whole."""
        with self._lock:
            if self._closed:
                return
            try:
                self._sync_segment()
                self._seal()
            except (OSError, RunError) as error:
                self._rescue()
                what = error.strerror if isinstance(error, OSError) else error
                raise RunError(f"{self.folder}: cannot be written: {what}") from error

    def abandon(self) -> None:
        """The disk hangs, and with it whoever writes: nothing more is put, sealed or waited for."""
        self._closed = self._abandoned = True
        self.journal.abandon()

    def close(self) -> None:
        """Seal all that is whole; after a failure only let go of the files."""
        if self._abandoned:
            return
        with self._lock:
            try:
                if not (self._failed or self._closed):
                    self.sync()
                    self._close_segment()
            finally:
                self._closed = True
                if self._file is not None:
                    # only after a failure that was told: what could not be written then cannot be flushed now either
                    with contextlib.suppress(OSError):
                        self._file.close()
                self._file = self._writer = None
                self._reserve.unlink(missing_ok=True)

    def _put(self, burst: Burst) -> None:
        for frame in burst.frames:
            offset = self._write(frame.pixels)
            self.journal.add(
                "frame",
                shot=burst.shot,
                pattern=frame.pattern,
                pattern_hash=frame.pattern_hash,
                number=frame.number,
                time_ms=frame.time_ms + self.offset_ms,
                segment=self._segment,
                offset=offset,
                shape=frame.pixels.shape,
                crc32c_pixels=crc32c(frame.pixels.tobytes()),
            )
        for missing in burst.missing:
            self.journal.add("missing", shot=burst.shot, pattern=missing.pattern, reason=missing.reason)
        if self._file is not None:
            self._file.flush()
        if not self._unsealed:
            self._synced_s = time.monotonic()
        self._unsealed.append(burst.shot)

    def _sync_segment(self) -> None:
        try:
            if self._file is not None:
                sync_file(self._file)
        except OSError:
            # the system forgets what it could not put on the disk: asked again it would say that all is well
            self._failed = True
            raise

    def _seal(self) -> None:
        """A line that the full disk did not take is kept by the journal: the next sync writes it, once."""
        shots, self._unsealed = self._unsealed, []
        if shots:
            self.journal.add("sealed", shots=shots)
        self.journal.sync()
        self._synced_s = time.monotonic()

    def _rescue(self) -> None:
        """The disk is full or gone: seal the bursts before this one, which the system has whole, if that still works.
        That writing failed is told by whoever calls this."""
        if self._failed:
            return
        self._failed = True
        with contextlib.suppress(OSError, RunError):
            self._reserve.unlink(missing_ok=True)
            if self._file is not None:
                sync_handle(self._file.fileno())
            self._seal()

    def _write(self, pixels: Uint16Array) -> int:
        """Append one directory with its image; returns where the pixels begin."""
        if self._file is None or self._file.tell() + pixels.nbytes > _SEGMENT_BYTES or self._frames >= _SEGMENT_FRAMES:
            self._next_segment()
        assert self._writer is not None  # noqa: S101 - set by _next_segment
        place = self._writer.write(
            pixels, contiguous=False, photometric="minisblack", metadata=None, returnoffset=True, software=False
        )
        if place is None or place[1] != pixels.nbytes:
            raise RunError(f"{self.folder}: a frame was not written whole")
        self._frames += 1
        self.written_bytes += pixels.nbytes
        return int(place[0])

    def _next_segment(self) -> None:
        self._close_segment()
        self._segment += 1
        self._frames = 0
        self._file = open(segment_path(self.folder, self._segment), "xb+")
        self._writer = tifffile.TiffWriter(self._file, bigtiff=False, byteorder="<")

    def _close_segment(self) -> None:
        if self._writer is not None and self._file is not None:
            self._writer.close()
            self._sync_segment()
            self._file.close()
        self._file = self._writer = None


def segment_path(folder: Path, segment: int) -> Path:
    return folder / f"segment-{segment:05d}.tif"


def segment_number(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])


class SpoolReader:
    """Reads frames by their journal lines, checking each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open: tuple[int, IO[bytes]] | None = None

    def frame(self, line: Line) -> Uint16Array:
        """Pixels of one frame, or an error that names it."""
        shape = tuple(line["shape"])
        file = self._segment(line["segment"])
        file.seek(line["offset"])
        raw = file.read(2 * shape[0] * shape[1])
        if crc32c(raw) != line["crc32c_pixels"]:
            raise RunError(f"{file.name}: frame of shot {line['shot']}, pattern {line['pattern']} is damaged")
        return np.frombuffer(raw, dtype="<u2").reshape(shape)

    def close(self) -> None:
        if self._open is not None:
            self._open[1].close()
            self._open = None

    def _segment(self, segment: int) -> IO[bytes]:
        if self._open is None or self._open[0] != segment:
            self.close()
            path = segment_path(self.folder, segment)
            if not path.is_file():
                raise RunError(f"{path}: segment is missing")
            self._open = (segment, open(path, "rb"))
        return self._open[1]

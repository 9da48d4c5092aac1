"""Frames go at once into classic TIFF segments; the journal says where each one lies and what its checksum is."""

from __future__ import annotations

import time
from pathlib import Path
from typing import IO

import numpy as np
import tifffile

from dmu_hw.data import Burst, Uint16Array
from dmu_hw.errors import RunError
from dmu_hw.journal import Journal, Line, crc32c, sync_file

_SEGMENT_BYTES = 1_500_000_000
_SEGMENT_FRAMES = 4000
_SYNC_S = 0.25


class Spool:
    """Writes bursts; a burst is sealed when it is on the disk."""

    def __init__(self, folder: Path, journal: Journal) -> None:
        self.folder = folder
        self.journal = journal
        self._file: IO[bytes] | None = None
        self._writer: tifffile.TiffWriter | None = None
        self._segment = -1
        self._frames = 0
        self._unsealed: list[int] = []
        self._synced_s = time.monotonic()
        folder.mkdir()

    def put(self, burst: Burst) -> None:
        """Write a burst and what is missing of it; sealed a quarter of a second later at most, or by `sync`."""
        for frame in burst.frames:
            offset = self._write(frame.pixels)
            self.journal.add(
                "frame",
                shot=burst.shot,
                pattern=frame.pattern,
                pattern_hash=frame.pattern_hash,
                number=frame.number,
                time_ms=frame.time_ms,
                segment=self._segment,
                offset=offset,
                shape=frame.pixels.shape,
                crc32c_pixels=crc32c(frame.pixels.tobytes()),
            )
        for missing in burst.missing:
            self.journal.add("missing", shot=burst.shot, pattern=missing.pattern, reason=missing.reason)
        self._unsealed.append(burst.shot)
        if time.monotonic() - self._synced_s >= _SYNC_S:
            self.sync()

    def sync(self) -> None:
        """Put everything on the disk and seal the bursts that are there whole."""
        if self._file is not None:
            sync_file(self._file)
        if self._unsealed:
            self.journal.add("sealed", shots=self._unsealed)
            self._unsealed = []
        self.journal.sync()
        self._synced_s = time.monotonic()

    def close(self) -> None:
        self.sync()
        self._close_segment()

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
            sync_file(self._file)
            self._file.close()
        self._file = self._writer = None


def segment_path(folder: Path, segment: int) -> Path:
    return folder / f"segment-{segment:05d}.tif"


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

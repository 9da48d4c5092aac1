"""Frames lie where the journal says, in plain TIFF files, and come back as they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from dmu_hw import spool as spool_module
from dmu_hw.data import Burst, Frame, Missing
from dmu_hw.errors import RunError
from dmu_hw.journal import Journal, read_journal
from dmu_hw.spool import Spool, SpoolReader, segment_path
from dmu_hw.writer import bursts

SHAPES = [(16, 24), (7, 5), (1, 1), (64, 32)]


def burst_of(shot: int, frames: int = 3, missing: int = 0) -> Burst:
    shape = SHAPES[shot % len(SHAPES)]
    rng = np.random.default_rng(shot)
    taken = tuple(
        Frame(rng.integers(0, 65536, shape, dtype=np.uint16), n, 1.5 * n, n, f"{n:016x}") for n in range(frames)
    )
    gone = tuple(Missing(frames + n, "the camera skipped it") for n in range(missing))
    return Burst(shot, taken, gone)


def spooled(folder: Path, count: int) -> tuple[Path, list[dict[str, Any]]]:
    """Writes bursts; the journal's frame lines."""
    journal = Journal(folder / "journal.jsonl")
    spool = Spool(folder / "spool", journal)
    for shot in range(count):
        spool.put(burst_of(shot, missing=shot % 2))
    spool.close()
    journal.close()
    lines = list(read_journal(folder / "journal.jsonl"))
    return folder / "spool", [line for line in lines if line["kind"] == "frame"]


def same(pixels: Any, line: dict[str, Any]) -> bool:
    return np.array_equal(pixels, burst_of(line["shot"]).frames[line["pattern"]].pixels)


def test_frames_of_all_shapes_come_back(tmp_path: Path) -> None:
    folder, lines = spooled(tmp_path, 9)
    reader = SpoolReader(folder)
    assert len(lines) == 27
    assert all(same(reader.frame(line), line) for line in lines)
    assert all(same(reader.frame(line), line) for line in reversed(lines))
    reader.close()


@pytest.mark.parametrize(
    ("limit", "value", "segments"), [("_SEGMENT_FRAMES", 5, 6), ("_SEGMENT_BYTES", 10_000, 5), ("_SYNC_S", 0.0, 1)]
)
def test_segments_are_plain_tiff_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: float, segments: int
) -> None:
    """One page a frame, in order, where the journal says, however the segments are cut."""
    monkeypatch.setattr(spool_module, limit, value)
    folder, lines = spooled(tmp_path, 9)
    files = sorted(path.name for path in folder.iterdir())
    assert files == [segment_path(folder, number).name for number in range(len(files))]
    assert len(files) == segments
    for number in range(len(files)):
        of_segment = [line for line in lines if line["segment"] == number]
        with tifffile.TiffFile(segment_path(folder, number)) as tiff:
            assert not tiff.is_bigtiff
            assert len(tiff.pages) == len(of_segment)
            for page, line in zip(tiff.pages, of_segment, strict=True):
                assert page.dataoffsets == (line["offset"],)
                assert same(page.asarray(), line)
    reader = SpoolReader(folder)
    assert all(same(reader.frame(line), line) for line in lines)
    reader.close()


def test_no_segment_is_larger_than_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "_SEGMENT_BYTES", 10_000)
    folder, _lines = spooled(tmp_path, 9)
    directory_bytes = 300
    assert all(path.stat().st_size < 10_000 + directory_bytes for path in folder.iterdir())


def test_a_burst_is_sealed_after_it_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    journal = Journal(tmp_path / "journal.jsonl")
    spool = Spool(tmp_path / "spool", journal)
    real_add, real_sync = journal.add, spool_module.sync_file

    def add(kind: str, **fields: Any) -> None:
        order.append(kind)
        real_add(kind, **fields)

    def sync(file: Any) -> None:
        order.append("sync")
        real_sync(file)

    monkeypatch.setattr(journal, "add", add)
    monkeypatch.setattr(spool_module, "sync_file", sync)
    spool.put(burst_of(0, frames=2, missing=1))
    assert order == ["frame", "frame", "missing"]
    spool.sync()
    assert order == ["frame", "frame", "missing", "sync", "sealed"]
    spool.close()
    journal.close()
    (lines,) = bursts(tmp_path / "journal.jsonl")
    assert [line["kind"] for line in lines] == ["frame", "frame", "missing"]


def test_a_burst_is_sealed_when_it_has_waited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a long pause too: nobody puts a burst, but somebody asks."""
    journal = Journal(tmp_path / "journal.jsonl")
    spool = Spool(tmp_path / "spool", journal)
    now_s = 100.0
    monkeypatch.setattr(spool_module.time, "monotonic", lambda: now_s)
    spool.put(burst_of(0))
    spool.sync_when_due()
    assert not list(bursts(tmp_path / "journal.jsonl"))
    now_s += 0.3
    spool.sync_when_due()
    assert len(list(bursts(tmp_path / "journal.jsonl"))) == 1
    size = journal.path.stat().st_size
    now_s += 0.3
    spool.sync_when_due()
    assert journal.path.stat().st_size == size
    spool.close()
    journal.close()


def test_damaged_and_missing_segments_are_named(tmp_path: Path) -> None:
    folder, lines = spooled(tmp_path, 4)
    path = segment_path(folder, 0)
    content = bytearray(path.read_bytes())
    content[lines[4]["offset"]] ^= 1
    path.write_bytes(content)
    reader = SpoolReader(folder)
    assert same(reader.frame(lines[3]), lines[3])
    with pytest.raises(RunError, match="shot 1, pattern 1 is damaged"):
        reader.frame(lines[4])
    reader.close()
    path.write_bytes(content[:-1000])
    with pytest.raises(RunError, match="shot 3, pattern 2 is damaged"):
        reader.frame(lines[-1])
    reader.close()
    path.unlink()
    with pytest.raises(RunError, match="segment is missing"):
        reader.frame(lines[0])


def test_a_spool_is_never_written_over(tmp_path: Path) -> None:
    spooled(tmp_path, 1)
    journal = Journal(tmp_path / "journal.jsonl")
    with pytest.raises(FileExistsError):
        Spool(tmp_path / "spool", journal)
    journal.close()

"""A disk that is full, or gone: an error at once, the light off, and every burst before it is there."""

from __future__ import annotations

import errno
import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes import bench_of, bench_rig, lines_of, picture, plan_of, run_plan, seen_exposure, seen_place

from dmu_hw import journal as journal_module
from dmu_hw import spool as spool_module
from dmu_hw.data import Burst, Frame
from dmu_hw.errors import RunError
from dmu_hw.journal import Journal
from dmu_hw.runfolder import RunFolder
from dmu_hw.spool import Spool, SpoolReader
from dmu_hw.verify import verify
from dmu_hw.writer import bursts

SHAPE = (12, 16)
RESERVE_BYTES = 3000


class SmallDisk:
    """Files in one folder may hold so many bytes together; what is more is refused as the system would."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder = folder
        self.size = size

    def open(self, path: Path, mode: str) -> Any:
        if mode == "rb":
            return open(path, mode)
        raw = _Raw(self, path, mode.replace("b", ""))
        return io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)

    @property
    def free(self) -> int:
        return self.size - sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())


class _Raw(io.FileIO):
    def __init__(self, disk: SmallDisk, path: Path, mode: str) -> None:
        super().__init__(path, mode)
        self.disk = disk

    def write(self, content: Any) -> int:
        inside = max(0, Path(str(self.name)).stat().st_size - self.tell())
        fits = min(len(content), inside + max(0, self.disk.free))
        if fits == 0 and len(content):
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(bytes(content[:fits]))


@pytest.fixture
def small_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, int], SmallDisk]:
    def make(folder: Path, size: int) -> SmallDisk:
        disk = SmallDisk(folder, size)
        for module in (spool_module, journal_module):
            monkeypatch.setattr(module, "open", disk.open, raising=False)
        monkeypatch.setattr(spool_module, "_RESERVE_BYTES", RESERVE_BYTES)
        return disk

    return make


def burst_of(shot: int) -> Burst:
    frames = [Frame(picture(n, 4 * shot + n, SHAPE), n, float(n), n, f"{n:016x}") for n in range(4)]
    return Burst(shot, tuple(frames))


def check_sealed(run: RunFolder) -> list[int]:
    """Shots that the journal seals; each is there with the pixels that it had."""
    reader = SpoolReader(run.spool)
    shots = []
    for lines in bursts(run.journal):
        for line in lines:
            assert (reader.frame(line) == picture(line["pattern"], 4 * line["shot"] + line["pattern"], SHAPE)).all()
        shots.append(lines[0]["shot"])
    reader.close()
    return shots


@pytest.mark.parametrize("size", range(5_000, 17_000, 191))
def test_wherever_the_disk_is_full_the_bursts_before_are_sealed(
    tmp_path: Path, small_disk: Callable[[Path, int], SmallDisk], size: int
) -> None:
    """The limit falls into pixels, directories and lines of the journal alike; nothing is synced before it."""
    small_disk(tmp_path, size)
    run = RunFolder(tmp_path)
    journal = Journal(run.journal)
    spool = Spool(run.spool, journal)
    for shot in range(100):
        try:
            spool.put(burst_of(shot))
        except RunError as error:
            told = str(error)
            break
    spool.close()
    journal.close()
    assert "No space left on device" in told
    assert check_sealed(run) == list(range(shot))
    assert verify(run).damage == []


def test_nothing_is_sealed_that_may_not_be_there(
    tmp_path: Path, small_disk: Callable[[Path, int], SmallDisk], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program takes the space that the reserve gave back: fewer bursts are sealed, none wrongly."""
    disk = small_disk(tmp_path, 12_000)
    run = RunFolder(tmp_path)
    journal = Journal(run.journal)
    spool = Spool(run.spool, journal)
    spool.put(burst_of(0))
    spool.sync()
    spool.put(burst_of(1))
    disk.size = 0
    with pytest.raises(RunError, match="No space left on device"):
        spool.put(burst_of(2))
    spool.close()
    with pytest.raises(RunError, match="No space left on device"):
        journal.close()
    assert check_sealed(run) == [0]


def test_what_a_disk_could_not_sync_is_never_sealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system tells once that it lost what it had taken; the next sync says that all is well."""
    run = RunFolder(tmp_path)
    journal = Journal(run.journal)
    spool = Spool(run.spool, journal)
    spool.put(burst_of(0))
    spool.sync()
    spool.put(burst_of(1))
    told = iter([True])

    def sync_once_broken(file: Any) -> None:
        if next(told, False):
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(spool_module, "sync_file", sync_once_broken)
    with pytest.raises(RunError, match="Input/output error"):
        spool.sync()
    with pytest.raises(RunError, match="takes no more"):
        spool.put(burst_of(2))
    spool.close()
    journal.close()
    assert check_sealed(run) == [0]


def test_what_is_whole_is_sealed_once_though_the_seal_itself_finds_no_room(
    tmp_path: Path, small_disk: Callable[[Path, int], SmallDisk]
) -> None:
    disk = small_disk(tmp_path, 1_000_000)
    run = RunFolder(tmp_path)
    journal = Journal(run.journal)
    spool = Spool(run.spool, journal)
    spool.put(burst_of(0))
    disk.size -= disk.free  # others take the rest
    with pytest.raises(RunError, match="No space left on device"):
        spool.sync()
    spool.close()
    journal.close()
    assert check_sealed(run) == [0]
    assert len(lines_of(run, "sealed")) == 1
    assert verify(run).damage == []


def test_nothing_is_sealed_on_a_disk_that_is_gone(
    tmp_path: Path, small_disk: Callable[[Path, int], SmallDisk], monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = small_disk(tmp_path, 1_000_000)
    run = RunFolder(tmp_path)
    journal = Journal(run.journal)
    spool = Spool(run.spool, journal)
    spool.put(burst_of(0))

    def gone(_handle: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(spool_module, "sync_handle", gone)
    disk.size = 0
    with pytest.raises(RunError, match="No space left on device"):
        spool.put(burst_of(1))
    disk.size = 1_000_000
    spool.close()
    journal.close()
    assert check_sealed(run) == []


@pytest.mark.parametrize("size", [20_000, 40_000, 61_000])
def test_a_full_disk_stops_the_run_in_the_dark(
    tmp_path: Path, small_disk: Callable[[Path, int], SmallDisk], size: int
) -> None:
    small_disk(tmp_path / "run", size)
    rig = bench_rig(tmp_path, side=32)
    plan = plan_of(rig, side=32, time={"loops": 10_000})
    bench = bench_of(rig)
    with pytest.raises(RunError, match="No space left on device"):
        run_plan(tmp_path / "run", rig, plan)
    assert not bench.lit
    assert bench.mirrors_at(bench.clock.now_ms()) is None
    run = RunFolder(tmp_path / "run")
    findings = verify(run)
    assert findings.cut
    assert findings.damage == []
    assert findings.frames >= 4 * 5
    reader = SpoolReader(run.spool)
    for line in lines_of(run, "frame")[: findings.frames]:
        pixels = reader.frame(line)
        assert seen_place(pixels) == line["pattern"]
        assert seen_exposure(pixels) == 4 * line["shot"] + line["pattern"]
    reader.close()


LIMITED = """
import resource, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from fakes import bench_of, bench_rig, plan_of, run_plan
from dmu_hw.errors import RunError
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
import dmu_hw.spool
dmu_hw.spool._RESERVE_BYTES = 1000
folder = Path(sys.argv[2])
rig = bench_rig(folder)
try:
    run_plan(folder / "run", rig, plan_of(rig, time={"loops": 10_000}))
except RunError as error:
    print(error)
    print(bench_of(rig).lit)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on the size of files")
def test_the_systems_own_refusal_is_told_too(tmp_path: Path) -> None:
    """A file may grow to so many bytes: the last write comes back short, as on a real full disk."""
    fakes = str(Path(__file__).parents[1] / "acquisition")
    command = [sys.executable, "-c", LIMITED, fakes, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    message, lit = done.stdout.splitlines()
    assert "File too large" in message
    assert lit == "False"
    findings = verify(RunFolder(tmp_path / "run"))
    assert findings.damage == []
    assert findings.frames == 4 * (200_000 // (4 * (2 * 32 * 32 + 176)))

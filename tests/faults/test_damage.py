"""One byte changed anywhere in a run folder is found, and where it hits frames they are named."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fakes import bench_of, bench_rig, lines_of, plan_of, run_plan
from program import COMMAND

from dmu_hw.loops import Loops
from dmu_hw.omezarr import chunk_place
from dmu_hw.plan import Plan
from dmu_hw.rig import Rig
from dmu_hw.runfolder import RunFolder
from dmu_hw.spool import segment_path
from dmu_hw.verify import _Layout, verify
from dmu_hw.writer import write_stores

REPO = Path(__file__).parents[2]
PROTOCOL = f"""
kind: run
name: small
rig: {REPO}/devices/simulated.yaml
field_px: [64, 64]
patterns: {{set: hadamard, count: 4, camera_pixel: 4}}
inverse: {{model: ridge, specimen: {{kind: nuclei, seed: 1000}}}}
light: {{power_mw: 0.5}}
exposure_ms: 3.0
grid: {{rows: 1, columns: 2}}
references: {{plain: true, full: true}}
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run with all that the command line makes; whoever changes it mends it."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "small.yaml").write_text(PROTOCOL)
    command = [*COMMAND, "run", str(folder / "small.yaml"), "--out", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    (path,) = (path for path in folder.iterdir() if path.is_dir())
    return RunFolder(path)


@contextmanager
def changed(path: Path, place: int) -> Iterator[None]:
    """One byte of a file is another for a while."""
    content = path.read_bytes()
    path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    try:
        yield
    finally:
        path.write_bytes(content)


def places_in(path: Path) -> list[int]:
    size = path.stat().st_size
    return sorted({0, size // 3, size // 2, size - 1} if size else set())


def test_a_whole_run_is_sound(whole: RunFolder) -> None:
    findings = verify(whole)
    assert (findings.damage, findings.cut, findings.missing) == ([], False, 0)
    assert findings.frames == 2 * (4 + 1 + 1)
    assert findings.files == len(list(whole.files()))
    names = {path.name for path in whole.path.iterdir()}
    assert names >= {"manifest.json", "journal.jsonl", "frames.ome.zarr", "report.html", "bundle.dmu", "truth.ome.zarr"}


def test_one_changed_byte_in_any_file_is_found(whole: RunFolder) -> None:
    for path in [*whole.files(), whole.manifest]:
        name = path.relative_to(whole.path).as_posix()
        for place in places_in(path):
            with changed(path, place):
                (damage,) = verify(whole).damage
            assert name in damage
            assert "was changed" in damage
    assert verify(whole).damage == []


@pytest.mark.parametrize("what", ["changed", "missing"])
def test_damaged_frames_are_named(whole: RunFolder, what: str, tmp_path: Path) -> None:
    """Field, time, plane and pattern, for the patterns and for both references."""
    seen = 0
    for store, patterns in [("frames", "0, 1, 2, 3"), ("plain", "0"), ("full", "0")]:
        folder = whole.path / f"{store}.ome.zarr"
        for path in folder.rglob("*"):
            place = chunk_place(path.relative_to(folder).as_posix())
            if place is None or not path.is_file():
                continue
            field, time, plane = place
            wanted = f"field {field}, time {time}, plane {plane}, frames of patterns {patterns}"
            if what == "missing":
                shutil.move(path, tmp_path / "aside")
                (damage,) = verify(whole).damage
                shutil.move(tmp_path / "aside", path)
            else:
                with changed(path, path.stat().st_size // 2):
                    (damage,) = verify(whole).damage
            assert damage.endswith(wanted)
            seen += 1
    assert seen == 6


def test_missing_and_foreign_files_are_named(whole: RunFolder, tmp_path: Path) -> None:
    for path in list(whole.files()):
        name = path.relative_to(whole.path).as_posix()
        shutil.move(path, tmp_path / "aside")
        damage = verify(whole).damage
        shutil.move(tmp_path / "aside", path)
        assert any(found.startswith(f"{name}: is missing") for found in damage)
    for name in ("notes.txt", "frames.ome.zarr/0/0/c/9/0/0/0/0", "spool/segment-00000.tif"):
        foreign = whole.path / name
        made = [folder for folder in foreign.parents if not folder.exists()]
        foreign.parent.mkdir(parents=True, exist_ok=True)
        foreign.write_bytes(b"x")
        (found,) = verify(whole).damage
        assert found.startswith(f"{name}: does not belong to the run")
        foreign.unlink()
        for folder in made:
            folder.rmdir()
    assert verify(whole).damage == []


def test_much_damage_at_once(whole: RunFolder, tmp_path: Path) -> None:
    """Also of what tells whose the damage is."""
    run = RunFolder(tmp_path / "copy")
    shutil.copytree(whole.path, run.path)
    paths = list(run.files())
    for path in paths:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    assert len(verify(run).damage) == len(paths)


def test_places_of_shots(small_rig: Callable[..., Rig]) -> None:
    """As the plan numbers them, whatever a run is made of."""
    plan = plan_of(
        small_rig(),
        side=64,
        grid={"rows": 1, "columns": 3},
        focus_um=0.0,
        z={"range_um": 3.0, "step_um": 1.0},
        time={"loops": 5},
        order="field, time, z",
        references={"plain": True, "full": True, "bleaching": 3},
    )
    layouts = {role: _Layout(None, role, Loops.of(plan.shots.loops.as_json())) for role in plan.takes}  # type: ignore[arg-type]
    for shot in plan.shots:
        place = (shot.position, shot.time, shot.z)
        assert layouts[shot.role].place(shot.index) == place
        assert layouts[shot.role].shot(place) == shot.index
        assert [role for role, layout in layouts.items() if layout.holds(shot.index)] == [shot.role]


# ---------------------------------------------------------------- runs that were cut


@pytest.fixture
def cut(tmp_path: Path) -> Callable[..., tuple[RunFolder, Plan]]:
    """A run that ended after its last burst, before anything was stored; one frame is missing."""

    def make(**changes: Any) -> tuple[RunFolder, Plan]:
        rig = bench_rig(tmp_path, side=32)
        keys = {"time": {"loops": 3}, "references": {"plain": True}, "retries": 0, **changes}
        plan = plan_of(rig, side=32, **keys)
        bench_of(rig).faults.dropped = {6}
        run, _ = run_plan(tmp_path / "run", rig, plan)
        return run, plan

    return make


def test_a_cut_run_is_checked_in_its_spool(cut: Callable[..., tuple[RunFolder, Plan]]) -> None:
    run, _ = cut()
    findings = verify(run)
    assert (findings.cut, findings.frames, findings.missing, findings.damage) == (True, 14, 1, [])
    for line in lines_of(run, "frame"):
        with changed(segment_path(run.spool, 0), line["offset"] + 5):
            (damage,) = verify(run).damage
        assert f"frame of shot {line['shot']}, pattern {line['pattern']} is damaged" in damage


def test_a_run_that_was_cut_after_storing_is_checked_in_its_stores(cut: Callable[..., tuple[RunFolder, Plan]]) -> None:
    run, plan = cut()
    write_stores(run, plan)
    assert verify(run).damage == []
    assert verify(run).frames == 14
    chunk = run.frames / "0/0/c/2/0/0/0/0"
    with changed(chunk, chunk.stat().st_size // 2):
        (damage,) = verify(run).damage
    assert damage == f"{run.frames}: field 0, time 2, plane 0, frames of patterns 0, 1, 2, 3"
    shutil.rmtree(run.frames_of("plain"))
    damages = verify(run).damage
    assert damages == [f"shot {shot}: there is neither a spool nor a store that holds it" for shot in (1, 3, 5)]


def test_a_kept_spool_is_checked_too(cut: Callable[..., tuple[RunFolder, Plan]]) -> None:
    run, plan = cut(keep_spool=True)
    write_stores(run, plan)
    run.write_manifest({"counts": {"saved": 14, "missing": 1}})
    findings = verify(run)
    assert (findings.damage, findings.frames, findings.missing) == ([], 14, 1)
    with changed(segment_path(run.spool, 0), 100):
        assert verify(run).damage == ["spool/segment-00000.tif: was changed"]


def test_only_what_is_sealed_counts(cut: Callable[..., tuple[RunFolder, Plan]]) -> None:
    """A crash may leave lines of a burst whose pixels never came to the disk: that is no damage."""
    run, _ = cut()
    lines = run.journal.read_bytes().splitlines(keepends=True)
    last_seal = max(number for number, line in enumerate(lines) if b'"sealed"' in line)
    run.journal.write_bytes(b"".join(lines[:last_seal]))
    unsealed = verify(run)
    assert unsealed.damage == []
    assert unsealed.frames < 14


def test_a_damaged_journal_of_a_cut_run(cut: Callable[..., tuple[RunFolder, Plan]]) -> None:
    run, _ = cut()
    with changed(run.journal, run.journal.stat().st_size // 2):
        (damage,) = verify(run).damage
    assert "line is damaged" in damage
    run.journal.unlink()
    (damage,) = verify(run).damage
    assert "neither a manifest nor a journal" in damage

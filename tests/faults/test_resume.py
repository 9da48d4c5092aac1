"""A run that is cut at any moment goes on by `dmu run --resume` and ends as if it had never been cut.

What a killed program leaves is what its files hold at that moment: copies of the run folder, made at every step of a
run, are resumed one by one.
"""

from __future__ import annotations

import json
import os
import random
import shlex
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import bench_of, bench_protocol, lines_of
from program import ended as dmu
from zarr.core.array import Array

from dmu_hw import spool as spool_module
from dmu_hw.cli import acquire, finish, imaging
from dmu_hw.cli.session import Session
from dmu_hw.errors import RunError
from dmu_hw.files import write_whole
from dmu_hw.journal import Journal, read_journal
from dmu_hw.lock import held
from dmu_hw.omezarr import Store
from dmu_hw.plan import Plan
from dmu_hw.runfolder import RunFolder
from dmu_hw.verify import verify

ALIKE = ("add started", "add missing", "add taken", "replace")
RUN: dict[str, Any] = {
    "time": {"loops": 3},
    "references": {"plain": True},
    "retries": 0,
    "budget": {"dose_mj_cm2": 1e9},
}


def pixels(run: RunFolder) -> dict[str, Any]:
    """Every array of frames, by store and field."""
    found = {}
    for role in ("patterns", "plain"):
        store = Store(run.frames_of(role))
        for place in range(len(store)):
            found[f"{role} {place}"] = np.asarray(store.array(place)[:])
    return found


@dataclass
class Moments:
    """Copies of a run folder at every step of a run."""

    folder: Path
    copies: list[tuple[str, RunFolder]] = field(default_factory=list)
    run: Path | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def snap(self, what: str) -> None:
        if self.run is None or not self.run.exists():
            return
        with self.lock:  # engine and writer come here both
            run, copy = RunFolder(self.run), RunFolder(self.folder / f"{len(self.copies):04d}")
            copy.path.mkdir()
            # the journal first: what it tells of is there when the rest is copied, as on a disk
            for path in sorted(run.path.iterdir(), key=lambda path: path != run.journal):
                if path.is_dir():
                    shutil.copytree(path, copy.path / path.name)
                else:
                    shutil.copyfile(path, copy.path / path.name)
            self.copies.append((what, copy))


@contextmanager
def watched(moments: Moments, out: Path, patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Copies before every line of the journal, sync, file, store, renaming and removal."""

    def before(holder: Any, name: str) -> None:
        real = getattr(holder, name)

        def call(*arguments: Any, **more: Any) -> Any:
            moments.run = next(iter(sorted(out.iterdir())), None) if out.exists() else None
            kind = arguments[1] if name == "add" else ""
            moments.snap(f"{name} {kind}".strip())
            return real(*arguments, **more)

        steps.setattr(holder, name, call)

    real_remove = shutil.rmtree

    def remove(path: Path, **_more: Any) -> None:
        """Half of it first."""
        for inner in sorted(Path(path).iterdir())[:1]:
            if inner.is_file():
                inner.unlink()
        moments.snap("rmtree")
        real_remove(path)

    with patch.context() as steps:
        before(Journal, "add")
        before(Journal, "sync")
        before(Array, "__setitem__")
        before(Path, "replace")
        steps.setattr(shutil, "rmtree", remove)
        yield


@dataclass
class Uncut:
    run: RunFolder
    pixels: dict[str, Any]
    facts: dict[str, Any]
    moments: list[tuple[str, RunFolder]]


@pytest.fixture(scope="module")
def uncut(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Uncut]:
    """A run that nobody cuts; one frame of it is missing."""
    folder = tmp_path_factory.mktemp("uncut")
    (folder / "copies").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spool_module, "_RESERVE_BYTES", 100)
        patch.setattr(spool_module, "_SYNC_S", 0.0)
        spoil(patch)
        moments = Moments(folder / "copies")
        with watched(moments, folder / "runs", patch):
            assert dmu("run", bench_protocol(folder, **RUN), "--out", folder / "runs") == 3
        (path,) = (folder / "runs").iterdir()
        run = RunFolder(path)
        yield Uncut(run, pixels(run), run.read_manifest(), moments.copies)


def spoil(patch: pytest.MonkeyPatch) -> None:
    """Every bench drops the same frame, also in another life of the run."""
    real = imaging.image

    def image(run: RunFolder, session: Any, *arguments: Any, **more: Any) -> Any:
        bench_of(session.rig).faults.dropped = {7}
        return real(run, session, *arguments, **more)

    for module in ("acquire", "resume"):
        patch.setattr(f"dmu_hw.cli.{module}.image", image)
    # its pictures need torch, and seconds
    patch.setattr(finish, "_report", lambda run, *_facts: write_whole(run.report, b"<html></html>"))


def check_as_uncut(run: RunFolder, uncut: Uncut) -> None:
    """The same frames, gaps and counts; light that was lost is booked on top."""
    for name, wanted in uncut.pixels.items():
        assert np.array_equal(pixels(run)[name], wanted), name
    facts = run.read_manifest()
    findings = verify(run)
    assert (findings.damage, findings.cut, findings.missing) == ([], False, 1)
    for name in ("expected", "saved", "missing"):
        assert facts["counts"][name] == uncut.facts["counts"][name]
    assert facts["missing_reasons"] == uncut.facts["missing_reasons"]
    lights, unlit, unsaved = (lines_of(run, kind) for kind in ("light", "unlit", "unsaved"))
    assert facts["counts"]["unsaved_bursts"] == sum(line["bursts"] for line in unsaved)
    assert len(lights) - len(unlit) == len(lines_of(uncut.run, "light")) + facts["counts"]["unsaved_bursts"]
    dose = sum(line["dose_mj_cm2"] for line in lights) - sum(line["dose_mj_cm2"] for line in unlit)
    assert facts["actual"]["dose_mj_cm2"]["0"] == pytest.approx(dose)
    lost = sum(line["dose_mj_cm2"] for line in unsaved)
    assert dose - lost == pytest.approx(uncut.facts["actual"]["dose_mj_cm2"]["0"])
    assert [line["kind"] for line in read_journal(run.journal)].count("end") == 1


def resumable(moments: list[tuple[str, RunFolder]]) -> list[tuple[str, RunFolder]]:
    return [(what, run) for what, run in moments if run.journal.exists() and not run.manifest.exists()]


@pytest.fixture
def again(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """What every life of the run is made in."""
    monkeypatch.setattr(spool_module, "_RESERVE_BYTES", 100)
    monkeypatch.setattr(spool_module, "_SYNC_S", 0.0)
    spoil(monkeypatch)
    return monkeypatch


def check_moments(uncut: Uncut, moments: list[tuple[str, RunFolder]]) -> None:
    for what, run in moments:
        found = verify(run)
        assert (found.cut, found.damage) == (True, []), what
        assert dmu("run", "--resume", run.path) == 3, what
        check_as_uncut(run, uncut)


@pytest.mark.usefixtures("again")
def test_at_some_moments(uncut: Uncut) -> None:
    """One of each kind, but for those that are like others."""
    kinds: dict[str, list[RunFolder]] = {}
    for what, run in resumable(uncut.moments):
        kinds.setdefault(what, []).append(run)
    assert set(kinds) >= {"add run", "add light", "add taken", "add frame", "add sealed", "add end", "sync", "replace"}
    check_moments(uncut, [(what, runs[len(runs) // 2]) for what, runs in kinds.items() if what not in ALIKE])


@pytest.mark.campaign
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("again")
def test_at_every_moment(uncut: Uncut, figure: Callable[..., None]) -> None:
    moments = resumable(uncut.moments)
    check_moments(uncut, moments)
    figure(
        "R12", "a run cut at every step and resumed", f"{len(moments)} steps, all equal to the uncut run", "all equal"
    )


def moment(uncut: Uncut, what: str, number: int, tmp_path: Path) -> RunFolder:
    """A copy, to be changed, of the run as it was then."""
    run = [run for kind, run in resumable(uncut.moments) if kind == what][number]
    return RunFolder(shutil.copytree(run.path, tmp_path / f"{what}-{number}".replace(" ", "-")))


def test_cut_again_and_again(uncut: Uncut, tmp_path: Path, again: pytest.MonkeyPatch) -> None:
    """A life that is cut is resumed as the first one is; every burst that was lost stays booked."""
    chance = random.Random(5)
    run = moment(uncut, "add frame", 3, tmp_path)
    for life in range(2):
        (tmp_path / f"copies{life}").mkdir()
        (tmp_path / f"life{life}").mkdir()
        run = RunFolder(run.path.rename(tmp_path / f"life{life}" / "run"))
        moments = Moments(tmp_path / f"copies{life}")
        with watched(moments, run.path.parent, again):
            assert dmu("run", "--resume", run.path) == 3
        check_as_uncut(run, uncut)
        run = chance.choice([copy for what, copy in resumable(moments.copies) if what in ("add taken", "add frame")])
    assert len(lines_of(run, "resumed")) == 2
    assert lines_of(run, "unsaved")


@pytest.mark.parametrize("kept", [0, 1, 60, 110])
@pytest.mark.usefixtures("again")
def test_a_line_that_was_cut_short_is_dropped(uncut: Uncut, tmp_path: Path, kept: int) -> None:
    run = moment(uncut, "add sealed", 2, tmp_path)
    content = run.journal.read_bytes()
    start = content.rindex(b"\n", 0, -1) + 1
    run.journal.write_bytes(content[: start + kept])
    assert dmu("run", "--resume", run.path) == 3
    check_as_uncut(run, uncut)


@pytest.mark.usefixtures("again")
def test_lines_that_were_taken_away_are_missed(uncut: Uncut, tmp_path: Path) -> None:
    """Every line has its checksum; that none is gone, and none in another's place, the line of a resumption vouches
    for."""
    run = moment(uncut, "add taken", 2, tmp_path)
    assert dmu("run", "--resume", run.path) == 3
    lines = run.journal.read_bytes().splitlines(keepends=True)
    resumed = next(number for number, line in enumerate(lines) if b'"kind":"resumed"' in line)
    for changed in (lines[1:], [lines[0], lines[2], lines[1], *lines[3:]], [*lines[: resumed - 1], *lines[resumed:]]):
        run.journal.write_bytes(b"".join(changed))
        with pytest.raises(RunError, match="the lines before it are not those"):
            list(read_journal(run.journal))


def test_half_made_stores_are_made_again(uncut: Uncut, tmp_path: Path, again: pytest.MonkeyPatch) -> None:
    run = moment(uncut, "__setitem__", 3, tmp_path)
    parts = sorted(path.name for path in run.path.glob("*.part"))
    assert parts == ["frames.ome.zarr.part", "plain.ome.zarr.part"]
    (run.path / ".report.html.0123456789abcdef0123456789abcdef").write_text("half")
    lit: list[Any] = []
    again.setattr("dmu_hw.guard.Guard.light_on", lambda *given: lit.append(given))
    assert dmu("run", "--resume", run.path) == 3
    check_as_uncut(run, uncut)
    assert lit == []
    assert sorted(path.name for path in run.path.iterdir()) == sorted(path.name for path in uncut.run.path.iterdir())


def camera_dies(bench: Any) -> None:
    bench.faults.dead_at = 12


def interlock_opens(bench: Any) -> None:
    bench.hooks["arm"] = lambda: setattr(bench.faults, "interlock_open", bench.exposures > 5)


def somebody_stops(bench: Any) -> None:
    def pop() -> None:
        if bench.exposures >= 8:
            signal.raise_signal(signal.SIGINT)

    bench.hooks["pop"] = pop


@pytest.mark.parametrize(
    ("cause", "says"),
    [
        (camera_dies, "camera: does not answer any more"),
        (interlock_opens, "light: interlock is open"),
        (somebody_stops, "stopped by Ctrl-C; the light is off"),
    ],
)
def test_what_ends_a_run_before_its_time_says_how_to_go_on(
    uncut: Uncut,
    again: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    cause: Callable[[Any], None],
    says: str,
) -> None:
    """The command that it says is taken at its word."""
    real = acquire.image
    benches: list[Any] = []

    def image(run: RunFolder, session: Session, *arguments: Any, **more: Any) -> Any:
        benches.append(bench_of(session.rig))
        cause(benches[0])
        return real(run, session, *arguments, **more)

    again.setattr("dmu_hw.cli.acquire.image", image)
    protocol = uncut.run.path.parent.parent / "run.yaml"
    assert dmu("run", protocol, "--out", tmp_path / "some runs", "--json") == 1
    said = capsys.readouterr()
    assert says in json.loads(said.out)["problems"][0]
    assert not benches[0].lit
    run = RunFolder(Path(json.loads(said.out)["run"]))
    found = verify(run)
    assert (found.cut, found.damage) == (True, [])
    command = shlex.split(said.err.splitlines()[-1].partition("go on with it by: ")[2])
    assert command == ["dmu", "run", "--resume", str(run.path)]
    assert dmu(*command[1:]) == 3
    check_as_uncut(run, uncut)


# ---------------------------------------------------------------- what is refused


@pytest.fixture
def cut(uncut: Uncut, tmp_path: Path) -> RunFolder:
    return moment(uncut, "add taken", 2, tmp_path)


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    assert dmu("run", *arguments, "--json") == 2
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    return str(problem)


def test_a_finished_run_is_refused(uncut: Uncut, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is complete" in refused(capsys, "--resume", uncut.run.path)


def test_what_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is no run folder" in refused(capsys, "--resume", tmp_path)
    assert "is no run folder" in refused(capsys, "--resume", tmp_path / "nowhere")
    (tmp_path / "settings.json").write_text("{}")
    assert "begin it anew" in refused(capsys, "--resume", tmp_path)


@pytest.mark.parametrize(
    ("name", "says"),
    [("protocol.yaml", "the copy of the protocol was changed"), ("rig.yaml", "the copy of the rig was changed")],
)
def test_changed_copies_are_refused(cut: RunFolder, capsys: pytest.CaptureFixture[str], name: str, says: str) -> None:
    with open(cut.path / name, "a") as file:
        file.write("# \n")
    assert refused(capsys, "--resume", cut.path) == f"{cut.path / name}: {says}"


def test_changed_settings_are_refused(cut: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    settings = json.loads(cut.settings.read_bytes())
    cut.settings.write_text(json.dumps(settings | {"rig_hash": "0"}))
    assert refused(capsys, "--resume", cut.path) == f"{cut.settings}: was changed since the run began"


def test_another_protocol_or_rig_is_refused_by_name(
    uncut: Uncut, cut: RunFolder, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    other = bench_protocol(tmp_path, **RUN, exposure_ms=4.0)
    assert f"{other}: is not the protocol of {cut.path}: that is " in refused(capsys, other, "--resume", cut.path)
    rig = tmp_path / "bench.yaml"
    rig.write_text(rig.read_text() + "# another\n")
    assert f"{rig}: is not the rig of {cut.path}: that is " in refused(capsys, "--resume", cut.path, "--rig", rig)


@pytest.mark.usefixtures("again")
def test_a_rig_that_was_changed_since_must_be_vouched_for(
    uncut: Uncut, cut: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    rig = uncut.run.path.parent.parent / "bench.yaml"
    before = rig.read_text()
    rig.write_text(before + "# a new objective\n")
    try:
        problem = refused(capsys, "--resume", cut.path)
        assert problem.startswith(f"{rig}: was changed since the run began")
        assert problem.endswith(f"--rig {cut.rig}")
        assert dmu("run", cut.protocol, "--resume", cut.path, "--rig", cut.rig) == 3
    finally:
        rig.write_text(before)
    check_as_uncut(cut, uncut)


def test_a_plan_that_another_version_makes_otherwise_is_refused(
    cut: RunFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Plan.as_json
    monkeypatch.setattr(Plan, "as_json", lambda plan: real(plan) | {"shots": 7})
    assert "plans shots otherwise" in refused(capsys, "--resume", cut.path)


def test_a_damaged_journal_is_no_ground_to_go_on_from(cut: RunFolder) -> None:
    content = bytearray(cut.journal.read_bytes())
    content[len(content) // 2] ^= 1
    cut.journal.write_bytes(content)
    assert dmu("run", "--resume", cut.path) == 1
    assert cut.journal.read_bytes() == content


def test_a_run_that_somebody_makes_is_refused(cut: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    with held(cut.lock, "run"):
        assert f"run {cut.path}: is in use by process {os.getpid()} since " in refused(capsys, "--resume", cut.path)
    assert lines_of(cut, "resumed") == []


def test_out_has_no_meaning_for_a_resumed_run(cut: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--out: a run that is resumed stays where it is" in refused(capsys, "--resume", cut.path, "--out", "x")
    assert "PROTOCOL is missing" in refused(capsys)

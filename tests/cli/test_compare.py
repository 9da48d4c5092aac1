"""`dmu compare`: an answer for every question; killed in the middle it goes on; what failed is said."""

from __future__ import annotations

import copy
import importlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from dmu_hw.cli.compare import read_contest
from dmu_hw.pool import Failure, Job, Record, find
from dmu_hw.pool.jobs import keep, perform

Dmu = Callable[..., Any]
Contests = Callable[..., Path]

BASE: dict[str, Any] = {
    "kind": "train",
    "name": "base",
    "rig": "rig.yaml",
    "data": {"kind": "scenes", "specimen": {"kind": "nuclei", "seed": 9}, "train": 6, "held_back": 2, "side_px": 64},
    "patterns": {"count": 4, "camera_pixel": 4, "start": "hadamard"},
    "power_mw": 1.0,
    "dose_ms": 8.0,
    "network": {"model": "lattice", "channels": 8, "blocks": 1},
    "schedule": {"updates": 4, "batch": 2, "crop_px": 32, "validate_every": 2, "warmup": 2},
}
TINY: dict[str, Any] = {
    "kind": "compare",
    "name": "tiny",
    "base": "base.yaml",
    "same_camera": [{"count": 4, "camera_pixel": 4}],
    "arms": ["learned", "uniform"],
    "seeds": 2,
    "engine": {"kind": "local", "workers": 1},
}


@pytest.fixture
def contest_yaml(tmp_path: Path, rig_yaml: Callable[..., Path]) -> Contests:
    """Writes the tiny comparison with some keys changed, its base and its rig beside it; `...` takes a key away."""

    def write(changes: Mapping[str, Any] | None = None, base: Mapping[str, Any] | None = None) -> Path:
        rig_yaml(None)
        (tmp_path / "base.yaml").write_text(yaml.safe_dump(copy.deepcopy(BASE) | dict(base or {})))
        whole = copy.deepcopy(TINY) | dict(changes or {})
        path = tmp_path / "tiny.yaml"
        path.write_text(yaml.safe_dump({key: value for key, value in whole.items() if value is not ...}))
        return path

    return write


def fake(path: Path, folder: Path, failing: str = "") -> list[Record]:
    """Records as if all trainings had come to their end, those of one arm to a bad one."""
    folder.mkdir(parents=True)
    records = []
    for job in read_contest(path).jobs:
        error = 0.002 if job.config["name"].startswith("learned") else 0.003
        scores = {f"{split}_{name}": error for split in ("val", "test") for name in ("mse", "ridge_mse")}
        about = {"updates": 4, "best_update": 4, "lit": 2.0, "frame_ms": 4.0, "parameters": 9}
        result: dict[str, Any] | None = scores | about | {"seconds_to_begin": 1.0, "seconds_to_learn": 2.0}
        lost = None
        if failing and job.config["name"].startswith(failing):
            result, lost = None, Failure(type="RunError", message="training ran away", traceback="")
        records.append(Record.now(job, result, lost, 3.0))
        keep(records[-1], folder)
    return records


@pytest.fixture
def working_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings run in this process: workers take seconds to load torch."""

    def work(jobs: Sequence[Job], folder: Path) -> Iterator[tuple[Job, Record]]:
        return ((job, perform(job, folder)) for job in jobs)

    monkeypatch.setattr(importlib.import_module("dmu_hw.pool.run"), "_work", lambda _engine: work)


def workers_of(folder: Path) -> list[str]:
    """Command lines of processes that work in a folder."""
    lines = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if "dmu_hw.pool.worker" in line and str(folder) in line:
            lines.append(line)
    return lines


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
@pytest.mark.usefixtures("working_here")
def test_stopped_in_the_middle_it_goes_on(dmu: Dmu, contest_yaml: Contests, tmp_path: Path) -> None:
    path, out = contest_yaml({"seeds": 2}), tmp_path / "out"
    folder = out / "tiny" / "trials"
    command = [sys.executable, "-m", "dmu_hw.cli.main", "compare", str(path), "--out", str(out), "--json"]
    with subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 200
        while not list(folder.glob("*.json")):
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        said, told = process.communicate(timeout=60)
    assert process.returncode == 1
    assert json.loads(said)["status"] == 1
    assert "the same command goes on from there" in told
    assert workers_of(folder) == []
    done = {file.name: file.stat().st_mtime_ns for file in folder.glob("*.json")}
    assert 1 <= len(done) < 4
    whole = dmu("compare", path, "--out", out, "--json")
    assert whole.status == 0
    assert {name: (folder / name).stat().st_mtime_ns for name in done} == done
    assert f"{len(done)} of 4 were there already" in whole.err
    facts = json.loads((out / "tiny" / "compare.json").read_text())
    arms = facts["questions"][0]["arms"]
    assert {(arm["arm"], arm["T"], len(arm["values"])) for arm in arms} == {("learned", 4, 2), ("uniform", 1, 2)}
    assert all(0 < value < 1 and arm["budget"]["updates"] == 4 for arm in arms for value in arm["values"])
    assert all(arm["dose_ms"] == pytest.approx(8.0) for arm in arms)
    report = Path(whole.told["report"]).read_text()
    assert whole.told["verdicts"][0]["verdict"] in whole.err
    assert report.count("data:image/png") >= 1 + 2 * 2 + 5
    priced = dmu("compare", path, "--out", out, "--dry-run", "--json").told
    assert (priced["kept"], priced["left"], priced["seconds_left"]) == (4, 0, 0)


@pytest.mark.usefixtures("working_here")
def test_a_dry_run_trains_nothing_to_its_end(dmu: Dmu, contest_yaml: Contests, tmp_path: Path) -> None:
    """With nothing there, a few updates tell how long it takes."""
    path = contest_yaml(base={"schedule": BASE["schedule"] | {"updates": 100_000}})
    priced = dmu("compare", path, "--out", tmp_path / "out", "--dry-run", "--json")
    assert priced.status == 0
    assert (priced.told["trainings"], priced.told["kept"], priced.told["left"]) == (4, 0, 4)
    assert 60 < priced.told["seconds_left"] < 1e6
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("working_here")
def test_some_trainings_failed(dmu: Dmu, contest_yaml: Contests, tmp_path: Path) -> None:
    path = contest_yaml({"arms": ["learned", "random", "uniform"], "seeds": 1, "name": "some"})
    fake(path, tmp_path / "some" / "trials", failing="random")
    some = dmu("compare", path, "--out", tmp_path, "--json")
    assert some.status == 3
    assert "random, T 4, d 4, seed 0: RunError: training ran away" in some.err
    assert "1 of 3 trainings failed; --again tries them once more" in some.err
    assert some.told["failed"] == ["random, T 4, d 4, seed 0: RunError: training ran away"]
    assert "earn their light: 33.3 % better than the plain camera" in some.told["verdicts"][0]["verdict"]
    job = next(job for job in read_contest(path).jobs if job.config["name"].startswith("random"))
    again = dmu("compare", path, "--out", tmp_path, "--again", "--json")
    assert again.status == 0
    record = find(job, tmp_path / "some" / "trials")
    assert record is not None
    assert record.result is not None
    assert record.result["updates"] == 4


def test_the_table_for_a_terminal(dmu: Dmu, contest_yaml: Contests, tmp_path: Path) -> None:
    path = contest_yaml()
    fake(path, tmp_path / "tiny" / "trials")
    told = dmu("compare", path, "--out", tmp_path).err.splitlines()
    head = next(k for k, line in enumerate(told) if line.split()[:3] == ["arm", "T", "d"])
    assert [line.split()[-5:] for line in told[head + 1 : head + 3]] == [
        ["4", "4", "2", "2", "16"],
        ["1", "4", "3", "3", "4"],
    ]
    assert "/ 10⁻³" in told[head]
    assert len({len(line) for line in told[head : head + 3]}) == 1


@pytest.mark.parametrize(
    ("changes", "base", "said"),
    [
        ({"arms": ["random", "uniform"]}, {}, "arms must hold learned and one of"),
        ({"arms": ["learned", "limit"]}, {}, "arms must hold learned and one of"),
        ({"same_camera": ...}, {}, "same_camera or same_data is wanted"),
        ({"same_camera": [{"count": 4, "camera_pixel": 5}]}, {}, "no camera pixel fits crops of 32"),
        ({"same_data": [10_000]}, {}, "1/10000 of the data: no camera pixel fits"),
        ({"base": "nowhere.yaml"}, {}, "nowhere.yaml"),
        ({"references": ["tvv"]}, {}, "references.0"),
        ({}, {"dose_ms": -1.0}, "base.yaml"),
        ({"kind": "train"}, {}, "kind"),
    ],
)
def test_refused(
    dmu: Dmu, contest_yaml: Contests, tmp_path: Path, changes: Mapping[str, Any], base: Mapping[str, Any], said: str
) -> None:
    refused = dmu("compare", contest_yaml(changes, base), "--out", tmp_path / "out")
    assert refused.status == 2
    assert said in refused.err
    assert all(str(tmp_path) in line for line in refused.err.splitlines() if line.startswith("error: ")), "which file?"
    assert not (tmp_path / "out").exists()


def test_checked(dmu: Dmu, contest_yaml: Contests) -> None:
    sound = dmu("check", contest_yaml())
    assert sound.status == 0
    assert "a comparison by 4 trainings" in sound.err
    assert dmu("check", contest_yaml({"seeds": 0})).status == 2
    schema = json.loads(dmu("schema", "compare").out)
    assert {"same_camera", "same_data", "equal", "references"} <= set(schema["properties"])

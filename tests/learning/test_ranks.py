"""One training on two processes, started as anybody starts them: nothing changes but who computes what."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.numpy import load_file
from torch import nn

from dmu_hw.bundle import Bundle
from dmu_hw.cli.main import main
from dmu_hw.errors import InputError
from dmu_hw.ranks import Team, device_named

OWN = '''
"""A model of a user's own: lattice that leaves its weights behind when the program ends."""

import atexit
import os
from pathlib import Path

from safetensors.numpy import save_file

from dmu_hw.models.lattice import Model as Lattice
from dmu_hw.models.lattice import Settings

__all__ = ["Model", "Settings"]


class Model(Lattice):
    def __init__(self, *given):
        super().__init__(*given)
        if "RANK" in os.environ:
            atexit.register(self.tell)

    def tell(self):
        save_file(self.weights(), Path(__file__).with_name(f"rank{os.environ['RANK']}"))
'''


def lesson_in(folder: Path, small: Any, **changes: Any) -> Path:
    """A protocol with a model beside it."""
    folder.mkdir()
    (folder / "own.py").write_text(OWN)
    schedule = {"updates": 12, "batch": 4, "validate_every": 4, "learning_rate": 1e-3} | changes
    plain = small.lesson({"start": "noise"}, schedule).model_dump(mode="json")
    plain["network"] = {"model": "own.py", "channels": 8, "blocks": 1}
    path = folder / "lesson.yaml"
    path.write_text(yaml.safe_dump(plain))
    return path


def alone(*given: str) -> str:
    """`dmu` in this process; returns what it tells programs."""
    with redirect_stdout(io.StringIO()) as said, pytest.raises(SystemExit) as end:
        main(given)
    assert end.value.code == 0
    return said.getvalue()


def together(*given: str) -> str:
    """`dmu` in two processes that torchrun starts."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "--no-python"]
    program = str(Path(sys.executable).with_name("dmu"))
    ended = subprocess.run([*torchrun, program, *given], capture_output=True, text=True, timeout=200, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def log_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def run_folder(out: Path) -> Path:
    """The one that there is."""
    (found,) = out.iterdir()
    return found


Folders = tuple[Path, Path]


@pytest.fixture(scope="module")
def folders() -> dict[str, Path]:
    """Where the trainings are, once they are."""
    return {}


@pytest.fixture
def both(small: Any, folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """The same command by itself and under torchrun, once for all tests."""
    for name, call in (("alone", alone), ("together", together)) if not folders else ():
        base = tmp_path_factory.mktemp("ranks") / name
        path = lesson_in(base, small)
        said = call("train", str(path), "--out", str(base / "out"), "--device", "cpu", "--json")
        (told,) = said.splitlines()
        (base / "told.json").write_text(told)
        folders[name] = base
    return folders["alone"], folders["together"]


def test_both_end_with_the_same_weights(both: Folders) -> None:
    one, other = (load_file(both[1] / f"rank{rank}") for rank in (0, 1))
    assert one.keys() == other.keys()
    assert all(np.array_equal(one[key], other[key]) for key in one)
    assert (one["head.weight"] != 0).any()  # where they began


def test_one_run_folder_one_voice(both: Folders) -> None:
    """Both ways leave the same, and only the first process talks to programs."""
    runs = [run_folder(base / "out") for base in both]
    files = [{file.relative_to(run).parts[0] for file in run.rglob("*")} for run in runs]
    assert files[0] == files[1] >= {"protocol.yaml", "log.jsonl", "checkpoint.safetensors", "small.dmu"}
    for base, run in zip(both, runs, strict=True):
        assert [line["update"] for line in log_of(run)] == [0, 4, 8, 12]
        told = json.loads((base / "told.json").read_text())
        assert (told["bundle"], told["updates"]) == (str(run / "small.dmu"), 12)


def test_it_learns_as_well_as_alone(both: Folders) -> None:
    runs = [run_folder(base / "out") for base in both]
    one, two = (log_of(run) for run in runs)
    assert one[0]["val_error"] == two[0]["val_error"]  # they begin alike
    assert all(a["val_error"] != b["val_error"] for a, b in zip(one[1:], two[1:], strict=True))  # noise is drawn apart
    errors = [Bundle.load(run / "small.dmu").header.metrics["test_mse"] for run in runs]
    assert errors[1] == pytest.approx(errors[0], rel=0.1)


def test_a_training_of_two_is_gone_on_with_by_one(both: Folders) -> None:
    """Checkpoints are the same; this one is of a training that had ended."""
    run = run_folder(both[1] / "out")
    before = Bundle.load(run / "small.dmu").hash
    alone("train", str(both[1] / "lesson.yaml"), "--resume", str(run), "--device", "cpu")
    assert Bundle.load(run / "small.dmu").hash == before


# ---------------------------------------------------------------- a team of one, and shares


def test_shares_make_the_whole() -> None:
    batch = torch.arange(6)
    parts = [Team(rank, 3).part(batch) for rank in range(3)]
    assert sorted(torch.cat(parts).tolist()) == batch.tolist()
    assert {len(part) for part in parts} == {2}
    assert torch.equal(Team().part(batch), batch)


def test_each_draws_noise_of_its_own(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even of the same specimens."""
    monkeypatch.setattr(Team, "align", lambda _self, _tensors: None)
    monkeypatch.setattr(Team, "average", lambda _self, _parameters: None)
    monkeypatch.setattr(Team, "part", lambda _self, batch: batch)
    losses = [small.learner(small.lesson(), team=Team(rank, 2)).step() for rank in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]


def test_one_alone_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    team = Team.join(torch.device("cpu"))
    assert (team, team.leads) == (Team(), True)
    weight = nn.Parameter(torch.ones(2))
    weight.grad = torch.full((2,), 3.0)
    team.average([weight])
    team.align([weight])
    assert weight.grad.tolist() == [3.0, 3.0]
    assert team.agree(0.1) == 0.1
    team.leave()


def test_a_batch_has_equal_shares(small: Any) -> None:
    with pytest.raises(InputError, match=r"schedule\.batch: must be a multiple of the 3 processes, given 2"):
        small.learner(small.lesson(), team=Team(0, 3))


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert device_named("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_named("auto") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert device_named("auto") == torch.device("cuda:1")

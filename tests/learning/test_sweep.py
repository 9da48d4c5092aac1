"""Sweeps: every trial is known and checked before the first one runs."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dmu_hw import sweep as module
from dmu_hw.errors import InputError
from dmu_hw.files import load_yaml
from dmu_hw.physics.optics import Dye, GaussianPsf, Mirrors, Optics
from dmu_hw.pool import Job, Local, Ray, Slurm, run
from dmu_hw.sweep import Range, Search, Sweep, estimate, expand

OPTICS = Optics(
    object_pixel_um=0.325,
    sensor_pixel_um=0.65,
    excitation=GaussianPsf(sigma_um=0.3),
    emission=GaussianPsf(sigma_um=0.3),
    mirrors=Mirrors(leakage=0.01),
    dye=Dye(photons_per_um2_mw_ms=500.0, background_photons_per_um2_mw_ms=5.0),
)
BASE: dict[str, Any] = {
    "kind": "train",
    "name": "base",
    "rig": "rig.yaml",
    "data": {"kind": "scenes", "specimen": {"kind": "nuclei", "seed": 1}, "train": 6, "held_back": 2, "side_px": 64},
    "patterns": {"count": 4, "camera_pixel": 8},
    "power_mw": 1.0,
    "exposure_ms": 2.0,
    "schedule": {"updates": 6, "crop_px": 64},
}
GRID = {"patterns.count": [1, 4, 16], "patterns.camera_pixel": [8, 16]}
SweepOf = Callable[..., Sweep]


def optics_of(path: Path) -> Optics:
    assert path.name == "rig.yaml"
    return OPTICS


@pytest.fixture
def sweep_of(tmp_path: Path) -> SweepOf:
    """A sweep of the small training, as read from its file."""

    def read(base: Mapping[str, Any] | None = None, **keys: Any) -> Sweep:
        (tmp_path / "base.yaml").write_text(yaml.safe_dump(copy.deepcopy(BASE | dict(base or {})), sort_keys=False))
        document = {"kind": "sweep", "name": "test", "base": "base.yaml", **keys}
        (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
        return load_yaml(tmp_path / "sweep.yaml", Sweep)

    return read


def values(jobs: tuple[Job, ...], *keys: str) -> list[tuple[Any, ...]]:
    def value(job: Job, key: str) -> Any:
        place: Any = job.config
        for step in key.split("."):
            place = place[step]
        return place

    return [tuple(value(job, key) for key in keys) for job in jobs]


def test_a_grid_is_all_with_all(sweep_of: SweepOf) -> None:
    sweep = sweep_of(grid=GRID, seeds=2)
    jobs = expand(sweep, optics_of).jobs
    found = values(jobs, "patterns.count", "patterns.camera_pixel", "schedule.seed")
    assert found == [(count, d, seed) for count in (1, 4, 16) for d in (8, 16) for seed in (0, 1)]
    assert sweep.count == len({job.key for job in jobs}) == 12
    assert sweep.keys == ("patterns.count", "patterns.camera_pixel", "schedule.seed")


def test_points_go_together_and_cross_the_grid(sweep_of: SweepOf) -> None:
    points = [{"patterns.count": 1, "patterns.camera_pixel": 8}, {"patterns.count": 4, "patterns.camera_pixel": 16}]
    jobs = expand(sweep_of(grid={"power_mw": [1.0, 2.0]}, points=points), optics_of).jobs
    found = values(jobs, "power_mw", "patterns.count", "patterns.camera_pixel")
    assert found == [(1.0, 1, 8), (1.0, 4, 16), (2.0, 1, 8), (2.0, 4, 16)]


def test_a_job_holds_all_that_it_takes_and_the_same_each_time(sweep_of: SweepOf) -> None:
    (job,) = expand(sweep_of(), optics_of).jobs
    assert json.loads(json.dumps(job.config)) == job.config
    assert job.config["optics"]["object_pixel_um"] == 0.325
    assert job.config["rig"] is None
    assert expand(sweep_of(), optics_of).jobs[0].key == job.key
    finer = OPTICS.model_copy(update={"mirrors": Mirrors(leakage=0.02)})
    assert expand(sweep_of(), lambda _: finer).jobs[0].key != job.key  # results of the rig as it was are not kept


def test_single_values_of_a_rigs_optics(sweep_of: SweepOf) -> None:
    grid = {"optics.mirrors.leakage": [0.0, 0.1], "optics.emission": [{"kind": "gaussian", "sigma_um": 0.5}]}
    jobs = expand(sweep_of(grid=grid), optics_of).jobs
    assert values(jobs, "optics.mirrors.leakage", "optics.emission.sigma_um", "optics.excitation.sigma_um") == [
        (0.0, 0.5, 0.3),
        (0.1, 0.5, 0.3),
    ]


def test_settings_of_the_model_that_the_base_does_not_mention(sweep_of: SweepOf) -> None:
    jobs = expand(sweep_of(grid={"network.channels": [8, 16]}), optics_of).jobs
    assert values(jobs, "network.model", "network.channels") == [("lattice", 8), ("lattice", 16)]


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        ({"patterns.cuont": [1, 2]}, r"unknown key 'cuont'; did you mean 'count'\?.*\(with patterns.cuont 1 and 1"),
        ({"network.chanels": [8]}, r"unknown key 'chanels'.*\(with network.chanels 8\)"),
        ({"patterns.camera_pixel": [8, 9]}, r"multiple of the tile of 9, given 64 \(with patterns.camera_pixel 9\)"),
        ({"schedule.crop_px": [63], "patterns.camera_pixel": [7, 8]}, r"must be a multiple of 2.*given 7"),
        ({"power_mw": [1.0, "much"]}, r"base.yaml:15: power_mw: should be a number.*\(with power_mw much\)"),
        ({"power_mw.low": [1.0]}, r"power_mw.low: power_mw holds no settings"),
        ({"optics.mirrors.leakage": [2.0]}, r"should be less than 1, given 2.0 \(with optics"),
    ],
)  # fmt: skip
def test_what_cannot_run_is_refused_before_anything_runs(sweep_of: SweepOf, grid: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        expand(sweep_of(grid=grid), optics_of)


def test_what_cannot_run_is_left_out_and_counted(sweep_of: SweepOf) -> None:
    grid = {"patterns.camera_pixel": [8, 24, 48], "power_mw": [1.0, 2.0]}
    found = expand(sweep_of(grid=grid, invalid="leave out"), optics_of)
    assert values(found.jobs, "patterns.camera_pixel") == [(8,), (8,)]
    assert found.left_out_count == 4
    assert [str(problem).rsplit("given", 1)[1] for problem in found.left_out] == [
        " 64 (with patterns.camera_pixel 24, power_mw 1.0 and 1 more)",
        " 64 (with patterns.camera_pixel 48, power_mw 1.0 and 1 more)",
    ]
    with pytest.raises(InputError, match="multiple of the tile"):  # nothing is left to run
        expand(sweep_of(grid={"patterns.camera_pixel": [24]}, invalid="leave out"), optics_of)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"grid": {"power_mw": [1.0]}, "points": [{"power_mw": 2.0}]}, "power_mw is varied in two ways"),
        ({"grid": {"schedule.seed": [1]}, "seeds": 2}, "schedule.seed is varied in two ways"),
        ({"grid": {"patterns": [{}], "patterns.count": [1]}}, "patterns.count is a part of patterns"),
        ({"grid": {"power_mw": []}}, "at least 1"),
        ({"grid": {"power_mw": 1.0}}, "should be a list"),
        ({"grid": {"Power mW": [1]}}, "pattern"),
        ({"points": [{}]}, "at least 1"),
        ({"grid": {"power_mw": list(range(400)), "exposure_ms": list(range(400))}}, "160,000 trials are more"),
        ({"search": {"trials": 2, "ranges": {"power_mw": {"low": 2.0, "high": 1.0}}}}, "low must be below high"),
        ({"search": {"trials": 2, "ranges": {"power_mw": {"low": 0, "high": 1, "log": True}}}}, "above 0"),
        ({"search": {"trials": 2, "ranges": {"power_mw": {"low": 0.5, "high": 1, "whole": True}}}}, "must be whole"),
    ],
)  # fmt: skip
def test_a_sweep_that_is_none(sweep_of: SweepOf, keys: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        sweep_of(**keys)


def test_the_base_must_be_a_training(sweep_of: SweepOf) -> None:
    with pytest.raises(InputError, match=r"base.yaml:1: kind: the base of a sweep must be of kind 'train'"):
        expand(sweep_of({"kind": "run"}), optics_of)


# ---------------------------------------------------------------- the search


NUMBERS = st.floats(0.001, 1e6) | st.integers(1, 10**6).map(float)


@given(NUMBERS, NUMBERS, st.booleans(), st.booleans(), st.floats(0, 1, exclude_max=True))
def test_draws_stay_in_their_range(one: float, other: float, log: bool, whole: bool, part: float) -> None:
    low, high = sorted((one, other))
    if whole:
        low, high = float(int(low)) + 1, float(int(high)) + 2
    if low == high:
        return
    drawn = Range(low=low, high=high, log=log, whole=whole).at(part)
    assert low <= drawn <= high
    assert isinstance(drawn, int if whole else float)


def test_both_ends_are_drawn_and_decades_are_as_likely() -> None:
    parts = [k / 3000 for k in range(3000)]
    dice = [Range(low=1, high=6, whole=True).at(part) for part in parts]
    assert [dice.count(side) for side in range(1, 7)] == [500] * 6
    rates = [Range(low=1e-4, high=1e-1, log=True).at(part) for part in parts]
    assert sum(rate < 1e-3 for rate in rates) == pytest.approx(1000, abs=2)


def test_more_trials_and_more_ranges_leave_the_others_as_they_are(sweep_of: SweepOf) -> None:
    power = Range(low=0.1, high=10.0, log=True)
    few = list(Search(trials=3, ranges={"power_mw": power}).points())
    many = list(Search(trials=9, ranges={"exposure_ms": power, "power_mw": power}).points())
    assert [point["power_mw"] for point in few] == [point["power_mw"] for point in many[:3]]
    assert len({point["power_mw"] for point in many}) == 9
    assert many != [dict.fromkeys(("exposure_ms", "power_mw"), point["power_mw"]) for point in many]
    search = {"trials": 4, "ranges": {"schedule.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}}
    jobs = expand(sweep_of(grid={"patterns.count": [1, 4]}, search=search), optics_of).jobs
    rates = values(jobs, "schedule.learning_rate")
    assert rates[:4] == rates[4:]  # each point of the grid gets the same ones
    assert len(set(rates)) == 4


# ---------------------------------------------------------------- how long


def test_an_estimate_comes_from_what_is_done(
    sweep_of: SweepOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setattr(module, "CALL", "pool_toys:pause")
    jobs = expand(sweep_of(grid=GRID), optics_of).jobs
    engine = Local(workers=2)
    assert estimate(jobs, tmp_path / "x", engine).seconds_left is None
    assert not (tmp_path / "x").exists()
    timed = estimate(jobs, tmp_path / "x", engine, time_one=True)
    assert (timed.trials, timed.kept, timed.left, timed.failed) == (6, 1, 5, 0)
    assert timed.seconds_each == pytest.approx(0.05, abs=0.04)
    assert timed.seconds_left == pytest.approx(3 * timed.seconds_each)
    assert sum(done.kept for done in run(jobs, tmp_path / "x", engine)) == 1
    assert estimate(jobs, tmp_path / "x", engine, time_one=True).seconds_left == 0
    assert estimate(jobs, tmp_path / "x", Slurm(kind="slurm", at_once=4)).at_once == 4
    assert estimate(jobs, tmp_path / "x", Ray(kind="ray", cpus=1e6)).at_once == 1


def test_neither_torch_nor_an_engine_is_loaded_to_expand() -> None:
    program = "import sys, dmu_hw.sweep, dmu_hw.trials, dmu_hw.heatmaps; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "ray", "submitit", "pyarrow", "matplotlib"} & set(loaded)

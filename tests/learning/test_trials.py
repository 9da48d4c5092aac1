"""What a sweep found, as a table and as pictures."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dmu_hw.errors import InputError
from dmu_hw.heatmaps import MAX_PANELS, heat_maps, label, write_heat_maps
from dmu_hw.pool import Failure, Job, Record, find
from dmu_hw.pool.jobs import keep
from dmu_hw.trials import rows, table, write_table

LOST = Failure(type="Lost", message="its process was killed", traceback="")


def record(config: dict[str, Any], result: dict[str, Any] | None, seconds: float = 1.5) -> Record:
    return Record.now(Job("a.b:c", config), result, LOST if result is None else None, seconds)


def config(count: int, d: int, seed: int = 0, **more: Any) -> dict[str, Any]:
    patterns = {"count": count, "camera_pixel": d, "start": "draft"}
    return {"kind": "train", "patterns": patterns, "schedule": {"seed": seed, "updates": 5}, **more}


def error_of(count: int, d: int, seed: int) -> float:
    return d**2 / count / 1e4 + seed * 1e-4


def grid() -> list[Record]:
    """T × d × seeds; of one place one seed has failed, of another all have; a third is not there."""
    found = []
    for count in (1, 4, 16):
        for d in (8, 16):
            for seed in range(3):
                failed = (count, d, seed) == (4, 8, 0) or (count, d) == (1, 16)
                if (count, d) != (16, 16):
                    result = None if failed else {"test_mse": error_of(count, d, seed), "updates": 5}
                    found.append(record(config(count, d, seed), result))
    return found


# ---------------------------------------------------------------- the table


def test_a_row_has_what_varies_what_came_of_it_and_how_it_went() -> None:
    first, *_, last = rows(grid())
    settings = ["patterns.count", "patterns.camera_pixel", "schedule.seed"]
    about = ["error", "wall_s", "host", "version", "finished", "trial"]
    assert list(first) == [*settings, "test_mse", "updates", *about]
    assert first["test_mse"] == error_of(1, 8, 0)
    assert (first["error"], first["wall_s"]) == (None, 1.5)
    assert (last["patterns.count"], last["patterns.camera_pixel"]) == (16, 8)
    failed = [row for row in rows(grid()) if row["error"]]
    assert len(failed) == 4
    assert {row["error"] for row in failed} == {"Lost: its process was killed"}
    assert all(row["test_mse"] is None for row in failed)


def test_keys_that_are_wanted_are_there_though_they_do_not_vary() -> None:
    one = [record(config(4, 8), {"test_mse": 0.1})]
    assert "patterns.count" not in rows(one)[0]
    assert rows(one, ["patterns.count"])[0]["patterns.count"] == 4
    assert rows([]) == []


def test_settings_of_several_kinds() -> None:
    found = rows(
        [
            record({"psf": {"kind": "gaussian", "sigma_um": 0.3}, "x": 1, "slope": [1, 8]}, {"x": 7}),
            record({"psf": {"kind": "pupil", "na": 0.8}, "x": 2.5, "slope": [1, 9]}, {"x": 8}),
            record({"psf": {"kind": "pupil", "na": 0.9}, "x": True, "slope": [1, 9]}, {"x": {"y": 9}}),
        ]
    )
    assert [row["psf.sigma_um"] for row in found] == [0.3, None, None]
    assert [row["slope"] for row in found] == ["[1, 8]", "[1, 9]", "[1, 9]"]
    assert [row["x"] for row in found] == [1, 2.5, True]  # the setting
    assert [row["result.x"] for row in found] == [7, 8, None]
    assert [row["x.y"] for row in found] == [None, None, 9]


def test_a_notebook_reads_it(tmp_path: Path) -> None:
    for one in grid():
        keep(one, tmp_path)
    (tmp_path / "notes.json").write_text("{}")
    path = write_table(tmp_path, ["patterns.start"])
    read = pq.read_table(path)
    assert read.num_rows == 15
    types = {field.name: field.type for field in read.schema}
    assert types["patterns.count"] == pa.int64()
    assert types["test_mse"] == pa.float64()
    assert types["patterns.start"] == types["error"] == pa.string()
    by_trial = {row["trial"]: row for row in read.to_pylist()}
    for one in grid():
        row = by_trial[one.job.key]
        found = find(one.job, tmp_path)
        assert found is not None
        assert row["schedule.seed"] == one.config["schedule"]["seed"]
        assert row["test_mse"] == (one.result or {}).get("test_mse")
        assert row["finished"] == found.finished
    with open(tmp_path / "trials.csv", newline="") as file:
        again = list(csv.DictReader(file))
    assert [row["trial"] for row in again] == read.column("trial").to_pylist()
    assert sorted(float(row["test_mse"]) for row in again if row["test_mse"]) == sorted(
        value for value in read.column("test_mse").to_pylist() if value is not None
    )
    assert write_table(tmp_path, ["patterns.start"]) == path  # again, at any time
    assert pq.read_table(path) == read


@pytest.mark.parametrize(
    ("values", "stored"),
    [([1, 2.5, None], [1.0, 2.5, None]), ([1, "a", True], ["1", "a", "true"]), ([2**70, 1], [str(2**70), "1"])],
)
def test_columns_have_one_type(tmp_path: Path, values: list[Any], stored: list[Any]) -> None:
    for k, value in enumerate(values):
        keep(record({"k": k}, {"y": value}), tmp_path)
    by_k = {row["k"]: row["y"] for row in table(tmp_path).to_pylist()}
    assert [by_k[k] for k in range(len(values))] == stored


def test_a_folder_without_results(tmp_path: Path) -> None:
    assert table(tmp_path).num_rows == 0
    assert pq.read_table(write_table(tmp_path)).num_rows == 0


# ---------------------------------------------------------------- heat maps


def texts(axes: Any) -> dict[tuple[float, float], str]:
    return {text.get_position(): text.get_text() for text in axes.texts}


def test_a_heat_map_averages_seeds_and_says_what_is_missing(tmp_path: Path) -> None:
    figure = heat_maps(rows(grid()), "test_mse", "patterns.camera_pixel", "patterns.count")
    axes, bar = figure.axes
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["8", "16"]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["1", "4", "16"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("d / object pixels", "T / frames")
    assert bar.get_ylabel() == "test MSE / $10^{-3}$"
    figure.draw_without_rendering()
    assert {"1", "2", "5"} <= {tick.get_text() for tick in bar.get_yticklabels()}
    cells = texts(axes)
    assert cells == {
        (0, 0): "6.50\n± 0.1",
        (1, 0): "3 failed",
        (0, 1): "1.75\n± 0.07\n1 failed",
        (1, 1): "6.50\n± 0.1",
        (0, 2): "0.500\n± 0.1",
    }
    values = axes.images[0].get_array()
    expected = np.mean([error_of(4, 16, seed) for seed in range(3)])
    assert values[1, 1] == pytest.approx(1e3 * expected)
    assert values.mask.tolist() == [[False, True], [False, False], [False, True]]
    figure.savefig(tmp_path / "map.png")
    assert (tmp_path / "map.png").stat().st_size > 5000


def test_side_by_side_in_one_scale() -> None:
    found = rows(
        [
            record(config(count, d, arm=arm), {"test_psnr_db": float(level + count - d)})
            for level, arm in ((0, "learned"), (100, "random"))
            for count in (1, 4)
            for d in (8, 16)
        ]
    )
    figure = heat_maps(found, "test_psnr_db", "patterns.camera_pixel", "patterns.count", over="arm")
    left, right, bar = figure.axes
    assert [axes.get_title() for axes in (left, right)] == ["arm: learned", "arm: random"]
    assert left.images[0].norm is right.images[0].norm
    assert (left.images[0].norm.vmin, left.images[0].norm.vmax) == (-15, 96)
    assert texts(left)[0, 1] == "-4.00"
    assert bar.get_ylabel() == "test PSNR / dB"
    dark, light = (next(t for t in axes.texts if t.get_position() == (0, 1)) for axes in (left, right))
    assert (dark.get_color(), light.get_color()) == ("white", "black")


VARIED = ("patterns.count", "patterns.camera_pixel", "power_mw", "schedule.seed")


def swept(powers: int) -> list[dict[str, Any]]:
    return rows(
        [
            record(config(count, d, seed, power_mw=float(power)), {"test_dice": 0.5 + seed / 10, "other": 1})
            for count in (1, 4)
            for d in (8, 16)
            for seed in (0, 1)
            for power in range(powers)
        ]
    )


def test_maps_of_a_sweep_are_drawn_for_what_it_varied(tmp_path: Path) -> None:
    """Seeds share a cell; all else gets panels, until there are too many of them."""
    written = write_heat_maps(swept(5), VARIED, tmp_path)
    assert [path.name for path in written] == ["test_dice.png", "test_dice.svg"]
    svg = written[1].read_text()
    assert [f"<!-- power {power} mW -->" in svg for power in range(6)] == [True] * 5 + [False]
    assert svg.count("<!-- 0.550 -->") == 5 * 4
    assert write_heat_maps(swept(MAX_PANELS + 1), VARIED, tmp_path) == []


def test_no_maps_where_there_is_nothing_to_map(tmp_path: Path) -> None:
    assert write_heat_maps([], VARIED, tmp_path) == []
    one_d = [row for row in swept(2) if row["patterns.camera_pixel"] == 8]
    assert write_heat_maps(one_d, VARIED, tmp_path) == []
    assert write_heat_maps(rows([record({"power_mw": k}, {"test_mse": k}) for k in range(3)]), VARIED, tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_a_column_that_is_not_there() -> None:
    with pytest.raises(InputError, match=r"no column 'mse'; there are: patterns.count, .*test_mse"):
        heat_maps(rows(grid()), "mse", "patterns.camera_pixel", "patterns.count")
    with pytest.raises(InputError, match="there are: none"):
        heat_maps([], "mse", "x", "y")


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("power_mw", "power / mW"),
        ("optics.sensor.read_noise_e", "optics.sensor.read noise / e⁻"),
        ("optics.dye.photons_per_um2_mw_ms", "dye / photons/(µm² mW ms)"),
        ("test_ssim", "test SSIM"),
        ("test_ridge_mse", "test ridge mse"),
    ],
)
def test_labels_have_units(key: str, told: str) -> None:
    assert label(key) == told

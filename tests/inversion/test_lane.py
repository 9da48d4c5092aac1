"""What a lane decides for itself before there is light, and that all its ways give the same numbers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from lanes import CPU, bundle, burst, lane, window

from dmu_hw import lane as module
from dmu_hw.bundle import Bundle
from dmu_hw.errors import InputError
from dmu_hw.lane import HALF_COST_DB, Lane, device_of
from dmu_hw.metrics import psnr_db
from dmu_hw.pursuit import Pursuit
from dmu_hw.reconstruct import Reconstructor, Window
from dmu_hw.rehearsal import Rehearsal

SHIPPED = Path(__file__).parents[2] / "protocols" / "bundles"
DEVICES = [CPU, *([torch.device("cuda")] if torch.cuda.is_available() else [])]


def shipped(name: str, side: int = 64) -> tuple[Bundle, Window]:
    found = Bundle.load(SHIPPED / f"{name}.dmu")
    header = found.header
    return found, Window(header.optics, (side, side), (0.0, 0.0), header.power_mw, header.exposure_ms)


@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize("name", ["nuclei", "segment"])
def test_together_bursts_give_the_numbers_of_one_by_one(name: str, device: torch.device) -> None:
    made, mine = shipped(name)
    bursts = [Rehearsal.of(made, mine).frames, *(np.full((4, 4, 4), 200 * k, np.uint16) for k in range(1, 4))]
    alone = Reconstructor(made, mine)
    together = Lane(made, mine, device).estimates(bursts)
    for one, other in zip([alone.estimate(frames) for frames in bursts], together, strict=True):
        np.testing.assert_allclose(other.image, one.image, atol=2e-5 * max(1.0, float(np.abs(one.image).max())))
        assert other.count == one.count
        assert other.image.dtype == np.float32


@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_batches_that_are_under_way_together_are_not_mixed_up(device: torch.device) -> None:
    mine = Lane(bundle(), window(), device)
    batches = [[burst(3 * k + j).stack() for j in range(3)] for k in range(3)]
    pending = [mine.submit(batch) for batch in batches]
    for batch, one in zip(batches, pending, strict=True):
        for frames, estimate in zip(batch, mine.fetch(one), strict=True):
            wanted = Reconstructor(bundle(), window()).estimate(frames).image
            np.testing.assert_allclose(estimate.image, wanted, atol=1e-5)


def test_a_rehearsal_resembles_what_it_was_made_of() -> None:
    made, mine = shipped("nuclei", 128)
    rehearsal = Rehearsal.of(made, mine)
    assert rehearsal.frames.shape == (4, 8, 8)
    image = Reconstructor(made, mine).estimate(rehearsal.frames).image
    flat = np.full_like(rehearsal.truth, rehearsal.truth.mean())
    assert psnr_db(image, rehearsal.truth) > psnr_db(flat, rehearsal.truth) + 4


def test_a_rehearsal_of_a_large_field_is_small() -> None:
    made, mine = shipped("nuclei", 2048)
    assert Rehearsal.of(made, mine).truth.shape == (256, 256)


@pytest.mark.parametrize("name", ["nuclei", "segment"])
def test_half_precision_costs_next_to_nothing(name: str) -> None:
    made, mine = shipped(name, 128)
    assert Rehearsal.of(made, mine).costs(made, CPU, torch.bfloat16) < HALF_COST_DB


class Coarse:
    """An inverse whose numbers of 16 bits are no good."""

    def __init__(self, _weights: Any, layout: Any, _device: Any) -> None:
        self.side = layout.camera_pixel

    def __call__(self, signal: torch.Tensor) -> torch.Tensor:
        even = signal.mean(dim=1) / self.side**2
        if torch.is_autocast_enabled("cpu"):
            even = even + 0.1
        return torch.nn.functional.interpolate(even[:, None], scale_factor=self.side)[:, 0]


@pytest.mark.parametrize(("half_s", "adopted"), [(0.5, True), (0.95, False)])
def test_half_precision_is_for_what_it_makes_faster(
    monkeypatch: pytest.MonkeyPatch, half_s: float, adopted: bool
) -> None:
    mine = Lane(bundle(), window(), CPU, half=True)
    monkeypatch.setattr(module, "least_s", lambda *works: [1.0, half_s] if len(works) > 1 else [1.0])
    mine.warm()
    assert (mine.reconstructor.half is torch.bfloat16) == adopted
    assert (mine.half_cost_db is not None) == adopted


def test_half_precision_is_not_for_what_it_spoils(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dmu_hw.reconstruct.model_class", lambda *_, **__: Coarse)
    mine = Lane(bundle(), window(), CPU, half=True)
    monkeypatch.setattr(module, "least_s", lambda *works: [1.0, 0.1] if len(works) > 1 else [1.0])
    mine.warm()
    assert mine.reconstructor.half is None
    assert mine.half_cost_db is None


@pytest.mark.parametrize(("each_s", "batch"), [({1: 1.0, 2: 0.6, 4: 0.4, 8: 0.39}, 4), ({1: 1.0, 2: 1.0}, 1)])
def test_batches_grow_while_it_pays(monkeypatch: pytest.MonkeyPatch, each_s: dict[int, float], batch: int) -> None:
    mine = lane()
    monkeypatch.setattr(mine, "_takes_s", lambda bursts: 1e-3 * len(bursts) * each_s[len(bursts)])
    mine.warm()
    assert mine.batch == batch


def test_no_batch_takes_so_long_that_its_first_burst_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = lane()
    asked = []
    monkeypatch.setattr(mine, "_takes_s", lambda bursts: asked.append(len(bursts)) or 0.04)
    mine.warm()
    assert asked == [1]
    assert mine.batch == 1


def test_what_is_tried_out_is_as_large_as_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    made, mine = shipped("nuclei", 320)
    seen = []
    monkeypatch.setattr(Lane, "_takes_s", lambda _, bursts: seen.append(bursts[0].shape) or 1.0)
    Lane(made, mine, CPU).warm()
    assert seen == [(4, 20, 20)]


def test_a_gpu_that_is_not_there_is_refused() -> None:
    assert device_of(Pursuit(device="cpu"), "here").type == "cpu"
    if torch.cuda.is_available():
        assert device_of(Pursuit(), "here").type == "cuda"
        return
    assert device_of(Pursuit(), "here").type == "cpu"
    with pytest.raises(InputError, match=r"protocol\.yaml: live\.device: there is no GPU"):
        device_of(Pursuit(device="cuda"), "protocol.yaml: live.device")


def test_the_shortest_times_of_works_that_take_turns_count(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s, turns = [0.0], []

    def work(name: str, times_s: list[float]) -> Any:
        left = iter(times_s)

        def done() -> None:
            turns.append(name)
            now_s[0] += next(left)

        return done

    monkeypatch.setattr(module.time, "perf_counter", lambda: now_s[0])
    one, other = work("a", [9.0, 0.05, 0.01, 0.2, 0.2, 0.2]), work("b", [0.001, 0.04, 0.03, 0.02, 0.2, 0.2])
    assert module.least_s(one, other) == pytest.approx([0.01, 0.02])
    assert "".join(turns).startswith("abababab")

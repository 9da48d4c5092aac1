"""Who sets the pace of a burst: refused where nothing is wired for it, and made ready before there is light."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import bench_of, bench_rig, plan_of

from dmu_hw.burst import BurstTaker
from dmu_hw.errors import DeviceError, InputError
from dmu_hw.guard import Guard
from dmu_hw.ports import Preparing
from dmu_hw.rig import Rig, load_rig

WIRED = """
import fakes


class Dmd(fakes.Dmd):
    steppings = ("software", "camera")
"""


def with_dmd(folder: Path, stepping: str, text: str) -> Rig:
    """The bench with another class of mirrors, by a file beside it."""
    file = bench_rig(folder, stepping).file
    (folder / "wired.py").write_text(text)
    (driver,) = {part.driver for part in file.settings.devices.values()}
    return Rig(
        load_rig(
            file.path,
            file.text.replace(
                f"dmd:\n    connection: bench\n    driver: {driver}",
                "dmd:\n    connection: bench\n    driver: wired.py",
            ),
        )
    )


@pytest.mark.parametrize("stepping", ["software", "camera", "dmd"])
def test_a_rig_is_refused_that_steps_as_nothing_is_wired(tmp_path: Path, stepping: str) -> None:
    """When it is read, by file and line: nothing has to be opened for that."""
    if stepping != "dmd":
        assert with_dmd(tmp_path, stepping, WIRED).settings.stepping == stepping
        return
    with pytest.raises(InputError) as caught:
        with_dmd(tmp_path, stepping, WIRED)
    (problem,) = caught.value.problems
    assert "bench.yaml:" in problem.where
    assert problem.where.endswith("devices.dmd")
    assert problem.what.endswith("can be stepped by: software, camera; the rig says stepping: dmd")


@pytest.mark.parametrize("stepping", ["dmd", "camera"])
def test_a_sequence_is_made_ready_in_the_dark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stepping: str) -> None:
    rig = bench_rig(tmp_path, stepping, side=32)
    plan, bench = plan_of(rig, side=32), bench_of(rig)
    take = plan.takes["patterns"]
    made: list[tuple[tuple[int, ...], float | None]] = []

    def prepare(order: Sequence[int], period_ms: float | None) -> None:
        assert not bench.lit
        made.append((tuple(order), period_ms))

    monkeypatch.setattr(rig.dmd, "prepare", prepare, raising=False)
    assert isinstance(rig.dmd, Preparing)
    rig.dmd.load(np.zeros((5, *rig.dmd.shape), dtype=bool))
    rig.camera.configure(take.mode)
    burst = BurstTaker(rig, Guard(rig), 1000.0).take(plan.shots[0], take)
    assert len(burst.frames) == take.stack.count
    by_camera = (*take.memory, take.memory[0]), None
    assert made == [(tuple(take.memory), take.period_ms) if stepping == "dmd" else by_camera]


def test_mirrors_that_cannot_be_made_ready_see_no_light(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = bench_rig(tmp_path, "dmd", side=32)
    plan, lit = plan_of(rig, side=32), []

    def prepare(*_: Any) -> None:
        raise DeviceError("dmd", "no room")

    monkeypatch.setattr(rig.dmd, "prepare", prepare, raising=False)
    monkeypatch.setattr(rig.light, "on", lambda *_: lit.append(1))
    take = plan.takes["patterns"]
    rig.dmd.load(np.zeros((5, *rig.dmd.shape), dtype=bool))
    rig.camera.configure(take.mode)
    with pytest.raises(DeviceError, match="dmd: no room"):
        BurstTaker(rig, Guard(rig), 1000.0).take(plan.shots[0], take)
    assert not lit

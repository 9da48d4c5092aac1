"""What a rig is told stays within its limits, whatever was planned: every command of a run is written down.

The plans themselves are held against the limits in tests/protocols/test_limits.py, by the hundred thousand.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from fakes import bench_of, bench_rig, spooling
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from dmu_hw.engine import Engine
from dmu_hw.errors import InputError
from dmu_hw.physics.patterns import PatternSet
from dmu_hw.planner import make_plan
from dmu_hw.protocol import Protocol
from dmu_hw.rig import Rig, load_rig

POWER_MW, EXPOSURE_MS, ON_TIME_MS, DOSE_MJ_CM2 = 4.0, 8.0, 160.0, 40_000.0
LIMITS = {"power_mw": POWER_MW, "exposure_ms": EXPOSURE_MS, "on_time_ms": ON_TIME_MS, "dose_mj_cm2": DOSE_MJ_CM2}
SIDE = 32
REACH_UM, DEPTH_UM = 100.0, 20.0
"""How far the stage and the focus of tests/faults/movers.py go."""


def mostly(low: float, high: float) -> st.SearchStrategy[float]:
    """Within the limits, at them, or a little beyond."""
    inside = st.floats(low, high)
    return st.one_of(*[inside] * 12, st.sampled_from([low, high]), st.floats(high, 1.1 * high))


PLACES = st.builds(
    lambda x, y, z: {"x_um": x, "y_um": y, "focus_um": z},
    mostly(-REACH_UM, REACH_UM),
    mostly(-REACH_UM, REACH_UM),
    mostly(-DEPTH_UM, DEPTH_UM),
)
PROTOCOLS = st.fixed_dictionaries(
    {
        "light": mostly(0.01, POWER_MW).map(lambda power: {"power_mw": power}),
        "exposure_ms": mostly(0.05, EXPOSURE_MS),
        "patterns": st.sampled_from([(1, 4), (4, 4), (4, 2), (16, 4)]).map(
            lambda made: {"set": "hadamard", "count": made[0], "camera_pixel": made[1]}
        ),
        "positions": st.lists(PLACES, min_size=1, max_size=3).map(tuple),
        "references": st.fixed_dictionaries({"plain": st.booleans(), "full": st.booleans()}),
        "retries": st.integers(0, 2),
    },
    optional={
        "z": st.fixed_dictionaries({"range_um": st.floats(0, 8), "step_um": st.floats(2, 8)}),
        "budget": st.floats(100.0, 1e5).map(lambda dose: {"dose_mj_cm2": dose}),
    },
)


@dataclass
class Told:
    """All that a rig was told that could harm."""

    powers_mw: list[float] = field(default_factory=list)
    exposures_ms: list[float] = field(default_factory=list)
    on_ms: list[float] = field(default_factory=list)
    places_um: list[tuple[float, ...]] = field(default_factory=list)
    shown: list[int] = field(default_factory=list)
    loaded: int = 0

    def forget(self) -> None:
        for heard in (self.powers_mw, self.exposures_ms, self.on_ms, self.places_um, self.shown):
            heard.clear()

    def check(self) -> None:
        assert self.powers_mw
        assert all(0 < power <= POWER_MW for power in self.powers_mw)
        assert all(0 < exposure <= EXPOSURE_MS for exposure in self.exposures_ms)
        assert all(0 < on <= ON_TIME_MS for on in self.on_ms)
        assert all(math.isfinite(value) for place in self.places_um for value in place)
        assert all(abs(value) <= REACH_UM for place in self.places_um for value in place[:2] if len(place) == 2)
        assert all(abs(place[0]) <= DEPTH_UM for place in self.places_um if len(place) == 1)
        assert all(0 <= index < self.loaded for index in self.shown)


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Rig, Told]:
    """A bench with limits that writes down what it is told."""
    monkeypatch.setattr("dmu_hw.spool._RESERVE_BYTES", 100)
    path = bench_rig(tmp_path, side=SIDE).file.path
    content = yaml.safe_load(path.read_text())
    mover = {"driver": str(Path(__file__).with_name("movers.py")), "connection": "bench"}
    content["devices"] |= {"stage": mover, "focus": dict(mover)}
    path.write_text(yaml.safe_dump({**content, "limits": LIMITS}, sort_keys=False))
    rig, told = Rig(load_rig(path)), Told()

    def listen(device: Any, name: str, heard: Callable[..., None]) -> None:
        real = getattr(device, name)

        def command(*arguments: Any) -> Any:
            heard(*arguments)
            return real(*arguments)

        monkeypatch.setattr(device, name, command)

    listen(rig.light, "set_power", told.powers_mw.append)
    listen(rig.light, "on", lambda longest_ms=math.inf: told.on_ms.append(longest_ms))
    listen(rig.camera, "configure", lambda mode: told.exposures_ms.append(mode.exposure_ms))
    listen(rig.stage, "move_um", lambda x_um, y_um, _timeout: told.places_um.append((x_um, y_um)))
    listen(rig.focus, "move_um", lambda z_um, _timeout: told.places_um.append((z_um,)))
    listen(rig.dmd, "load", lambda frames: setattr(told, "loaded", len(frames)))
    listen(rig.dmd, "start", lambda order, _period: told.shown.extend(order))
    return rig, told


def run(made: tuple[Rig, Told], folder: Path, content: dict[str, Any]) -> bool:
    """Whether it was planned; then it is run, with a camera that often drops a frame."""
    rig, told = made
    told.forget()
    fixed = {
        "kind": "run",
        "name": "any",
        "rig": rig.file.path,
        "field_px": (SIDE, SIDE),
        "frame_timeout_ms": 20.0,
        "proof": {"marker": "never"},
    }
    try:
        protocol = Protocol.model_validate(fixed | content)
        stack = PatternSet.model_validate(content["patterns"]).make()
        plan = make_plan(protocol, rig.file.path, rig, rig.optics, stack)
    except (ValidationError, InputError):
        return False
    bench_of(rig).faults.dropped = {bench_of(rig).exposures + number for number in (1, 7)}
    number = sum(1 for _ in folder.iterdir())
    with spooling(folder / str(number)) as (_, spool):
        counts = Engine(plan, rig, spool).run()
    told.check()
    assert counts.received > 0
    assert max(counts.dose_mj_cm2.values()) <= min(DOSE_MJ_CM2, protocol.budget.dose_mj_cm2 or DOSE_MJ_CM2)
    return True


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(PROTOCOLS)
def test_no_command_leaves_the_limits(made: tuple[Rig, Told], tmp_path: Path, content: dict[str, Any]) -> None:
    event("ran" if run(made, tmp_path, content) else "refused")


@pytest.mark.campaign
@pytest.mark.timeout(3600)
def test_no_command_of_thousands_of_runs_leaves_the_limits(
    made: tuple[Rig, Told], tmp_path: Path, figure: Callable[..., None]
) -> None:
    ends = {True: 0, False: 0}

    @settings(max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck))
    @given(PROTOCOLS)
    def runs(content: dict[str, Any]) -> None:
        ends[run(made, tmp_path, content)] += 1

    runs()
    assert min(ends.values()) > 100
    figure(
        "R18",
        "generated protocols, run on a rig that writes down its commands",
        f"{ends[True]} run, {ends[False]} refused, 0 commands outside the limits",
        "0",
    )


def test_a_command_outside_would_be_found() -> None:
    good: dict[str, Any] = {"powers_mw": [1.0], "exposures_ms": [1.0], "on_ms": [1.0], "shown": [0], "loaded": 1}
    Told(**good, places_um=[(100.0, -100.0), (20.0,)]).check()
    beyond: list[dict[str, Any]] = [
        {"powers_mw": [1.0, 4.1]},
        {"exposures_ms": [8.1]},
        {"on_ms": [math.inf]},
        {"shown": [1]},
        {"places_um": [(0.0, 100.1)]},
        {"places_um": [(-20.1,)]},
    ]
    for bad in beyond:
        with pytest.raises(AssertionError):
            Told(**{**good, **bad}).check()

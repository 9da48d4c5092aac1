"""Protocols in several channels: their loops, what is refused, what they cost."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from colours import TWO_COLOURS
from hypothesis import given
from hypothesis import strategies as st

from dmu_hw.cli.session import Session, open_session
from dmu_hw.data import PatternStack
from dmu_hw.engine import Engine
from dmu_hw.errors import InputError
from dmu_hw.journal import Journal
from dmu_hw.loops import Loops, Stop
from dmu_hw.physics.projection import onto_mirrors
from dmu_hw.spool import Spool
from dmu_hw.upload import mirror_frames

RUN: dict[str, Any] = {
    "kind": "run",
    "name": "colours",
    "rig": "rig.yaml",
    "field_px": [32, 32],
    "channels": [
        {
            "channel": "green",
            "patterns": {"set": "hadamard", "count": 4, "camera_pixel": 4},
            "light": {"power_mw": 1.0},
            "exposure_ms": 2.0,
        },
        {
            "channel": "red",
            "patterns": {"set": "hadamard", "count": 16, "camera_pixel": 8},
            "light": {"power_mw": 3.0},
            "exposure_ms": 5.0,
        },
    ],
}
ONE = {key: value for key, value in RUN["channels"][1].items() if key != "channel"}
LONE = {key: value for key, value in RUN.items() if key != "channels"} | ONE
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, rig_yaml: Callable[..., Path]) -> Write:
    """Writes a protocol, and the small rig in two colours beside it."""

    def written(protocol: dict[str, Any], rig: dict[str, Any] | None = None, **changes: Any) -> Path:
        rig_yaml(TWO_COLOURS | (rig or {}))
        path = tmp_path / "run.yaml"
        path.write_text(yaml.safe_dump(json.loads(json.dumps(protocol | changes)), sort_keys=False))
        return path

    return written


# ---------------------------------------------------------------- loops

orders = st.sampled_from(list(permutations(("time", "field", "z", "channel"))))


@given(st.tuples(*[st.integers(1, 3)] * 4), orders, st.integers(0, 5), st.booleans())
def test_channels_are_a_loop_as_any_other(
    sizes: tuple[int, int, int, int], order: Any, bleaching: int, plain: bool
) -> None:
    times, fields, planes, count = sizes
    channels = ("green", "red", "blue")[:count]
    roles: tuple[Any, ...] = ("patterns", "plain") if plain else ("patterns",)
    loops = Loops(times, fields, planes, roles, order, bleaching, channels=channels)
    ranges = {"time": range(times), "field": range(fields), "z": range(planes), "channel": channels}
    expected: list[Stop] = []
    taken: dict[tuple[Any, Any], int] = {}
    for turns in product(*(ranges[axis] for axis in order)):
        turn = dict(zip(order, turns, strict=True))
        whose = turn["field"], turn["channel"]
        place = turn["time"], turn["field"], turn["z"]
        expected += [Stop(*place, role, turn["channel"]) for role in roles]
        if bleaching and taken.get(whose, 0) % bleaching == 0:
            expected.append(Stop(*place, "bleaching", turn["channel"]))
        taken[whose] = taken.get(whose, 0) + 1
    assert [loops.at(index) for index in range(len(loops))] == expected
    assert [loops.index(stop) for stop in expected] == list(range(len(loops)))
    assert Loops.of(loops.as_json()) == loops
    # a visit lasts as long as the stage stands
    standing = next(n for n, axis in enumerate(reversed(order)) if axis in ("time", "field"))
    inner = order[len(order) - standing :]
    visits: dict[Any, int] = {}
    for stop in expected:
        moved = {"time": stop.time, "field": stop.field, "z": stop.plane, "channel": stop.channel}
        visits.setdefault(tuple(moved[axis] for axis in order if axis not in inner), len(visits))
        assert loops.visit(stop) == len(visits) - 1
    assert loops.visits == len(visits)


@given(st.tuples(*[st.integers(1, 3)] * 3), st.sampled_from(list(permutations(("field", "z", "channel")))))
def test_a_second_round_is_in_one_channel(sizes: tuple[int, int, int], inside: Any) -> None:
    times, fields, planes = sizes
    channels, order = ("green", "red"), ("time", *inside)
    loops = Loops(times, fields, planes, ("patterns",), order, 0, ("chosen",), channels, "red")
    ranges: dict[str, Any] = {"field": range(fields), "z": range(planes), "channel": channels}
    expected = []
    for time in range(times):
        for turns in product(*(ranges[axis] for axis in inside)):
            turn = dict(zip(inside, turns, strict=True))
            expected.append(Stop(time, turn["field"], turn["z"], "patterns", turn["channel"]))
        again = [axis for axis in inside if axis != "channel"]
        for turns in product(*(ranges[axis] for axis in again)):
            turn = dict(zip(again, turns, strict=True))
            expected.append(Stop(time, turn["field"], turn["z"], "chosen", "red"))
    assert [loops.at(index) for index in range(len(loops))] == expected
    assert [loops.index(stop) for stop in expected] == list(range(len(loops)))


def test_loops_without_channels_are_written_as_ever() -> None:
    """What was written before there were any can be read, and hashes to the same."""
    assert Loops(2, 3, 1, ("patterns",)).as_json() == {
        "times": 2,
        "fields": 3,
        "planes": 1,
        "roles": ["patterns"],
        "order": ["time", "field", "z"],
        "bleaching": 0,
        "then": [],
    }


# ---------------------------------------------------------------- what is refused


def refused(path: Path) -> list[str]:
    with pytest.raises(InputError) as error:
        open_session(path)
    return [str(problem).removeprefix(f"{path.parent}/") for problem in error.value.problems]


def looks(*changes: dict[str, Any]) -> dict[str, Any]:
    """Some keys of the channels changed; `...` takes one away."""
    made = [look | change for look, change in zip(RUN["channels"], changes, strict=True)]
    return {"channels": [{key: value for key, value in look.items() if value is not ...} for look in made]}


REFUSED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "channels that the rig lacks": (
        RUN | looks({"channel": "blue"}, {"channel": "ultraviolet"}),
        [
            "run.yaml:8: channels.0.channel: rig small has no channel 'blue'; there are: green, red",
            "run.yaml:16: channels.1.channel: rig small has no channel 'ultraviolet'; there are: green, red",
        ],
    ),
    "one channel twice": (
        RUN | looks({}, {"channel": "green"}),
        ["run.yaml:7: channels: each channel should be given once"],
    ),
    "both forms at once": (
        RUN | {"exposure_ms": 2.0, "light": {"power_mw": 1.0}},
        [
            "run.yaml:25: light: each of the channels says its own: leave it out here, or leave out channels",
            "run.yaml:24: exposure_ms: each of the channels says its own: leave it out here, or leave out channels",
        ],
    ),
    "what is missing and what is too much, at once": (
        RUN | looks({"light": ...}, {"exposure_ms": ..., "gain": 3}) | {"channel": "red"},
        [
            "run.yaml:22: channel: each of the channels says its own: leave it out here, or leave out channels",
            "run.yaml:8: channels.0: key 'light' is missing",
            "run.yaml:14: channels.1: key 'exposure_ms' is missing",
            "run.yaml:21: channels.1.gain: unknown key 'gain'; allowed: channel, exposure_ms, inverse, light, patterns",
        ],
    ),
    "no channels": (RUN | {"channels": []}, ["run.yaml:7: channels: should hold one channel at least"]),
    "no word of channels on a rig that has several": (
        LONE,
        [
            (
                "run.yaml:1: rig small has several: say `channel: NAME` for one of them, or `channels` for more; "
                "there are: green, red"
            )
        ],
    ),
    "a single channel that the rig lacks": (
        LONE | {"channel": "blue"},
        ["run.yaml:14: channel: rig small has no channel 'blue'; there are: green, red"],
    ),
    "a loop over channels that there are not": (
        LONE | {"channel": "red", "order": "channel, time, field, z"},
        ["run.yaml:1: there are no channels to be a loop in the order"],
    ),
    "an order that is none": (
        RUN | {"order": "time, channel"},
        [
            (
                "run.yaml:24: order: should be 'time, field, z' in any order, and 'channel' among them where there are "
                "channels, given 'time, channel'"
            )
        ],
    ),
    "a focus in a channel that is not imaged": (
        RUN | {"focus_um": 0.0, "autofocus": {"range_um": 2.0, "step_um": 1.0, "channel": "blue"}},
        ["run.yaml:1: autofocus.channel 'blue' is none of the channels; there are: green, red"],
    ),
    "power and exposure, each by its own light": (
        RUN | looks({"light": {"power_mw": 30.0}}, {"light": {"power_mw": 30.0}, "exposure_ms": 20_000.0}),
        [
            "run.yaml:14: channels.0.light.power_mw: rig small allows 20 mW, given 30",
            "run.yaml:23: channels.1.exposure_ms: rig small allows 10000 ms, given 20000",
            "run.yaml:23: channels.1.exposure_ms: the light is on for 320005 ms, rig small allows 60000 ms in one go",
        ],
    ),
    "an inverse that is none, by its place": (
        RUN | looks({}, {"inverse": {"model": "rigde"}}),
        [],
    ),
    "references that one channel cannot have": (
        RUN | looks({}, {"exposure_ms": 3000.0}) | {"references": {"plain": True}},
        ["run.yaml:25: references.plain: channel red: one frame of the same dose is exposed too long"],
    ),
    "who cannot choose": (
        RUN | {"adaptive": {"by": "cells", "channel": "red"}, "then": {"patterns": ONE["patterns"]}},
        ["run.yaml:24: adaptive: needs reconstructions to choose by: patterns from a bundle, or an inverse"],
    ),
}


@pytest.mark.parametrize(("protocol", "said"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_is_refused_at_its_place(write: Write, protocol: dict[str, Any], said: list[str]) -> None:
    told = refused(write(protocol, {"devices.light.max_power_mw": 20.0, "devices.light_561.max_power_mw": 40.0}))
    if said:
        assert len(told) == len(said)
        assert [one[: len(other)] for one, other in zip(told, said, strict=True)] == said
    else:
        assert len(told) == 1
        assert "channels.1.inverse.model: " in told[0]
        assert "rigde" in told[0]


def test_the_memory_of_the_dmd_holds_all_channels_or_none(write: Write) -> None:
    assert refused(write(RUN, {"devices.dmd.memory_frames": 19})) == [
        "run.yaml:7: channels: the DMD holds 19 frames, needed are 20"
    ]


def test_a_bundle_is_held_against_the_optics_of_its_channel(write: Write, tmp_path: Path) -> None:
    """Of two channels with the same bundle, the one that it was made for takes it."""
    inverse = {"model": "ridge", "specimen": {"kind": "nuclei", "seed": 5}, "scenes": 2, "reach": 0}
    session = open_session(write(RUN | looks({"inverse": inverse}, {})))
    kit = session.kits["green"]
    kit.fitted(session.path, kit.stack, 2.0).save(tmp_path / "green.dmu")
    bundle = {"patterns": {"bundle": "green.dmu"}}
    told = refused(write(RUN | looks(bundle, bundle)))
    assert len(told) == 1
    assert "channels.1.patterns.bundle: emission width_um: the bundle assumes" in told[0]


# ---------------------------------------------------------------- what is planned, and what it costs


def plan_of(write: Write, rig: dict[str, Any] | None = None, **changes: Any) -> Session:
    return open_session(write(RUN, rig, **changes))


def test_patterns_of_all_channels_lie_side_by_side(write: Write) -> None:
    plan = plan_of(write, references={"plain": True}, proof={"marker": "always"}).plan
    places = {name: {role: take.memory for role, take in plan.of(name).takes.items()} for name in ("green", "red")}
    assert places["green"] == {"patterns": (0, 1, 2, 3, 5), "plain": (4,)}
    assert places["red"] == {"patterns": (*range(6, 22), 23), "plain": (22,)}
    assert {take.light for take in plan.of("red").all_takes} == {"light_561"}
    with pytest.raises(ValueError, match="several channels, green, red"):
        _ = plan.takes


def test_the_memory_holds_what_each_take_shows(write: Write) -> None:
    """Patterns, uniform light, markers: every place of either channel, as its optics put it on the mirrors."""
    plan = plan_of(
        write, references={"plain": True, "bleaching": 1}, time={"loops": 2}, proof={"marker": "always"}
    ).plan
    frames = mirror_frames(plan)
    assert len(frames) == 24
    for take in plan.all_takes:
        shown = list(take.stack.masks) + ([] if take.marker is None else [take.marker.mask()])
        optics = plan.parts[take.channel].channel.optics
        for place, mask in zip(take.memory, shown, strict=True):
            stack = PatternStack("one", mask[None], take.stack.camera_pixel)
            assert np.array_equal(frames[place], onto_mirrors(stack, optics, plan.corner_um)[0])


def test_a_rig_with_one_channel_needs_no_word_of_it(write: Write) -> None:
    plan = open_session(write(LONE, {"channels": {"red": TWO_COLOURS["channels"]["red"]}})).plan
    assert plan.takes["patterns"].light == "light_561"


def test_one_channel_of_a_rig_is_a_run_as_any_other(write: Write) -> None:
    plan = open_session(write(LONE, channel="red")).plan
    assert list(plan.parts) == [""]
    assert (plan.takes["patterns"].light, plan.takes["patterns"].channel) == ("light_561", "")
    assert plan.part.channel.filters == {"filter": "RFP"}
    assert plan.optics.dye.photons_per_um2_mw_ms == 50.0
    assert plan.price.channel_dose_mj_cm2 == {}


@pytest.mark.parametrize(("channel", "light"), [(None, "light"), ("red", "light_561")])
def test_the_focus_is_found_in_one_channel(write: Write, channel: str | None, light: str) -> None:
    focus = {"range_um": 2.0, "step_um": 1.0, "channel": channel}
    bare, found = plan_of(write, focus_um=0.0).plan, plan_of(write, focus_um=0.0, autofocus=focus).plan
    take = found.focus_take
    assert take is not None
    assert take.light == light
    name = channel or "green"
    more = {key: found.price.channel_dose_mj_cm2[key] - bare.price.channel_dose_mj_cm2[key] for key in found.parts}
    assert more == {key: pytest.approx(3 * take.dose_mj_cm2 if key == name else 0.0) for key in found.parts}
    assert set(take.memory) <= set(found.of(name).takes["patterns"].memory)


PLACES: dict[str, Any] = {
    "time": {"loops": 2},
    "grid": {"rows": 1, "columns": 2},
    "focus_um": 5.0,
    "z": {"range_um": 20.0, "step_um": 10.0},
}
ORDERS = [
    "time, field, z",
    "time, field, channel, z",
    "channel, time, field, z",
    "time, channel, z, field",
    "z, channel, field, time",
    "field, z, channel, time",
]


@pytest.mark.parametrize(("order", "focus"), [*((order, None) for order in ORDERS), (ORDERS[0], "red")])
def test_the_price_is_what_the_run_takes(write: Write, tmp_path: Path, order: str, focus: str | None) -> None:
    """Ways, filters, shutter and light; only where the wheel stands at first nobody knows: it is taken to be far."""
    more: dict[str, Any] = {"references": {"plain": True}}
    if focus:
        more["autofocus"] = {"range_um": 2.0, "step_um": 1.0, "channel": focus}
    session = plan_of(write, {"devices.filter.switch_ms": 40.0}, order=order, **more, **PLACES)
    plan, rig = session.plan, session.rig
    with rig.opened():
        journal = Journal(tmp_path / "journal.jsonl")
        spool = Spool(tmp_path / "spool", journal)
        began_ms = rig.clock.now_ms()
        counts = Engine(plan, rig, spool).run()
        time_s = (rig.clock.now_ms() - began_ms) / 1e3
        spool.close()
        journal.close()
    assert counts.saved == plan.price.frames == sum(plan.take_of(shot).stack.count for shot in plan.shots)
    assert counts.dose_mj_cm2 == {n: pytest.approx(plan.price.dose_per_field_mj_cm2) for n in range(2)}
    assert counts.light_on_ms == pytest.approx(1e3 * plan.price.light_on_s)
    first_s = 0.04 if focus is None else 0.0  # a search in red before all else turns the wheel there and back
    assert time_s == pytest.approx(plan.price.time_s - first_s, abs=2e-3 * (len(plan.shots) + plan.price.focus_bursts))


def test_turning_the_wheel_less_often_takes_less_time(write: Write) -> None:
    prices = [
        plan_of(write, {"devices.filter.switch_ms": 1000.0}, order=order, **PLACES).plan.price for order in ORDERS
    ]
    times = [price.time_s for price in prices]
    # turns: at each of 12 places, of 4 stacks, once, of 2 time points, of 3 planes, of 6 places
    turns = [23, 7, 1, 3, 5, 11]
    for time_s, count in zip(times, turns, strict=True):
        assert time_s - count == pytest.approx(times[2] - 1, abs=0.5)

"""What an exposure gathers is read off a history that forgets what nobody will ask for."""

from __future__ import annotations

import numpy as np
import pytest

from dmu_hw.drivers.simulated.history import DARK, History, Light, MirrorFrame, Timeline

HERE, THERE = (0.0, 0.0, 0.0), (5.0, 6.0, 7.0)
ONE, TWO = (MirrorFrame(key, np.zeros((1, 1), dtype=bool)) for key in "ab")


def test_a_state_stands_until_the_next_and_replaces_what_was_planned() -> None:
    line = Timeline("a")
    line.set(10.0, "b")
    line.set(20.0, "c")
    assert [line.at(t) for t in (-5.0, 9.9, 10.0, 19.9, 20.0, 99.0)] == ["a", "a", "b", "b", "c", "c"]
    assert line.changes(10.0, 20.0) == []
    assert line.changes(9.0, 21.0) == [10.0, 20.0]
    line.set(15.0, "d")
    assert line.at(99.0) == "d"
    line.set(15.0, "e")
    assert line.changes(0.0, 99.0) == [10.0, 15.0]
    assert line.at(15.0) == "e"


def test_forgetting_changes_nothing_later() -> None:
    line = Timeline(0)
    for step in range(1, 1000):
        line.set(float(step), step)
        line.forget_before(step - 2.5)
        assert len(line._times_ms) <= 5
        assert [line.at(step - back) for back in (0, 1, 2)] == [max(0, step - back) for back in (0, 1, 2)]


def test_light_is_power_and_mirrors_and_place_over_time() -> None:
    history = History()
    history.power_mw["light"].set(10.0, 2.0)
    history.mirrors.set(20.0, ((ONE, 1.0),))
    history.mirrors.set(30.0, ((ONE, 0.5), (TWO, 0.5)))
    history.place_um.set(35.0, THERE)
    history.mirrors.set(40.0, DARK)
    history.power_mw["light"].set(50.0, 0.0)
    got = {(light.frame, light.place_um): light.duration_ms for light in history.light(0.0, 100.0)}
    assert got == {
        (None, HERE): 10.0,
        (ONE, HERE): 10.0 + 2.5,
        (TWO, HERE): 2.5,
        (ONE, THERE): 2.5,
        (TWO, THERE): 2.5,
        (None, THERE): 10.0,
    }
    history.forget_before(32.0)
    assert history.light(32.0, 35.0) == [Light(ONE, 2.0, HERE, 1.5), Light(TWO, 2.0, HERE, 1.5)]


def test_the_same_frame_loaded_again_is_the_same() -> None:
    again = MirrorFrame("a", np.ones((1, 1), dtype=bool))
    history = History()
    history.power_mw["light"].set(0.0, 1.0)
    history.mirrors.set(0.0, ((ONE, 0.5), (again, 0.5)))
    assert [light.duration_ms for light in history.light(0.0, 8.0)] == pytest.approx([8.0])

"""Reconstruction beside a run: nothing is lost uncounted, and nothing that goes wrong in it goes further."""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from lanes import Shot, Sluggish, bundle, burst, lane, window

from dmu_hw import live as module
from dmu_hw import patience
from dmu_hw.live import Live, Outcome
from dmu_hw.pursuit import Pursuit
from dmu_hw.reconstruct import Reconstructor

KIND = ("", "patterns")


def live_with(mine: Any, **settings: Any) -> Live:
    return Live(Pursuit(**settings), lambda: {KIND: mine}, [KIND])


@pytest.fixture(autouse=True)
def torch_as_it_was() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    yield
    assert torch.get_num_threads() == before


def test_everybody_is_told_what_reconstruction_makes_of_each_burst() -> None:
    heard: list[Outcome] = []
    names = set()
    with live_with(lane()) as live:
        live.listen(heard.append)
        live.listen(lambda _: names.add(threading.current_thread().name))
        for index in range(6):
            live.put(Shot(index, position=index), burst(index))
    alone = Reconstructor(bundle(), window())
    assert [outcome.shot.index for outcome in heard] == list(range(6))
    assert names == {"live"}
    for outcome in heard:
        frames = burst(outcome.shot.index).stack()
        assert np.array_equal(outcome.frames, frames)
        np.testing.assert_allclose(outcome.estimate.image, alone.estimate(frames).image, atol=1e-5)
        assert outcome.latency_ms > 0
    told = live.told()
    assert (told["bursts"], told["made"], told["dropped"], told["failed"]) == (6, 6, 0, 0)
    assert told["latency_ms"]["worst"] == max(outcome.latency_ms for outcome in heard)
    json.dumps(told, allow_nan=False)


def test_the_newest_win_and_the_engine_never_waits() -> None:
    mine, heard = Sluggish(), []
    with live_with(mine, depth=3) as live:
        live.listen(lambda outcome: heard.append(outcome.shot.index))
        live.put(Shot(0), burst(0))
        assert mine.began.wait(5.0)
        began_s = time.monotonic()
        for index in range(1, 9):
            live.put(Shot(index), burst(index))
        assert time.monotonic() - began_s < 1.0
        mine.gate.set()
    assert heard == [0, 6, 7, 8]
    assert (live.counts.bursts, live.counts.made, live.counts.dropped) == (9, 4, 5)


def test_where_every_burst_counts_the_engine_waits_and_nothing_is_dropped() -> None:
    mine = Sluggish()
    with live_with(mine, depth=2, policy="every") as live:
        heeded = []
        opening = threading.Timer(0.3, mine.gate.set)
        opening.start()
        for index in range(8):
            live.put(Shot(index), burst(index), lambda: heeded.append(1))
    assert (live.counts.made, live.counts.dropped) == (8, 0)
    assert heeded, "who waits can be stopped"


def test_what_has_piled_up_is_made_together() -> None:
    mine, heard = Sluggish(batch=4), []
    with live_with(mine, depth=16) as live:
        live.listen(lambda outcome: heard.append(outcome.shot.index))
        live.put(Shot(0), burst(0))
        assert mine.began.wait(5.0)
        for index in range(1, 8):
            live.put(Shot(index), burst(index))
        mine.gate.set()
    assert mine.sizes == [1, 4, 3]
    assert heard == list(range(8))


def test_channels_and_roles_have_windows_of_their_own() -> None:
    kinds = {("red", "patterns"): (0.0, 0.0), ("green", "patterns"): (9.0, -4.0), ("green", "chosen"): (0.0, 7.0)}
    live = Live(Pursuit(depth=20), lambda: {kind: lane(centre_um=at) for kind, at in kinds.items()}, list(kinds))
    heard: list[Outcome] = []
    live.listen(heard.append)
    order = [*kinds, *reversed(kinds)]
    with live:
        for index, (channel, role) in enumerate(order):
            live.put(Shot(index, role, channel), burst(1))
        live.put(Shot(99, "plain", "red"), burst(1))
    assert [(outcome.channel, outcome.shot.role) for outcome in heard] == order
    for outcome, kind in zip(heard, order, strict=True):
        wanted = Reconstructor(bundle(), window(kinds[kind])).estimate(burst(1).stack()).image
        np.testing.assert_allclose(outcome.estimate.image, wanted, atol=1e-5)
    assert live.counts.bursts == 6, "there is no inverse for plain frames"


def test_a_burst_that_lacks_frames_is_counted_and_not_made() -> None:
    with live_with(lane()) as live:
        live.put(Shot(0), burst(0, missing=1))
        live.put(Shot(1), burst(1))
    assert (live.counts.bursts, live.counts.made, live.counts.incomplete) == (2, 1, 1)


# ---------------------------------------------------------------- what goes wrong


def test_an_inverse_that_fails_at_one_burst_makes_the_others(caplog: pytest.LogCaptureFixture) -> None:
    mine, heard = Sluggish(poison=2), []
    mine.gate.set()
    with caplog.at_level(logging.WARNING), live_with(mine, policy="every") as live:
        live.listen(lambda outcome: heard.append(outcome.shot.index))
        for index in (0, 1, 2, 3, 2):
            live.put(Shot(index), burst(index))
    assert heard == [0, 1, 3]
    assert live.counts.failed == 2
    assert live.counts.reasons == {"ArithmeticError: poison": 2}
    assert caplog.text.count("poison") == 1, "said once"


def test_without_an_inverse_the_run_goes_on() -> None:
    def none() -> Any:
        raise MemoryError("no room on the device")

    with Live(Pursuit(policy="every", depth=1), none, [KIND]) as live:
        for index in range(5):
            live.put(Shot(index), burst(index))
    assert (live.counts.bursts, live.counts.made, live.counts.failed) == (5, 0, 5)
    assert list(live.told()["reasons"]) == ["MemoryError: no room on the device"]


def test_a_listener_that_fails_harms_nobody() -> None:
    heard = []

    def deaf(_: Outcome) -> None:
        raise KeyError("nobody looks")

    with live_with(lane()) as live:
        live.listen(deaf)
        live.listen(heard.append)
        for index in range(3):
            live.put(Shot(index), burst(index))
    assert len(heard) == live.counts.made == live.counts.deaf == 3


def test_a_failure_of_the_run_is_not_kept_waiting() -> None:
    mine = Sluggish()
    live = live_with(mine)
    began_s = time.monotonic()

    def run() -> None:
        with live:
            for index in range(4):
                live.put(Shot(index), burst(index))
            raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError, match="the disk is full"):
        run()
    assert time.monotonic() - began_s < 3.0
    mine.gate.set()
    live._thread.join(5.0)
    assert live.counts.made <= 1, "what waits is not made any more"


def test_an_inverse_that_hangs_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "STALLED_S", 0.3)
    mine = Sluggish()
    began_s = time.monotonic()
    with live_with(mine) as live:
        live.put(Shot(0), burst(0))
        live.put(Shot(1), burst(1))
        assert mine.began.wait(5.0)
    assert time.monotonic() - began_s < 3.0
    told = live.told()
    assert (told["bursts"], told["made"], told["dropped"], told["failed"]) == (2, 0, 1, 1)
    assert told["reasons"] == {"the inverse hangs": 1}
    mine.gate.set()
    live._thread.join(5.0)


def test_a_budget_is_judged() -> None:
    mine = Sluggish()
    with live_with(mine, budget_ms=50.0) as live:
        live.put(Shot(0), burst(0))
        time.sleep(0.1)
        mine.gate.set()
    assert (live.told()["budget_kept"], live.told()["late"]) == (False, 1)


def test_where_the_newest_win_the_instrument_is_not_held_for_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LAST_S", 0.2)
    mine = Sluggish()
    with live_with(mine, depth=8) as live:
        for index in range(6):
            live.put(Shot(index), burst(index))
        opening = threading.Timer(0.6, mine.gate.set)
        opening.start()
    assert live.counts.made == 1
    assert live.counts.dropped == 5


def test_the_histogram_is_told() -> None:
    with live_with(lane()) as live:
        for index in range(5):
            live.put(Shot(index), burst(index))
    bars = live.told()["latencies"]
    assert sum(count for _, count in bars) == 5
    assert [most_ms for most_ms, _ in bars] == sorted(most_ms for most_ms, _ in bars)

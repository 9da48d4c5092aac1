"""The queue between the engine and the inverse: what goes when it is full, and who waits."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmu_hw import patience
from dmu_hw.control import Aborted
from dmu_hw.waiting import Waiting


def taken(waiting: Waiting[int], most: int = 1) -> list[int]:
    return waiting.take(lambda _: most, patient=False)


@given(st.lists(st.integers(1, 60), max_size=40), st.integers(1, 6), st.integers(20, 100))
def test_the_newest_stay_in_their_order(sizes: list[int], depth: int, most_bytes: int) -> None:
    waiting: Waiting[int] = Waiting(depth, newest=True, most_bytes=most_bytes)
    for number, size in enumerate(sizes):
        waiting.put(number, "kind", size)
        held = sizes[number + 1 - len(waiting) : number + 1]
        assert len(held) <= depth
        assert sum(held) <= most_bytes or len(held) == 1, "one may always wait, however large it is"
    kept = len(waiting)
    left = [taken(waiting)[0] for _ in range(kept)]
    assert left == list(range(len(sizes) - kept, len(sizes)))
    assert waiting.dropped + kept == len(sizes)


@given(st.lists(st.sampled_from("ab"), max_size=30), st.integers(1, 5))
def test_what_is_taken_together_is_of_one_kind_and_in_order(kinds: list[str], most: int) -> None:
    waiting: Waiting[int] = Waiting(100, newest=True)
    for number, kind in enumerate(kinds):
        waiting.put(number, kind, 1)
    groups = []
    while len(waiting):
        groups.append(taken(waiting, most))
    assert [number for group in groups for number in group] == list(range(len(kinds)))
    for group in groups:
        assert 1 <= len(group) <= most
        assert len({kinds[number] for number in group}) == 1


def test_who_drops_nothing_waits_for_room() -> None:
    waiting: Waiting[int] = Waiting(1, newest=False)
    waiting.put(0, "kind", 1)
    second = threading.Thread(target=waiting.put, args=(1, "kind", 1))
    second.start()
    time.sleep(0.1)
    assert len(waiting) == 1, "there is no room yet"
    assert taken(waiting) == [0]
    second.join(2.0)
    assert taken(waiting) == [1]
    assert waiting.dropped == 0


def test_who_waits_for_room_can_be_stopped() -> None:
    waiting: Waiting[int] = Waiting(1, newest=False)
    waiting.put(0, "kind", 1)

    def stop() -> None:
        raise Aborted("enough")

    with pytest.raises(Aborted):
        waiting.put(1, "kind", 1, stop)
    assert taken(waiting) == [0]


def test_nobody_waits_for_ever_behind_an_inverse_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "STALLED_S", 0.2)
    waiting: Waiting[int] = Waiting(1, newest=False)
    waiting.put(0, "kind", 1)
    began_s = time.monotonic()
    waiting.put(1, "kind", 1)
    waiting.put(2, "kind", 1)
    assert time.monotonic() - began_s < 1.0
    assert waiting.dropped == 2


def test_the_end_wakes_who_waits() -> None:
    full: Waiting[int] = Waiting(1, newest=False)
    full.put(0, "kind", 1)
    putting = threading.Thread(target=full.put, args=(1, "kind", 1))
    putting.start()
    full.end(discard=True)
    putting.join(2.0)
    assert not putting.is_alive()
    assert (len(full), full.dropped) == (0, 2)

    empty: Waiting[int] = Waiting(1, newest=True)
    ending = threading.Timer(0.05, lambda: empty.end(discard=False))
    ending.start()
    assert empty.take(lambda _: 1, patient=True) == []


def test_what_waits_at_the_end_may_still_be_taken() -> None:
    waiting: Waiting[int] = Waiting(4, newest=True)
    waiting.put(0, "kind", 1)
    waiting.end(discard=False)
    waiting.put(1, "kind", 1)
    assert waiting.take(lambda _: 4, patient=True) == [0]
    assert waiting.take(lambda _: 4, patient=True) == []
    assert waiting.dropped == 1

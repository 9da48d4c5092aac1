"""The newest of each kind, for viewers fast and slow."""

from __future__ import annotations

import threading
import time

import numpy as np

from dmu_hw.view.board import Board, Seen
from dmu_hw.view.wire import unpacked


def had(board: Board, seen: Seen, now_s: float = 0.0) -> list[str]:
    """All that a viewer is shown until he has seen all."""
    kinds = []
    while (post := board.next(seen, now_s)) is not None:
        kinds.append(post.kind)
        seen.note(post, now_s)
    return kinds


def test_a_viewer_sees_the_newest_of_each_kind_in_the_order_in_which_it_came() -> None:
    board, seen = Board(), Seen()
    for kind in ("a", "b", "a", "c"):
        board.tell(kind, {})
    assert had(board, seen) == ["b", "a", "c"]
    assert had(board, seen) == []
    board.tell("b", {})
    assert had(board, seen) == ["b"]
    assert had(board, Seen()) == ["a", "c", "b"], "who comes later sees it all"


def test_what_came_while_he_was_busy_is_what_he_gets() -> None:
    board, seen = Board(), Seen()
    board.tell("a", {"value": 1})
    board.tell("b", {})
    first = board.next(seen, 0.0)
    assert first is not None
    board.tell("b", {"value": 2})  # while the first is on its way
    seen.note(first, 0.0)
    second = board.next(seen, 0.0)
    assert second is not None
    assert unpacked(second.encoded())[0]["value"] == 2


def test_large_things_come_not_more_often_than_they_should() -> None:
    board, seen = Board(), Seen()
    for now_s in (10.0, 10.5, 11.0):
        board.put("image", lambda: ({}, None), every_s=1.0)
        board.tell("state", {})
        expected = ["state"] if now_s == 10.5 else ["image", "state"]
        assert had(board, seen, now_s) == expected


def test_nothing_is_made_until_somebody_looks_and_then_once() -> None:
    board, made = Board(), []
    board.put("image", lambda: (made.append(1), ({"n": 1}, np.zeros(4, np.uint8)))[1])
    assert not made
    for _ in range(3):
        post = board.next(Seen(), 0.0)
        assert post is not None
        header, pixels = unpacked(post.encoded())
        assert (header["kind"], header["n"], pixels.tolist()) == ("image", 1, [0] * 4)
    assert made == [1]


def test_messages_are_kept_but_not_all() -> None:
    board = Board()
    for number in range(70):
        board.say(f"line {number}", "caution")
    post = board.next(Seen(), 0.0)
    assert post is not None
    lines = unpacked(post.encoded())[0]["lines"]
    assert [line["text"] for line in lines] == [f"line {number}" for number in range(20, 70)]
    assert {line["level"] for line in lines} == {"caution"}


def test_putting_costs_the_same_however_many_look() -> None:
    """Nobody is woken: whoever puts never waits for who looks."""
    board, ended = Board(), threading.Event()
    board.put("slow", lambda: (time.sleep(30), ({}, None))[1])
    slow = board.next(Seen(), 0.0)
    assert slow is not None
    viewer = threading.Thread(target=lambda: (ended.wait(10), None), daemon=True)
    viewer.start()
    began_s = time.perf_counter()
    for number in range(2000):
        board.tell("state", {"number": number})
    each_us = (time.perf_counter() - began_s) / 2000 * 1e6
    ended.set()
    assert each_us < 500, "some 2 µs on an idle machine"

"""Every line carries its checksum: a cut end is dropped, any other damage is found."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dmu_hw.errors import RunError
from dmu_hw.journal import Journal, crc32c, read_journal

LINES = 6


def written(path: Path, count: int = LINES) -> bytes:
    journal = Journal(path)
    for number in range(count):
        journal.add("line", number=number, text='crc32c":"x')
    journal.close()
    return path.read_bytes()


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    path = tmp_path_factory.mktemp("journal") / "journal.jsonl"
    return path, written(path)


def test_checksum_is_crc32c() -> None:
    assert crc32c(b"123456789") == "e3069283"  # the check value of the Castagnoli polynomial


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(fields=st.dictionaries(st.from_regex(r"\A[a-z_]{1,8}\Z").filter(lambda key: key != "kind"), json_values))
@settings(max_examples=60, deadline=None)
def test_fields_come_back(fields: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("fields") / "journal.jsonl"
    journal = Journal(path)
    journal.add("any", **fields)
    journal.add("end")
    journal.close()
    first, last = read_journal(path)
    assert {key: value for key, value in first.items() if key not in {"kind", "crc32c"}} == fields
    assert first["kind"] == "any"
    assert last["kind"] == "end"


def test_numbers_that_are_none_are_refused(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    with pytest.raises(ValueError, match="JSON"):
        journal.add("frame", time_ms=float("nan"))
    journal.add("frame", time_ms=1.0)
    journal.close()
    assert [line["time_ms"] for line in read_journal(tmp_path / "journal.jsonl")] == [1.0]


@given(cut=st.integers(min_value=0, max_value=10_000))
@settings(max_examples=80, deadline=None)
def test_a_line_cut_at_the_end_is_dropped(cut: int, sound: tuple[Path, bytes]) -> None:
    path, content = sound
    cut %= len(content) + 1
    torn = path.with_name("torn")
    torn.write_bytes(content[:cut])
    assert [line["number"] for line in read_journal(torn)] == list(range(content[:cut].count(b"\n")))


@given(place=st.integers(min_value=0, max_value=10_000), flip=st.integers(min_value=1, max_value=255))
@settings(max_examples=300, deadline=None)
def test_any_changed_byte_before_the_last_line_is_found(place: int, flip: int, sound: tuple[Path, bytes]) -> None:
    path, content = sound
    place %= content.rindex(b"\n", 0, -1) + 1
    damaged = bytearray(content)
    damaged[place] ^= flip
    other = path.with_name("damaged")
    other.write_bytes(damaged)
    number = content.count(b"\n", 0, place) + 1
    with pytest.raises(RunError, match=f"damaged:{number}: line is damaged"):
        list(read_journal(other))


@given(place=st.integers(min_value=0, max_value=10_000), flip=st.integers(min_value=1, max_value=255))
@settings(max_examples=100, deadline=None)
def test_any_changed_byte_is_found_where_the_last_line_was_whole(
    place: int, flip: int, sound: tuple[Path, bytes]
) -> None:
    """In a last line too: only a line break that is gone at once with others could pass for a cut."""
    path, content = sound
    start = content.rindex(b"\n", 0, -1) + 1
    place = start + place % (len(content) - start)
    damaged = bytearray(content)
    damaged[place] ^= flip
    other = path.with_name("damaged-end")
    other.write_bytes(damaged)
    with pytest.raises(RunError, match="line is damaged"):
        list(read_journal(other))


def test_a_lost_line_break_before_a_cut_end_is_found(sound: tuple[Path, bytes]) -> None:
    """Two lines joined, the second cut: neither may be dropped as if one line had been cut."""
    path, content = sound
    joint = content.rindex(b"\n", 0, -1)
    other = path.with_name("joined")
    other.write_bytes(content[:joint] + b"x" + content[joint + 1 : joint + 12])
    with pytest.raises(RunError, match=f"joined:{LINES - 1}: line is damaged"):
        list(read_journal(other))


def test_adds_of_two_threads_do_not_mix(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    barrier = threading.Barrier(4)

    def write(thread: int) -> None:
        barrier.wait()
        for number in range(500):
            journal.add("line", thread=thread, number=number, filler="x" * (number % 300))
            if number % 100 == 0:
                journal.sync()

    threads = [threading.Thread(target=write, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    journal.close()
    lines = list(read_journal(tmp_path / "journal.jsonl"))
    assert len(lines) == 2000
    for thread in range(4):
        assert [line["number"] for line in lines if line["thread"] == thread] == list(range(500))


def test_a_journal_goes_on_where_it_ended(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    written(path, 2)
    journal = Journal(path)
    journal.add("line", number=2)
    journal.close()
    journal.close()
    assert [line["number"] for line in read_journal(path)] == [0, 1, 2]


def test_a_ctrl_c_on_the_way_in_leaves_no_lock_behind(tmp_path: Path) -> None:
    """It may come at any step; the writer in its own thread must get on, or the run never ends."""
    journal = Journal(tmp_path / "journal.jsonl")

    def interrupt(frame: FrameType, event: str, _value: object) -> Any:
        if event == "return" and frame.f_code.co_name == "__enter__":
            sys.settrace(None)
            raise KeyboardInterrupt
        return interrupt

    def interrupted() -> None:
        sys.settrace(interrupt)
        journal.add("interrupted")

    try:
        with pytest.raises(KeyboardInterrupt) as kept:
            interrupted()
    finally:
        sys.settrace(None)
    writer = threading.Thread(target=journal.add, args=("another",), daemon=True)
    writer.start()
    writer.join(5)
    assert not writer.is_alive(), f"still waits after {kept.type.__name__}"
    journal.close()

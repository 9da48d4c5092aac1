"""When frames were taken, whatever clock their tags count by."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmu_hw.drivers.micromanager.settings import StampSettings
from dmu_hw.drivers.micromanager.stamps import Stamps


def tags(elapsed: float | None = None, received: str = "2026-03-29 02:59:59.990") -> dict[str, str]:
    return {"TimeReceivedByCore": received} | ({} if elapsed is None else {"ElapsedTime-ms": f"{elapsed:.3f}"})


def came(stamps: Stamps, at_ms: float) -> None:
    """The next frame comes at that time."""
    stamps._arrived_ms = lambda _: at_ms  # type: ignore[method-assign]


def test_a_clock_that_runs_since_arming() -> None:
    stamps = Stamps(StampSettings(tells="start"), 1000.0, 1003.0)
    came(stamps, 1020.0)
    assert stamps.began_ms(tags(4.0), 6.0) == 1007.0
    came(stamps, 1030.0)
    assert stamps.began_ms(tags(14.25), 6.0) == 1017.25


def test_a_clock_of_its_own_is_taken_for_what_the_first_frame_allows() -> None:
    """It began a day ago, or with the first frame: exposures neither begin before arming nor end after they came."""
    for first in (86_400_000.0, -5000.0, 0.0):
        stamps = Stamps(StampSettings(), 1000.0, 1003.0)
        came(stamps, 1020.0)
        began_ms = stamps.began_ms(tags(first), 6.0)
        assert 1000.0 <= began_ms <= 1014.0
        came(stamps, 1032.5)
        assert stamps.began_ms(tags(first + 12.5), 6.0) - began_ms == pytest.approx(12.5)


def test_a_program_that_was_kept_from_its_clock_sees_that_by_a_frame() -> None:
    """It looked 50 ms after it had armed, and the first frame was late as well: the second was not."""
    stamps = Stamps(StampSettings(tells="start"), 1000.0, 1050.0)
    came(stamps, 1060.0)
    assert stamps.began_ms(tags(0.0), 6.0) == 1050.0
    came(stamps, 1018.0)
    assert stamps.began_ms(tags(12.0), 6.0) == 1012.0


def test_whole_milliseconds_are_not_fine_enough() -> None:
    """MMCore's own; then the moment of arrival is better, also over midnight."""
    stamps = Stamps(StampSettings(), 0.0, 0.0)
    said = [
        {"ElapsedTime-ms": "3", "TimeReceivedByCore": "2026-11-21 23:59:59.998200"},
        {"ElapsedTime-ms": "5", "TimeReceivedByCore": "2026-11-22 00:00:00.000700"},
    ]
    first, second = (stamps.began_ms(one, 1.0) for one in said)
    assert second - first == pytest.approx(2.5, abs=1e-3)


def test_another_tag_in_another_unit() -> None:
    stamps = Stamps(StampSettings(tag="Stamp", unit_ms=1e-3, tells="start"), 0.0, 0.0)
    first, second = (stamps.began_ms({"Stamp": value}, 1.0) for value in ("7000", "9500"))
    assert second - first == pytest.approx(2.5)
    with pytest.raises(ValueError, match="Stamp"):
        stamps.began_ms({}, 1.0)


@given(
    asked=st.floats(0, 1e6),
    call=st.floats(0, 100),
    taken=st.floats(0.1, 1000),
    wait=st.floats(0, 1000),
    zero=st.floats(-1e6, 1e6),
    steps=st.lists(st.floats(0.1, 100), max_size=5),
)
def test_a_first_exposure_lies_between_arming_and_arrival(
    asked: float, call: float, taken: float, wait: float, zero: float, steps: list[float]
) -> None:
    """Whatever its clock says; and intervals are those of its clock."""
    stamps = Stamps(StampSettings(tells="start", tag="T"), asked, asked + call)
    arrival = asked + call + wait + taken
    came(stamps, arrival)
    began = stamps.began_ms({"T": repr(zero)}, taken)
    assert asked - 1e-3 <= began <= arrival - taken + 1e-3
    at = zero
    for step in steps:
        at += step
        came(stamps, arrival + at - zero)
        assert stamps.began_ms({"T": repr(at)}, taken) - began == pytest.approx(at - zero, abs=1e-3)

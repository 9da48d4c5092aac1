"""The histogram of latencies against the latencies themselves."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmu_hw.latency import Latencies

DURATIONS = st.lists(st.floats(0.02, 1e6), min_size=1, max_size=200)


def of(durations: list[float], budget_ms: float | None = None) -> Latencies:
    latencies = Latencies(budget_ms)
    for duration in durations:
        latencies.add(duration)
    return latencies


@given(DURATIONS, st.floats(0.01, 1.0))
def test_a_quantile_is_never_too_short_and_hardly_too_long(durations: list[float], part: float) -> None:
    true = float(np.quantile(durations, part, method="inverted_cdf"))
    told = of(durations).quantile_ms(part)
    assert told is not None
    assert true * (1 - 1e-9) <= told <= true * 1.02 * (1 + 1e-9)


@given(DURATIONS)
def test_no_quantile_is_beyond_the_worst(durations: list[float]) -> None:
    latencies = of(durations)
    assert latencies.quantile_ms(1.0) == latencies.worst_ms == max(durations)


@given(DURATIONS, st.floats(0.1, 1e5))
def test_a_budget_is_kept_by_99_of_100(durations: list[float], budget_ms: float) -> None:
    latencies = of(durations, budget_ms)
    late = sum(duration > budget_ms for duration in durations)
    assert latencies.late == late
    assert latencies.kept == (late <= len(durations) / 100)


def test_one_late_one_of_a_hundred_is_forgiven_and_a_second_is_not() -> None:
    latencies = of([10.0] * 99 + [100.0], 50.0)
    assert latencies.kept
    latencies.add(100.0)
    assert not latencies.kept


def test_nothing_is_judged_where_there_is_nothing() -> None:
    latencies = Latencies(50.0)
    assert latencies.kept is None
    assert of([1.0]).kept is None, "nobody asked for anything"
    assert json.loads(json.dumps(latencies.as_json())) == {"p50": None, "p90": None, "p99": None, "worst": None}


@pytest.mark.parametrize("duration_ms", [0.0, 1e-9, 1e12])
def test_what_no_bin_is_made_for_is_counted_all_the_same(duration_ms: float) -> None:
    latencies = of([duration_ms])
    assert latencies.count == 1
    assert latencies.quantile_ms(0.5) == duration_ms


def test_its_memory_does_not_grow() -> None:
    latencies = of([1.0])
    before = sys.getsizeof(latencies._bins)
    for duration in np.geomspace(0.001, 1e7, 5000):
        latencies.add(float(duration))
    assert sys.getsizeof(latencies._bins) == before
    assert sum(count for _, count in latencies.bars()) == 5001

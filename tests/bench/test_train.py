"""What an update of a training costs, beside the published model: `pytest -m bench`."""

from __future__ import annotations

import pytest

from dmu_hw.bench import train_times


@pytest.mark.bench
def test_an_update_costs_at_most_a_quarter_of_the_published_models() -> None:
    times = train_times()
    told = ", ".join(f"{name} {value:.1f}" for name, value in times.items())
    print(told)  # noqa: T201
    assert times["ratio"] >= 4

"""A bar says how fast it goes and how long it takes; programs are not disturbed by one."""

from __future__ import annotations

import io
from contextlib import redirect_stderr

import pytest

from dmu_hw.cli.bars import bars, rate
from dmu_hw.cli.output import Output


@pytest.mark.parametrize(
    ("per_s", "said"),
    [(None, ""), (0.0, ""), (31.44, "31.4/s"), (1.0, "1/s"), (0.25, "4 s each"), (0.003, "333 s each")],
)
def test_a_rate_is_told_as_people_say_it(per_s: float | None, said: str) -> None:
    assert rate(per_s) == said


class Terminal(io.StringIO):
    """What somebody looks at."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("as_json", [False, True])
def test_people_see_a_bar_and_programs_none(*, as_json: bool) -> None:
    with redirect_stderr(Terminal()) as seen, Output(as_json=as_json).progress("imaging") as progress:
        progress(3, 12)
        progress(12, 12)
    assert ("imaging" in seen.getvalue()) is not as_json
    assert ("12/12" in seen.getvalue()) is not as_json


def test_steps_rate_and_time_left_stand_side_by_side() -> None:
    shown = bars()
    shown.add_task("imaging", total=8)
    (task,) = shown.tasks
    task.start_time, task.finished_speed = 0.0, 4.0
    cells = [str(column(task)) if not isinstance(column, str) else column for column in shown.columns]
    assert "4/s" in cells
    assert any("0/8" in cell for cell in cells)

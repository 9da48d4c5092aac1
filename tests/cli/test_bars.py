"""A bar says how fast it goes and how long it takes; programs are not disturbed by one."""

from __future__ import annotations

import io

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


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    seen = Terminal()
    monkeypatch.setattr("sys.stderr", seen)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    return seen


def test_people_see_a_bar(terminal: Terminal) -> None:
    with Output(as_json=False).progress("imaging") as progress:
        progress(3, 12)
        progress(12, 12)
    assert "imaging" in terminal.getvalue()
    assert "12/12" in terminal.getvalue()


def test_programs_see_none(terminal: Terminal) -> None:
    with Output(as_json=True).progress("imaging") as progress:
        progress(12, 12)
    assert terminal.getvalue() == ""


def test_steps_rate_and_time_left_stand_side_by_side() -> None:
    shown = bars()
    shown.add_task("imaging", total=8)
    (task,) = shown.tasks
    task.start_time, task.finished_speed = 0.0, 4.0
    cells = [str(column(task)) if not isinstance(column, str) else column for column in shown.columns]
    assert "4/s" in cells
    assert any("0/8" in cell for cell in cells)

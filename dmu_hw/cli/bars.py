"""A bar for people: how much is done of how much, how fast it goes, and how long it still takes."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text


class RateColumn(ProgressColumn):
    """Steps a second, or what one takes where they are slow."""

    def render(self, task: Task) -> Text:
        return Text(rate(task.finished_speed or task.speed), style="progress.data.speed")


def rate(per_s: float | None) -> str:
    """Nothing is said before there is something to go by."""
    if not per_s:
        return ""
    return f"{per_s:.3g}/s" if per_s >= 1 else f"{1 / per_s:.3g} s each"


def bars() -> Progress:
    """On standard error, and gone to one line when it ends."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        RateColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )

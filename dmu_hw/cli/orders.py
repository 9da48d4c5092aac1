"""`dmu pause`, `dmu go` and `dmu abort`: orders to a run that another process holds."""

from __future__ import annotations

from pathlib import Path

from dmu_hw.cli.output import DONE, FAILED, Output
from dmu_hw.cli.runs import known_run
from dmu_hw.control import Word, send
from dmu_hw.errors import InputError, Problem

_SAID = {
    "pause": "pauses after the burst that is being taken; dmu go lets it go on",
    "go": "goes on",
    "abort": "ends in the dark; what was taken is being stored",
}


def give_order(folder: Path, word: Word, reason: str, output: Output) -> None:
    """Give an order, and say whether anybody took it."""
    run = known_run(folder)
    if run.manifest.exists():
        raise InputError([Problem(str(folder), f"the run has ended: there is nothing to {word}")])
    if not send(run.control, word, " ".join(reason.split())):
        output.fail(FAILED, [f"{folder}: nobody takes orders: the run was cut, or it images no more"])
    output.say(f"{folder}: {_SAID[word]}")
    output.finish(DONE, run=str(folder), order=word)

"""`dmu bench`: ratios of timings, measured here and now."""

from __future__ import annotations

from dmu_hw.cli.output import DONE, Output
from dmu_hw.errors import InputError

WHAT = ("train",)


def bench(what: str, output: Output) -> None:
    """Measure, tell, and end."""
    if what not in WHAT:
        raise InputError(f"there is nothing to measure by the name {what!r}; allowed: {', '.join(WHAT)}")
    from dmu_hw.bench import train_times  # noqa: PLC0415 - torch

    times = train_times()
    output.say(
        f"one update at 256², T 4, d 32, batch 8, one thread: lattice {times['lattice_ms']:.0f} ms, "
        f"locality as published {times['published_ms']:.0f} ms, {times['ratio']:.1f} times as long"
    )
    output.finish(DONE, **times)

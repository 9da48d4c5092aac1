"""What runs have taken that a bundle can learn from: bursts with full-resolution references of the same fields."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dmu_hw.bundle import Bundle
from dmu_hw.cli.runs import known_run
from dmu_hw.cli.session import session_of
from dmu_hw.errors import InputError, Problem
from dmu_hw.omezarr import Store
from dmu_hw.physics.optics import Optics
from dmu_hw.reconstruct import Window
from dmu_hw.runfolder import RunFolder
from dmu_hw.view.window import window_of

if TYPE_CHECKING:
    import torch

    from dmu_hw.pairs import Taken, TakenPairs


def pairs_of(
    runs: Sequence[Path], bundle: Bundle, channel: str, optics: Optics, margin_px: int, device: torch.device
) -> TakenPairs:
    """All complete bursts of some runs with their references, seen with the optics that are believed now. They must
    have been taken with the bundle's patterns, all in the same way."""
    from dmu_hw.pairs import TakenPairs  # noqa: PLC0415 - torch

    taken: list[Taken] = []
    looks: list[tuple[Window, Window, int]] = []
    for path in runs:
        run = known_run(path)
        session = session_of(run)
        if channel not in session.kits:
            raise InputError([Problem(str(path), f"has no channel {channel!r}")])
        plan = session.plan.of(channel)
        if "full" not in plan.takes:
            what = "holds no full-resolution references: image with `references: {full: true}`"
            raise InputError([Problem(str(path), what)])
        if plan.takes["patterns"].stack.hashes != bundle.patterns.hashes:
            raise InputError([Problem(str(path), f"was taken with other patterns than those of {bundle.header.name}")])
        windows = [replace(window_of(plan, role), optics=optics) for role in ("patterns", "full")]
        looks.append((windows[0], windows[1], plan.takes["full"].mode.binning * optics.sensor_ratio))
        if looks[-1] != looks[0]:
            raise InputError(
                [Problem(str(path), f"was taken otherwise than {runs[0]}: other light, field or exposure")]
            )
        taken.extend(_taken(run, channel))
    try:
        return TakenPairs(taken, bundle.patterns, *looks[0], margin_px, device)
    except ValueError as error:
        raise InputError([Problem(", ".join(map(str, runs)), str(error))]) from None


def _taken(run: RunFolder, channel: str) -> Iterator[Taken]:
    from dmu_hw.pairs import Taken  # noqa: PLC0415 - torch

    frames, full = (Store(run.frames_of(role, channel)) for role in ("patterns", "full"))
    for field in range(len(frames)):
        times, _, planes = frames.times(field).shape
        for time in range(times):
            for plane in range(planes):
                whole = [not np.isnan(np.asarray(store.times(field)[time, :, plane])).any() for store in (frames, full)]
                if all(whole):
                    yield Taken(frames.burst(field, time, plane), full.burst(field, time, plane)[0])

"""How reconstruction keeps up with a run: what a protocol may say of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dmu_hw.files import Positive, Settings


class Pursuit(Settings):
    """Reconstruct while the run goes on. It never keeps a frame from being saved, and what it leaves out is
    reconstructed when the light is off for good."""

    policy: Literal["newest", "every"] = "newest"
    """Of bursts that come faster than they can be reconstructed. newest: those that have waited longest are left out,
    and counted. every: none is left out; the run waits for room between its bursts, in the dark."""
    depth: Annotated[int, Field(ge=1, le=1024)] = 8
    """Bursts that may wait, and less where they are large: 256 MB together at most."""
    budget_ms: Positive | None = None
    """How long after its last frame 99 of 100 reconstructions should be there; the report says whether they were. null:
    nobody minds."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: a GPU where there is one that torch can use."""
    half: Literal["auto", "never"] = "auto"
    """Numbers of 16 bits in the networks. auto: where that is tried out to be faster and to cost less than 0.05 dB.
    What the run keeps is reconstructed in full precision anyhow."""

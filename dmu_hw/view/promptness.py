"""What a report says of reconstruction while imaging."""

from __future__ import annotations

from typing import Any

from dmu_hw.view.amounts import digits, duration, plural


def live_tiles(live: dict[str, Any] | None) -> list[tuple[object, object]]:
    """At a glance: how many there were, and how fast."""
    if live is None or not live["bursts"]:
        return []
    told: list[tuple[object, object]] = [("reconstructed live", f"{live['made']:,} of {live['bursts']:,}")]
    p99_ms = live["latency_ms"]["p99"]
    if p99_ms is not None:
        told.append(("99 of 100 of them within", duration(p99_ms / 1e3)))
    return told


def live_cautions(facts: dict[str, Any]) -> list[str]:
    """A budget that was not kept, and what failed, then and afterwards."""
    told = []
    lost, live = facts.get("not_reconstructed"), facts.get("live")
    if lost is not None and lost["bursts"]:
        what = f"{plural(lost['bursts'], 'burst')} could not be reconstructed, though all frames are there"
        told.append(f"{what}: {'; '.join(lost['reasons'])}.")
    if live is None:
        return told
    if live["budget_kept"] is False:
        what = (
            f"{plural(live['late'], 'reconstruction')} came later than the {digits(live['budget_ms'])} ms of the budget"
        )
        told.append(f"While imaging, {what}: more than one in a hundred.")
    if live["failed"]:
        reasons = "; ".join(live["reasons"])
        told.append(f"While imaging, the reconstruction of {plural(live['failed'], 'burst')} failed: {reasons}.")
    return told

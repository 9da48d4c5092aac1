"""What reconstructs while a run goes on, put together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dmu_hw.cli.session import Session
from dmu_hw.view.amounts import plural

if TYPE_CHECKING:
    from dmu_hw.bundle import Bundle
    from dmu_hw.live import Live


def live_of(session: Session, bundles: Mapping[str, Bundle]) -> Live | None:
    """What is to be told of every burst, not begun yet; None where nothing is reconstructed while imaging. Refuses a
    device that is not there."""
    settings = session.protocol.live
    if settings is None or not bundles:
        return None
    from dmu_hw.lane import Lane, device_of  # noqa: PLC0415 - torch
    from dmu_hw.live import Live  # noqa: PLC0415
    from dmu_hw.view.window import window_of  # noqa: PLC0415

    device = device_of(settings, f"{session.path}: live.device")
    kinds = {(name, "patterns"): bundle for name, bundle in bundles.items()}
    if session.then is not None and session.chosen_in is not None:
        kinds[session.chosen_in, "chosen"] = session.then

    def lanes() -> dict[tuple[str, str], Lane]:
        return {
            (name, role): Lane(
                bundle,
                window_of(session.plan.of(name), "chosen" if role == "chosen" else "patterns"),
                device,
                half=settings.half == "auto",
            )
            for (name, role), bundle in kinds.items()
        }

    return Live(settings, lanes, list(kinds))


def live_lines(told: Mapping[str, Any]) -> list[str]:
    """The end of it, for people."""
    latency_ms, left = told["latency_ms"], told["bursts"] - told["made"]
    lines = [f"reconstructed while imaging: {told['made']:,} of {plural(told['bursts'], 'burst')}"]
    if told["made"]:
        lines[0] += f"; 99 of 100 within {latency_ms['p99']:.0f} ms of their last frame"
    if told["budget_kept"] is False:
        lines.append(f"live: {told['late']:,} came later than {told['budget_ms']:g} ms")
    if left:
        parts = ((told["dropped"], "dropped"), (told["incomplete"], "with frames missing"), (told["failed"], "failed"))
        lines.append("live: " + ", ".join(f"{count:,} {what}" for count, what in parts if count))
    lines += [f"live: {reason}" for reason in told["reasons"]]
    return lines

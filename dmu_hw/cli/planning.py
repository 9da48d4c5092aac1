"""`dmu plan`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from dmu_hw.cli.output import DONE, Output
from dmu_hw.cli.session import Session, open_session
from dmu_hw.hours import read_hours
from dmu_hw.plan import Plan, Price


def show_plan(path: Path, rig_path: Path | None, output: Output) -> None:
    """What a run would do and cost."""
    session = open_session(path, rig_path)
    tell_plan(session.plan, output)
    tell_belief(session, output)
    hours = read_hours(session.rig.file)
    output.say(f"{'lamp so far':>16}  {hours.lamp_h:.3g} h, mirrors {hours.mirrors_h:.3g} h")
    told = {"lamp_h": hours.lamp_h, "mirrors_h": hours.mirrors_h}
    grounds = {name: ground.model_dump(mode="json") for name, ground in session.belief.grounds.items()}
    output.finish(DONE, plan=session.plan.as_json(), hours=told, calibration=grounds)


def tell_belief(session: Session, output: Output) -> None:
    """Which results of calibrations a run stands on, and whether they hold to its end."""
    belief, now = session.belief, datetime.now(UTC)
    for name, ground in belief.grounds.items():
        warned = ", with warnings" if ground.verdict == "warn" else ""
        text = f"{name} of {_moment(ground.at)}{warned}, good until {_moment(ground.good_until)}"
        output.say(f"{'calibrated by':>16}  {text}")
    if belief.results is not None and not belief.grounds:
        output.say(f"{'calibrated by':>16}  nothing: there are no results of this rig in {belief.results}")
    for what in belief.stale(now + timedelta(seconds=session.plan.price.time_s)):
        output.say(f"caution: {what}, which is before the run ends")
    for what in session.belief.aside:
        output.say(f"caution: {what}")


def _moment(at: datetime) -> str:
    return f"{at.astimezone():%Y-%m-%d %H:%M}"


def tell_plan(plan: Plan, output: Output) -> None:
    """A plan for people."""
    output.say(f"{plan.protocol.name}: {_extent(plan)}")
    for key, value in _price_lines(plan.price):
        output.say(f"{key:>16}  {value}")
    for name in plan.parts:
        proof, whose = plan.of(name).proof(), f" of {name}" if name else ""
        if proof is not None:
            costs = f"+{proof['light']:.1%} light, +{proof['time']:.1%} time"
            output.say(f"{'proof':>16}  one marker frame a burst{whose}, {costs}")
    for caution in plan.cautions:
        output.say(f"caution: {caution}")


def _extent(plan: Plan) -> str:
    """How many of what."""
    counts = [(plan.times, "time point"), (plan.positions, "field"), (plan.planes, "plane")]
    if len(plan.parts) == 1:
        counts.append((plan.stack.count, "pattern"))
    extent = " × ".join(
        f"{count:,} {noun}{'s' * (count > 1)}" for count, noun in counts if count > 1 or noun == "field"
    )
    if len(plan.parts) > 1:
        channels = ", ".join(f"{name} with {part.stack.count:,} patterns" for name, part in plan.parts.items())
        extent += f" × {len(plan.parts)} channels ({channels})"
    first = next(iter(plan.parts.values()))
    references = [role for role in ("plain", "full") if role in first.takes]
    extent += f", and {' and '.join(references)} references of each" if references else ""
    bleaching = plan.shots.loops.bleaching_of_a_field()
    extent += f", and {bleaching:,} bleaching references of a field" if bleaching else ""
    for take in plan.all_takes:
        if take.role == "chosen":
            extent += f"; all of them chosen, at most, {take.stack.count:,} patterns more"
    extent += f"; {plan.price.looks:,} looks for drifts" if plan.price.looks else ""
    return extent + (f"; {plan.price.focus_bursts:,} bursts for the focus" if plan.price.focus_bursts else "")


def _price_lines(price: Price) -> list[tuple[str, str]]:
    return [
        ("bursts", f"{price.bursts:,}"),
        ("frames", f"{price.frames:,}"),
        ("time", _duration(price.time_s)),
        ("light on", _duration(price.light_on_s)),
        ("pattern upload", _duration(price.upload_s)),
        ("dose per field", f"{price.dose_per_field_mj_cm2:.4g} mJ/cm²"),
        *((f"of it {name}", f"{dose:.4g} mJ/cm²") for name, dose in price.channel_dose_mj_cm2.items()),
        ("disk", f"{_size(price.disk_bytes)} at most, beside the bundle"),
        ("compression", f"{price.compression:g}×"),
    ]


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    minutes, rest_s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02} min {rest_s:02} s" if hours else f"{minutes} min {rest_s:02} s"


def _size(count: int) -> str:
    return f"{count / 1e9:,.3g} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"

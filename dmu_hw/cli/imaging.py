"""The part of a run that has light: engine, journal and spool, from the first burst or from where the run was cut."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from dmu_hw.cli.output import Output
from dmu_hw.cli.session import Session
from dmu_hw.control import Control, listening
from dmu_hw.counts import Counts
from dmu_hw.data import Burst
from dmu_hw.engine import Engine
from dmu_hw.files import file_hash
from dmu_hw.hours import HourMeter, Hours, read_hours
from dmu_hw.journal import RESUMED, Journal, Line, mend_end
from dmu_hw.past import Past
from dmu_hw.plan import Plan, Shot
from dmu_hw.ports import Clock, MachineClock
from dmu_hw.room import RoomWatch
from dmu_hw.runfolder import RunFolder
from dmu_hw.spool import Spool
from dmu_hw.survey import Survey

if TYPE_CHECKING:
    from dmu_hw.bundle import Bundle
    from dmu_hw.cli.truth import Truth
    from dmu_hw.live import Live
    from dmu_hw.view.running import Running

_TOLD_GAPS = 10
_SAME_CLOCK_MS = 60_000.0
"""Two clocks that differ by more over a time are not one that went on: the computer was started anew."""


Given = tuple[float, float, float, str]
"""Stage x and y of a field, the dose that it was given in mJ/cm², and the name of the light that gave it."""


@runtime_checkable
class Remembering(Protocol):
    """A simulated world: what it lives through can be told to another one."""

    def remember(self) -> dict[str, Any]: ...

    def recall(self, memory: dict[str, Any], doses: Iterable[Given]) -> None: ...


@dataclass
class Taken:
    """What came of the light."""

    counts: Counts
    truths: dict[str, Truth]
    """By the names of channels; none behind a real rig."""
    began: str
    resumed: list[str]
    time_s: float
    """On the rig's clock."""
    hours: Hours
    """Of lamp and mirrors after it."""
    gaps: list[str] = field(default_factory=list)
    """The first frames that are missing, and why."""
    live: dict[str, Any] | None = None
    """What was reconstructed meanwhile; of a run that was resumed, since then."""


def image(
    run: RunFolder,
    session: Session,
    past: Past,
    output: Output,
    *,
    bundles: Mapping[str, Bundle],
    disk_bytes: int,
    live: Live | None = None,
    view: Running | None = None,
) -> Taken:
    """Take all that is not sealed yet. The rig is open; `bundles` reconstruct, `disk_bytes` is what the whole run
    needs; `live` and `view` are told of every burst."""
    plan, clock = session.plan, session.rig.clock
    labelled = any(bundle.header.task == "segment" for bundle in bundles.values())
    truths, gaps = _looked_back(session, past, labelled=labelled), told_gaps(plan, past.gaps)
    memory = _recalled(session, past)
    offset_ms = _offset_ms(past, clock)
    meter, room, control = HourMeter(session.rig.file), RoomWatch(run.path, disk_bytes), Control()
    lit_ms, woke_ms = past.counts.light_on_ms, clock.now_ms()

    def burnt(*, ended: bool) -> Hours:
        return meter.count(past.counts.light_on_ms - lit_ms, clock.now_ms() - woke_ms, ended=ended)

    with ExitStack() as ending:
        if live is not None:
            ending.enter_context(live)  # warm before any time of the run passes
        ending.callback(burnt, ended=True)
        journal = Journal(run.journal)
        ending.callback(journal.close)
        _begin(run, session, past, journal, offset_ms)
        spool = Spool(run.spool, journal, resumed=True, offset_ms=offset_ms)
        ending.callback(spool.close)
        elapsed_ms = _elapsed_ms(past, plan, clock.now_ms() + offset_ms)
        survey = _survey(run, session, past, bundles, journal)
        if survey is not None:
            ending.enter_context(survey)
        with output.progress("imaging") as progress:

            def watch(shot: Shot, burst: Burst) -> None:
                if live is not None:
                    live.put(shot, burst, control.check)
                if view is not None:
                    view.burst(shot, burst)
                for truth in truths.values():
                    truth.look(shot)
                missing = [{"shot": shot.index, **asdict(gap)} for gap in burst.missing]
                gaps.extend(told_gaps(plan, missing[: _TOLD_GAPS - len(gaps)]))
                burnt(ended=False)
                room.check(spool.written_bytes)
                progress(shot.index + 1, len(plan.shots))

            engine = Engine(
                plan,
                session.rig,
                spool,
                watch,
                control,
                past=past,
                elapsed_ms=elapsed_ms,
                memory=memory,
                survey=survey,
            )
            if view is not None:
                view.follow(engine)
            with listening(run.control, control):
                counts = engine.run()
            if not counts.aborted:
                journal.add("end", counts=counted(counts))
    taken = _taken(session, past, truths, gaps, clock.now_ms() + offset_ms)
    taken.live = None if live is None else live.told()
    return taken


def already(session: Session, past: Past, *, labelled: bool) -> Taken:
    """What came of a run whose last burst was taken before it was cut."""
    truths = _looked_back(session, past, labelled=labelled)
    past.counts.expected = session.plan.price.frames - session.plan.frames_not_chosen(past.chosen)
    if past.counts.aborted:
        past.counts.missing = past.counts.expected - past.counts.saved
    return _taken(session, past, truths, told_gaps(session.plan, past.gaps), past.last_ms)


def _survey(
    run: RunFolder, session: Session, past: Past, bundles: Mapping[str, Bundle], journal: Journal
) -> Survey | None:
    """Who looks at the reconstructions of a channel and chooses, if the protocol names somebody."""
    name = session.chosen_in
    if session.chooser is None or name is None:
        return None
    from dmu_hw.reconstruct import Reconstructor  # noqa: PLC0415 - torch
    from dmu_hw.view.window import window_of  # noqa: PLC0415 - torch

    plan = session.plan.of(name)
    reconstructor = Reconstructor(bundles[name], window_of(plan, "patterns"))
    survey = Survey(plan, session.chooser, reconstructor.estimate, journal, past.scores, past.chosen)
    survey.catch_up(run.journal, run.spool)
    return survey


def _taken(session: Session, past: Past, truths: dict[str, Truth], gaps: list[str], now_ms: float) -> Taken:
    began = past.began or {}
    time_s = (now_ms - began["clock_ms"]) / 1e3
    return Taken(past.counts, truths, began["at"], past.resumed, time_s, read_hours(session.rig.file), gaps)


def _recalled(session: Session, past: Past) -> Callable[[], dict[str, Any]]:
    """Tell a simulated world what it lived through; what of it is to be noted with every burst."""
    for link in session.rig.connections:
        if isinstance(link, Remembering):
            if past.began is not None:
                memory = past.taken["world"] if past.taken is not None else link.remember()
                link.recall(memory, _doses(session.plan, past))
            return lambda: {"world": link.remember()}
    return dict


def _doses(plan: Plan, past: Past) -> list[Given]:
    """The light that each field was given, by the lights that gave it."""
    places = {field_: (place.x_um or 0.0, place.y_um or 0.0) for field_, place in enumerate(plan.shots.places)}
    return [
        (*places[field_], dose, plan.parts[name].channel.light)
        for name, doses in past.channel_dose_mj_cm2.items()
        for field_, dose in doses.items()
    ]


def _begin(run: RunFolder, session: Session, past: Past, journal: Journal, offset_ms: float) -> None:
    """The first lines of a run, or of another life of it; on the disk before there is light."""
    at = datetime.now().astimezone().isoformat(timespec="milliseconds")
    here = {"at": at, "process": os.getpid()}
    clock_ms = session.rig.clock.now_ms() + offset_ms
    if past.began is None:
        past.began = {**here, "clock_ms": clock_ms}
        hashes = {"protocol": session.hash, "rig": session.rig.file.hash, "settings": file_hash(run.settings)}
        journal.add("run", **past.began, **hashes)
    else:
        mend_end(run.journal)
        for shot in dict.fromkeys(line["shot"] for line in past.unsaved):
            lost = [line["dose_mj_cm2"] for line in past.unsaved if line["shot"] == shot]
            journal.add("unsaved", shot=shot, bursts=len(lost), dose_mj_cm2=sum(lost))
            past.counts.unsaved_bursts += len(lost)
        past.resumed.append(at)
        journal.add(RESUMED, **here, clock_ms=clock_ms, crc32c_before=mend_end(run.journal))
    journal.sync()


# ---------------------------------------------------------------- time


def _offset_ms(past: Past, clock: Clock) -> float:
    """What this clock lacks since it began anew, so that the times of a run go on. A clock that went on lacks nothing;
    how long a computer was off only the calendar knows."""
    if past.began is None or not isinstance(clock, MachineClock):
        return 0.0  # a simulated world has recalled the time
    now_ms, began_ms = clock.now_ms(), float(past.began["clock_ms"])
    since_ms = now_ms - began_ms
    passed_ms = (datetime.now().astimezone() - datetime.fromisoformat(past.began["at"])).total_seconds() * 1e3
    if abs(passed_ms - since_ms) > _SAME_CLOCK_MS:
        since_ms = passed_ms
    return began_ms + max(since_ms, past.last_ms - began_ms) - now_ms


def _elapsed_ms(past: Past, plan: Plan, now_ms: float) -> float:
    """How far the run's time has come. A time point that should have been while nobody imaged is due at once, and the
    others follow at their intervals."""
    if past.zero_ms is None:
        return 0.0
    due_s = next((shot.due_s for shot in plan.shots if shot.index not in past.sealed), 0.0)
    return min(now_ms - past.zero_ms, due_s * 1e3)


# ---------------------------------------------------------------- for people


def _looked_back(session: Session, past: Past, *, labelled: bool) -> dict[str, Truth]:
    """The truth behind a simulated rig, at the bursts too that were taken before the run was cut."""
    from dmu_hw.cli.truth import truths_of  # noqa: PLC0415 - beside other imports that a plan does not need

    truths = truths_of(session.rig, session.plan, labelled=labelled)
    for truth in truths.values():
        for index in sorted(past.times_ms):
            truth.look(session.plan.shots[index], past.times_ms[index])
    return truths


def told_gaps(plan: Plan, missing: Iterable[Line]) -> list[str]:
    """Frames that are missing, for people."""
    told = []
    for line in missing:
        shot = plan.shots[line["shot"]]
        place = f"time {shot.time}, field {shot.position}, plane {shot.z}"
        place += f", {shot.channel} {shot.role}" if shot.channel else f", {shot.role}"
        told.append(f"{place}, pattern {line['pattern']}: {line['reason']}")
    return told


def counted(counts: Counts) -> dict[str, int]:
    """Those that are numbers."""
    names = ("expected", "received", "saved", "missing", "duplicates")
    bursts = ("retaken_bursts", "unproven_bursts", "unsaved_bursts")
    return {name: getattr(counts, name) for name in (*names, *bursts)}

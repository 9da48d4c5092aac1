"""`dmu run`: from the YAML to the report."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dmu_hw.cli.output import DONE, INCOMPLETE, Output
from dmu_hw.cli.planning import tell_plan
from dmu_hw.cli.session import Session, open_session, outsiders
from dmu_hw.control import Control, listening
from dmu_hw.counts import Counts
from dmu_hw.data import Burst
from dmu_hw.engine import Engine
from dmu_hw.errors import InputError, Problem
from dmu_hw.files import write_whole
from dmu_hw.journal import Journal
from dmu_hw.omezarr import Labels, Store
from dmu_hw.plan import Plan, Shot
from dmu_hw.runfolder import RunFolder, new_run
from dmu_hw.spool import Spool
from dmu_hw.writer import write_stores

if TYPE_CHECKING:
    from dmu_hw.bundle import Bundle
    from dmu_hw.cli.truth import Truth

_SPARE_BYTES = 50_000_000
_TOLD_GAPS = 10


def run_protocol(path: Path, rig_path: Path | None, out: Path, output: Output) -> None:
    """Everything from the YAML to the report. What can be refused is refused before there is a run folder."""
    began_s = time.monotonic()
    output.lights = True
    session = open_session(path, rig_path)
    plan = session.plan
    _check_room(plan, out)
    tell_plan(plan, output)
    bundle = _bundle(session, output)
    if bundle is not None:
        labels = 4 * math.prod(plan.protocol.field_px) * plan.price.bursts if _segments(bundle) else 0
        _check_room(plan, out, labels + sum(weight.nbytes for weight in bundle.weights.values()))
    with session.rig.opened():
        run = new_run(out, session.protocol.name)
        output.known["run"] = str(run.path)
        output.remains = f"{run.path} holds what there is; it has no manifest, so that nobody takes it for whole"
        began = datetime.now().astimezone()
        _write_settings(run, session, bundle)
        taken = _acquire(run, session, output, labelled=_segments(bundle))
    with output.progress("storing") as progress:
        write_stores(run, plan, progress)
    metrics = _reconstruct(run, session, bundle, taken.truth, output) if bundle is not None else {}
    counts = taken.counts
    facts: dict[str, Any] = {
        "began": began.isoformat(timespec="seconds"),
        "complete": counts.missing == 0 and counts.saved == counts.expected,
        "aborted": counts.aborted or None,
        "counts": _counted(counts),
        "roles": {role: index for index, role in enumerate(plan.takes)},
        "shots_per_place": len(plan.takes),
        "positions": plan.positions,
        "planes": plan.planes,
        "price": asdict(plan.price),
        "actual": {
            "time_s": taken.time_s,
            "light_on_s": counts.light_on_ms / 1e3,
            "dose_mj_cm2": counts.dose_mj_cm2,
        },
        "cautions": list(plan.cautions),
        "metrics": metrics,
        "objects": _objects(run) if _segments(bundle) else None,
        "wall_s": time.monotonic() - began_s,
    }
    _report(run, session, facts)
    run.write_manifest(facts)
    output.remains = ""
    _tell(run, taken, facts, output)
    status = DONE if facts["complete"] else INCOMPLETE
    told = {name: facts[name] for name in ("complete", "counts", "cautions", "metrics", "objects")}
    output.finish(status, **told, missing=taken.gaps)


def _check_room(plan: Plan, out: Path, more_bytes: int = 0) -> None:
    """Refuse a run that has no place to go to, before anything is made."""
    place = out.absolute()
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        raise InputError([Problem(str(out), f"{place} is a file, where a folder is needed")])
    if not os.access(place, os.W_OK | os.X_OK):
        raise InputError([Problem(str(out), f"nobody may write into {place}")])
    free, wanted = shutil.disk_usage(place).free, plan.price.disk_bytes + more_bytes + _SPARE_BYTES
    if free < wanted:
        raise InputError([Problem(str(out), f"{free / 1e9:.2f} GB are free, the run needs {wanted / 1e9:.2f} GB")])


def _bundle(session: Session, output: Output) -> Bundle | None:
    """What reconstructs: read or computed, and tried before there is light."""
    bundle = session.bundle
    if bundle is None and session.protocol.inverse is not None:
        output.say(f"computing the {session.protocol.inverse.model} inverse …")
        bundle = session.fitted(session.stack, session.protocol.exposure_ms)
    if bundle is not None:
        from dmu_hw.reconstruct import Reconstructor  # noqa: PLC0415
        from dmu_hw.view.window import window_of  # noqa: PLC0415 - torch

        take = session.plan.takes["patterns"]
        dark = np.zeros((take.stack.count, *take.mode.shape), dtype=np.uint16)
        with outsiders(f"{session.path}: the inverse model {bundle.header.model!r}"):
            Reconstructor(bundle, window_of(session.plan, "patterns")).estimate(dark)
    return bundle


def _write_settings(run: RunFolder, session: Session, bundle: Bundle | None) -> None:
    """All that was decided, before the first light."""
    write_whole(run.protocol, session.text.encode())
    write_whole(run.rig, session.rig.file.text.encode())
    if bundle is not None:
        bundle.save(run.bundle)
    settings = {
        "protocol": session.protocol.model_dump(mode="json"),
        "protocol_hash": session.hash,
        "rig": session.rig.settings.model_dump(mode="json"),
        "rig_hash": session.rig.file.hash,
        "bundle_hash": None if bundle is None else bundle.hash,
        "plan": session.plan.as_json(),
    }
    write_whole(run.settings, json.dumps(settings, indent=1, allow_nan=False).encode())


@dataclass
class _Taken:
    """What came of the light."""

    counts: Counts
    truth: Truth | None
    time_s: float
    """On the rig's clock."""
    gaps: list[str] = field(default_factory=list)
    """The first frames that are missing, and why."""


def _acquire(run: RunFolder, session: Session, output: Output, *, labelled: bool) -> _Taken:
    from dmu_hw.cli.truth import truth_of  # noqa: PLC0415 - beside other imports that a plan does not need

    truth = truth_of(session.rig, session.plan, labelled=labelled)
    gaps: list[str] = []
    journal = Journal(run.journal)
    spool = Spool(run.spool, journal)
    began_ms = session.rig.clock.now_ms()
    try:
        with output.progress("imaging") as progress:

            def watch(shot: Shot, burst: Burst) -> None:
                if truth is not None:
                    truth.look(shot)
                gaps.extend(_gaps(shot, burst)[: _TOLD_GAPS - len(gaps)])
                progress(shot.index + 1, len(session.plan.shots))

            journal.add("run", protocol=session.hash, rig=session.rig.file.hash)
            control = Control()
            with listening(run.control, control):
                counts = Engine(session.plan, session.rig, spool, watch, control).run()
            if not counts.aborted:
                journal.add("end", counts=_counted(counts))
    finally:
        spool.close()
        journal.close()
    return _Taken(counts, truth, (session.rig.clock.now_ms() - began_ms) / 1e3, gaps)


def _gaps(shot: Shot, burst: Burst) -> list[str]:
    """Every frame that a burst lacks, for people."""
    place = f"time {shot.time}, field {shot.position}, plane {shot.z}, {shot.role}"
    return [f"{place}, pattern {gap.pattern}: {gap.reason}" for gap in burst.missing]


def _reconstruct(
    run: RunFolder, session: Session, bundle: Bundle, truth: Truth | None, output: Output
) -> dict[str, float]:
    from dmu_hw.cli.judge import judge  # noqa: PLC0415 - torch
    from dmu_hw.reconstruct import reconstruct_run  # noqa: PLC0415
    from dmu_hw.view.window import window_of  # noqa: PLC0415

    with output.progress("reconstructing") as progress:
        window = window_of(session.plan, "patterns")
        reconstruct_run(Store(run.frames), run.reconstruction, bundle, window, progress)
    if truth is None:
        return {}
    truth.save(run.truth, session.plan)
    return judge(run, session, truth)


def _segments(bundle: Bundle | None) -> bool:
    return bundle is not None and bundle.header.task == "segment"


def _objects(run: RunFolder) -> dict[str, Any]:
    """How many objects each field holds, on average over its times and planes; null where no burst was whole."""
    store = Labels(run.reconstruction)
    counts = [np.asarray(store.counts(field)).ravel() for field in range(len(store))]
    looked = [found[found >= 0] for found in counts]
    everywhere = np.concatenate(looked)
    return {
        "fields": [float(found.mean()) if found.size else None for found in looked],
        "mean": float(everywhere.mean()) if everywhere.size else None,
        "bursts": int(everywhere.size),
    }


def _counted(counts: Counts) -> dict[str, int]:
    names = ("expected", "received", "saved", "missing", "retaken_bursts", "unproven_bursts")
    return {name: getattr(counts, name) for name in names}


def _report(run: RunFolder, session: Session, facts: dict[str, Any]) -> None:
    from dmu_hw.view.report import write_report  # noqa: PLC0415

    write_report(run, session.plan, facts)


def _tell(run: RunFolder, taken: _Taken, facts: dict[str, Any], output: Output) -> None:
    """The end of a run in a few lines."""
    counts = taken.counts
    if counts.aborted:
        output.say(f"aborted: {counts.aborted}")
    for gap in taken.gaps:
        output.say(f"missing: {gap}")
    if counts.missing > len(taken.gaps):
        output.say(f"missing: and {counts.missing - len(taken.gaps):,} more")
    objects = facts["objects"]
    if objects is not None and objects["mean"] is not None:
        output.say(f"{'objects per field':>28}  {objects['mean']:.1f}")
    for name, value in facts["metrics"].items():
        output.say(f"{name:>28}  {value:.2f}")
    output.say(
        f"{counts.saved:,} of {counts.expected:,} frames saved"
        + (f", {counts.missing:,} missing" if counts.missing else "")
        + (f"; bursts taken again: {counts.retaken_bursts:,}" if counts.retaken_bursts else "")
    )
    output.say(f"{run.path}: open report.html, or frames.ome.zarr in napari")

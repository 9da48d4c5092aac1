"""What follows when the light is off for good: stores, reconstruction, report, manifest. Cut at any moment, all of it
can be done again."""

from __future__ import annotations

import shutil
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from dmu_hw.bleaching import bleaching_of
from dmu_hw.cli.imaging import Taken, counted
from dmu_hw.cli.output import DONE, INCOMPLETE, Output
from dmu_hw.cli.session import Session
from dmu_hw.counts import Counts
from dmu_hw.ledger import photons_per_um2
from dmu_hw.omezarr import Labels, Store
from dmu_hw.past import read_past
from dmu_hw.runfolder import RunFolder
from dmu_hw.writer import write_stores

if TYPE_CHECKING:
    from dmu_hw.bundle import Bundle
    from dmu_hw.cli.truth import Truth


def finish(
    run: RunFolder, session: Session, bundle: Bundle | None, taken: Taken, output: Output, began_s: float
) -> None:
    """Store, reconstruct, report and close a run, and end the command."""
    run.clear_leftovers()
    with output.progress("storing") as progress:
        write_stores(run, session.plan, progress)
    metrics = _reconstruct(run, session, bundle, taken.truth, output) if bundle is not None else {}
    facts = _facts(session, taken, metrics)
    facts["objects"] = _objects(run) if segments(bundle) else None
    if "bleaching" in session.plan.takes:
        found = bleaching_of(run, session.plan)
        facts["bleaching"] = None if found is None else found.as_json()
    if "chosen" in session.plan.takes:
        facts["chosen"] = read_past(run.journal).chosen
    facts["wall_s"] = time.monotonic() - began_s
    _report(run, session, facts)
    run.write_manifest(facts)
    output.remains = ""
    _tell(run, taken, facts, output)
    status = DONE if facts["complete"] else INCOMPLETE
    told = {name: facts[name] for name in ("complete", "counts", "cautions", "metrics", "objects")}
    output.finish(status, **told, missing=taken.gaps)


def segments(bundle: Bundle | None) -> bool:
    return bundle is not None and bundle.header.task == "segment"


def _facts(session: Session, taken: Taken, metrics: dict[str, float]) -> dict[str, Any]:
    """What the manifest says."""
    plan, counts = session.plan, taken.counts
    photons = {field: photons_per_um2(plan.optics, dose) for field, dose in counts.dose_mj_cm2.items()}
    return {
        "began": taken.began,
        "resumed": taken.resumed,
        "complete": counts.missing == 0 and counts.saved == counts.expected,
        "aborted": counts.aborted or None,
        "counts": counted(counts),
        "missing_reasons": _reasons(counts),
        "late": {"bursts": counts.late_bursts, "worst_s": counts.worst_late_s},
        "roles": {role: index for index, role in enumerate(plan.takes)},
        "shots_per_place": len(plan.takes),
        "positions": plan.positions,
        "planes": plan.planes,
        "price": asdict(plan.price),
        "actual": {
            "time_s": taken.time_s,
            "light_on_s": counts.light_on_ms / 1e3,
            "dose_mj_cm2": counts.dose_mj_cm2,
            "photons_per_um2": None if None in photons.values() else photons,
        },
        "hours": {"lamp_h": taken.hours.lamp_h, "mirrors_h": taken.hours.mirrors_h},
        "light": {"watchdog_ms": session.rig.light.watchdog_ms, "unwatched_accepted": session.rig.unwatched_light},
        "cautions": list(plan.cautions),
        "metrics": metrics,
    }


def _reasons(counts: Counts) -> dict[str, int]:
    """Why frames are missing, and how many; those that an abort left out too."""
    reasons = dict(counts.reasons)
    if left := counts.missing - sum(reasons.values()):
        reasons[f"aborted: {counts.aborted}"] = left
    return reasons


def _reconstruct(
    run: RunFolder, session: Session, bundle: Bundle, truth: Truth | None, output: Output
) -> dict[str, float]:
    from dmu_hw.cli.judge import judge  # noqa: PLC0415 - torch
    from dmu_hw.reconstruct import reconstruct_run  # noqa: PLC0415
    from dmu_hw.view.window import window_of  # noqa: PLC0415

    if not run.reconstruction.exists():
        with output.progress("reconstructing") as progress:
            window = window_of(session.plan, "patterns")
            reconstruct_run(Store(run.frames), run.reconstruction, bundle, window, progress)
    if session.then is not None and not run.chosen.exists():
        with output.progress("reconstructing what was chosen") as progress:
            window = window_of(session.plan, "chosen")
            reconstruct_run(Store(run.frames_of("chosen")), run.chosen, session.then, window, progress)
    if truth is None:
        return {}
    if run.truth.exists():
        shutil.rmtree(run.truth)  # half of it, perhaps: the run was cut here
    truth.save(run.truth, session.plan)
    return judge(run, session, truth)


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


def _report(run: RunFolder, session: Session, facts: dict[str, Any]) -> None:
    from dmu_hw.view.report import write_report  # noqa: PLC0415

    write_report(run, session.plan, facts)


def _tell(run: RunFolder, taken: Taken, facts: dict[str, Any], output: Output) -> None:
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

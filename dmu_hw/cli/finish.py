"""What follows when the light is off for good: stores, reconstruction, report, manifest. Cut at any moment, all of it
can be done again."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from dmu_hw.bleaching import bleaching_of
from dmu_hw.cli.imaging import Taken, counted
from dmu_hw.cli.living import live_lines
from dmu_hw.cli.output import DONE, INCOMPLETE, Output, origin
from dmu_hw.cli.session import Session
from dmu_hw.cli.trusting import doubt_lines
from dmu_hw.counts import Counts, count_reason
from dmu_hw.doubtful import Doubtful
from dmu_hw.engine import guarded
from dmu_hw.ledger import photons_per_um2
from dmu_hw.loops import Role
from dmu_hw.omezarr import Labels, Store
from dmu_hw.past import read_past
from dmu_hw.plan import Plan
from dmu_hw.runfolder import RunFolder
from dmu_hw.view.amounts import plural
from dmu_hw.watched import drifts_of
from dmu_hw.writer import write_stores

if TYPE_CHECKING:
    from dmu_hw.bundle import Bundle
    from dmu_hw.cli.truth import Truth


def finish(
    run: RunFolder, session: Session, bundles: Mapping[str, Bundle], taken: Taken, output: Output, began_s: float
) -> None:
    """Store, reconstruct, report and close a run, and end the command."""
    run.clear_leftovers()
    with output.progress("storing") as progress:
        write_stores(run, session.plan, progress)
    failures = _reconstruct(run, session, bundles, output)
    metrics = _judged(run, session, bundles, taken.truths)
    facts = _facts(run, session, taken, metrics)
    facts["not_reconstructed"] = {"bursts": sum(failures.values()), "reasons": failures}
    facts["objects"] = _objects(run) if segments(bundles) else None
    facts["doubts"] = by_channel(_doubts(run, bundles))
    if session.plan.shots.loops.bleaching:
        facts["bleaching"] = by_channel({name: _bleaching(run, session.plan.of(name)) for name in session.kits})
    if session.protocol.watch is not None:
        facts["drift"] = drifts_of(run.journal, session.plan)
    if session.chosen_in is not None:
        facts["chosen"] = read_past(run.journal).chosen
    facts["wall_s"] = time.monotonic() - began_s
    _report(run, session, facts)
    run.write_manifest(facts)
    output.remains = ""
    _tell(run, taken, facts, output)
    status = DONE if facts["complete"] and not failures else INCOMPLETE
    told = {
        name: facts[name]
        for name in ("complete", "counts", "cautions", "metrics", "objects", "doubts", "live", "not_reconstructed")
    }
    if "drift" in facts:
        told["drift"] = {name: facts["drift"][name] for name in ("looks", "laid_back", "laid_px", "drifts")}
    output.finish(status, **told, missing=taken.gaps)


def segments(bundles: Mapping[str, Bundle]) -> bool:
    return any(bundle.header.task == "segment" for bundle in bundles.values())


def _facts(run: RunFolder, session: Session, taken: Taken, metrics: dict[str, float]) -> dict[str, Any]:
    """What the manifest says."""
    plan, counts = session.plan, taken.counts
    takes = plan.all_takes
    return {
        "began": taken.began,
        "resumed": taken.resumed,
        "complete": counts.missing == 0 and counts.saved == counts.expected,
        "aborted": counts.aborted or None,
        "live": taken.live,
        "counts": counted(counts),
        "missing_reasons": _reasons(counts),
        "late": {"bursts": counts.late_bursts, "worst_s": counts.worst_late_s},
        "roles": {f"{take.channel} {take.role}".strip(): index for index, take in enumerate(takes)},
        "shots_per_place": len(takes),
        "positions": plan.positions,
        "planes": plan.planes,
        "price": plan.price.as_json(),
        "actual": {
            "time_s": taken.time_s,
            "light_on_s": counts.light_on_ms / 1e3,
            "dose_mj_cm2": counts.dose_mj_cm2,
            **_light_given(run, plan, counts),
        },
        "calibration": {name: ground.model_dump(mode="json") for name, ground in session.belief.grounds.items()},
        "hours": {"lamp_h": taken.hours.lamp_h, "mirrors_h": taken.hours.mirrors_h},
        "light": guarded(plan, session.rig),
        "cautions": [*plan.cautions, *_outlived(session)],
        "metrics": metrics,
    }


def _outlived(session: Session) -> list[str]:
    """What of the belief has gone stale before the run came to its end."""
    return [f"{what}, which is before the run ended" for what in session.belief.stale(datetime.now(UTC))]


def _light_given(run: RunFolder, plan: Plan, counts: Counts) -> dict[str, Any]:
    """To each field, in photons; and where there are several channels, what each of them gave."""
    doses = {"": counts.dose_mj_cm2} if "" in plan.parts else read_past(run.journal).channel_dose_mj_cm2
    photons: dict[int, float] = {}
    known = True
    for name, fields in doses.items():
        for field, dose in fields.items():
            found = photons_per_um2(plan.parts[name].channel.optics, dose)
            known = known and found is not None
            photons[field] = photons.get(field, 0.0) + (found or 0.0)
    told = {} if "" in doses else {"channel_dose_mj_cm2": doses}
    return {**told, "photons_per_um2": photons if known else None}


def _bleaching(run: RunFolder, plan: Plan) -> dict[str, Any] | None:
    found = bleaching_of(run, plan)
    return None if found is None else found.as_json()


def by_channel(found: dict[str, Any]) -> Any:
    """As it is where there is one channel only; else by name."""
    return found.get("", found)


def _reasons(counts: Counts) -> dict[str, int]:
    """Why frames are missing, and how many; those that an abort left out too."""
    reasons = dict(counts.reasons)
    if left := counts.missing - sum(reasons.values()):
        reasons[f"aborted: {counts.aborted}"] = left
    return reasons


def _reconstruct(run: RunFolder, session: Session, bundles: Mapping[str, Bundle], output: Output) -> dict[str, int]:
    """Everything of which all frames are there; why an inverse failed, and how often. Its frames are none the worse."""
    from dmu_hw.results import Source, reconstruct_run  # noqa: PLC0415 - torch
    from dmu_hw.view.window import window_of  # noqa: PLC0415

    def source(name: str, role: Role, bundle: Bundle) -> Source:
        plan = session.plan.of(name)
        frames, keep_spread = Store(run.frames_of(role, name)), session.protocol.keep_spread
        return Source(frames, bundle, window_of(plan, role), name, plan.waves_nm([name]), keep_spread)

    failures: dict[str, int] = {}

    def failed(_place: tuple[int, int, int], error: Exception) -> None:
        count_reason(failures, origin(error), 1)

    if bundles and not run.reconstruction.exists():
        with output.progress("reconstructing") as progress:
            sources = [source(name, "patterns", bundle) for name, bundle in bundles.items()]
            reconstruct_run(sources, run.reconstruction, progress, failed)
    if session.then is not None and session.chosen_in is not None and not run.chosen.exists():
        with output.progress("reconstructing what was chosen") as progress:
            reconstruct_run([source(session.chosen_in, "chosen", session.then)], run.chosen, progress, failed)
    return failures


def _judged(
    run: RunFolder, session: Session, bundles: Mapping[str, Bundle], truths: dict[str, Truth]
) -> dict[str, float]:
    """Against the truth where it is known; of several channels, each by its name."""
    if not (bundles and truths):
        return {}
    from dmu_hw.cli.judge import judge  # noqa: PLC0415 - torch
    from dmu_hw.cli.truth import save_truths  # noqa: PLC0415

    if run.truth.exists():
        shutil.rmtree(run.truth)  # half of it, perhaps: the run was cut here
    save_truths(run.truth, session.plan, truths, labelled=segments(bundles))
    metrics: dict[str, float] = {}
    for name in bundles:
        found = judge(run, session.of(name), truths[name])
        metrics |= {f"{name}: {metric}" if name else metric: value for metric, value in found.items()}
    return metrics


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


def _doubts(run: RunFolder, bundles: Mapping[str, Bundle]) -> dict[str, Any]:
    """Of each channel, how many of its images are not to be believed; null where its bundle knows nothing of it."""
    if not run.reconstruction.exists() or not Doubtful.there(store := Store(run.reconstruction)):
        return dict.fromkeys(bundles or ("",))
    doubtful = Doubtful(run.reconstruction)
    told = {name: doubtful.told(store.channel(name)) for name in bundles}
    return {name: found if found["judged"] else None for name, found in told.items()}


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
    for name, drift in facts.get("drift", {"drifts": {}})["drifts"].items():
        if drift["beyond"]:
            what = f"{drift['worst']:.2f} px" if name == "registration" else f"{drift['worst']:+.1%}"
            output.say(f"drift: {name}, {what} at the worst; the report shows it over time")
    for reason, count in facts["not_reconstructed"]["reasons"].items():
        output.say(f"not reconstructed: {plural(count, 'burst')}: {reason}")
    live = live_lines(facts["live"]) if facts["live"] is not None else ()
    for line in (*live, *doubt_lines(facts["doubts"])):
        output.say(line)
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
    stores = (run.frames, run.reconstruction, *sorted(run.path.glob("*.ome.zarr")))
    images = next(path for path in stores if path.exists())
    output.say(f"{run.path}: open report.html, or {images.name} in napari")

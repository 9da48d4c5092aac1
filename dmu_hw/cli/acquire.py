"""`dmu plan` and `dmu run`."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmu_hw.cli.output import DONE, INCOMPLETE, Output
from dmu_hw.cli.session import Session, open_session
from dmu_hw.engine import Counts, Engine
from dmu_hw.errors import InputError, Problem
from dmu_hw.files import write_whole
from dmu_hw.journal import Journal
from dmu_hw.omezarr import Store
from dmu_hw.plan import Plan, Price
from dmu_hw.runfolder import RunFolder, new_run
from dmu_hw.spool import Spool
from dmu_hw.writer import write_stores

if TYPE_CHECKING:
    from dmu_hw.bundle import Bundle
    from dmu_hw.cli.truth import Truth

_SPARE_BYTES = 50_000_000


def show_plan(path: Path, rig_path: Path | None, output: Output) -> None:
    """What a run would do and cost."""
    plan = open_session(path, rig_path).plan
    for key, value in price_lines(plan.price):
        output.say(f"{key:>16}  {value}")
    output.finish(DONE, plan=plan.as_json())


def price_lines(price: Price) -> list[tuple[str, str]]:
    """A price for people."""
    return [
        ("bursts", f"{price.bursts}"),
        ("frames", f"{price.frames}"),
        ("time", f"{price.time_s:.2f} s"),
        ("pattern upload", f"{price.upload_s:.2f} s"),
        ("light on", f"{price.light_on_s:.2f} s"),
        ("dose per field", f"{price.dose_per_field_mj_cm2:.4g} mJ/cm²"),
        ("disk", f"{price.disk_bytes / 1e6:.1f} MB"),
        ("compression", f"{price.compression:g}×"),
    ]


def run_protocol(path: Path, rig_path: Path | None, out: Path, output: Output) -> None:
    """Everything from the YAML to the report."""
    began_s = time.monotonic()
    session = open_session(path, rig_path)
    plan = session.plan
    _check_disk(plan, out)
    bundle = session.bundle or _fit(session, output)
    run = new_run(out, session.protocol.name)
    began = datetime.now().astimezone()
    _write_settings(run, session, bundle)
    with session.rig.opened():
        clock_ms = session.rig.clock.now_ms()
        counts, truth = _acquire(run, session, output)
        time_s = (session.rig.clock.now_ms() - clock_ms) / 1e3
    with output.progress("storing") as progress:
        write_stores(run, plan, progress)
    metrics = _reconstruct(run, session, bundle, truth, output) if bundle is not None else {}
    facts: dict[str, Any] = {
        "began": began.isoformat(timespec="seconds"),
        "complete": counts.missing == 0 and counts.saved == counts.expected,
        "counts": _counted(counts),
        "roles": {role: index for index, role in enumerate(plan.takes)},
        "shots_per_place": len(plan.takes),
        "positions": plan.positions,
        "planes": plan.planes,
        "price": asdict(plan.price),
        "actual": {"time_s": time_s, "light_on_s": counts.light_on_ms / 1e3, "dose_mj_cm2": counts.dose_mj_cm2},
        "metrics": metrics,
        "wall_s": time.monotonic() - began_s,
    }
    _report(run, session, facts)
    run.write_manifest(facts)
    _tell(run, counts, metrics, output)
    status = DONE if facts["complete"] else INCOMPLETE
    output.finish(status, run=str(run.path), complete=facts["complete"], counts=facts["counts"], metrics=metrics)


def _check_disk(plan: Plan, out: Path) -> None:
    """Refuse a run that the disk has no room for, before anything is made."""
    place = out.absolute()
    while not place.exists():
        place = place.parent
    free, wanted = shutil.disk_usage(place).free, plan.price.disk_bytes + _SPARE_BYTES
    if free < wanted:
        raise InputError([Problem(str(out), f"{free / 1e9:.2f} GB are free, the run needs {wanted / 1e9:.2f} GB")])


def _fit(session: Session, output: Output) -> Bundle | None:
    if session.protocol.inverse is None:
        return None
    output.say(f"computing the {session.protocol.inverse.model} inverse …")
    return session.fitted(session.stack, session.protocol.exposure_ms)


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


def _acquire(run: RunFolder, session: Session, output: Output) -> tuple[Counts, Truth | None]:
    from dmu_hw.cli.truth import truth_of  # noqa: PLC0415 - beside other imports that a plan does not need

    truth = truth_of(session.rig, session.plan)
    journal = Journal(run.journal)
    spool = Spool(run.spool, journal)
    try:
        with output.progress("imaging") as progress:

            def watch(shot: Any, _burst: Any) -> None:
                if truth is not None:
                    truth.look(shot)
                progress(shot.index + 1, len(session.plan.shots))

            journal.add("run", protocol=session.hash, rig=session.rig.file.hash)
            counts = Engine(session.plan, session.rig, spool, watch).run()
            journal.add("end", counts=_counted(counts))
    finally:
        spool.close()
        journal.close()
    return counts, truth


def _reconstruct(
    run: RunFolder, session: Session, bundle: Bundle, truth: Truth | None, output: Output
) -> dict[str, float]:
    from dmu_hw.cli.judge import judge, window_of  # noqa: PLC0415 - torch
    from dmu_hw.reconstruct import reconstruct_run  # noqa: PLC0415

    with output.progress("reconstructing") as progress:
        window = window_of(session.plan, "patterns")
        reconstruct_run(Store(run.frames), run.reconstruction, bundle, window, progress)
    if truth is None:
        return {}
    truth.save(run.truth, session.plan)
    return judge(run, session, truth)


def _counted(counts: Counts) -> dict[str, int]:
    names = ("expected", "received", "saved", "missing", "retaken_bursts")
    return {name: getattr(counts, name) for name in names}


def _report(run: RunFolder, session: Session, facts: dict[str, Any]) -> None:
    from dmu_hw.view.report import write_report  # noqa: PLC0415

    write_report(run, session.plan, facts)


def _tell(run: RunFolder, counts: Counts, metrics: dict[str, float], output: Output) -> None:
    """The end of a run in a few lines."""
    output.say(
        f"{counts.saved} of {counts.expected} frames saved" + (f", {counts.missing} missing" if counts.missing else "")
    )
    for name, value in metrics.items():
        output.say(f"{name:>28}  {value:.2f}")
    output.say(f"{run.path}: open report.html, or frames.ome.zarr/0 in napari")

"""`dmu run`: from the YAML to the light, and through to the report."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dmu_hw import __version__
from dmu_hw.cli.finish import finish, segments
from dmu_hw.cli.imaging import image
from dmu_hw.cli.living import live_of
from dmu_hw.cli.output import Output
from dmu_hw.cli.planning import tell_belief, tell_plan
from dmu_hw.cli.session import Session, open_session, outsiders
from dmu_hw.cli.viewing import shown
from dmu_hw.files import write_whole
from dmu_hw.hours import read_hours
from dmu_hw.kept import text_hash
from dmu_hw.lock import held, rig_held
from dmu_hw.past import Past
from dmu_hw.room import check_room
from dmu_hw.runfolder import RunFolder, new_run

if TYPE_CHECKING:
    from dmu_hw.bundle import Bundle


def run_protocol(path: Path, rig_path: Path | None, out: Path, output: Output, port: int | None = None) -> None:
    """Everything from the YAML to the report. What can be refused is refused before there is a run folder. With a port
    there is a page in the browser.

    Who wants to see reconstructions as they are made subscribes to `live`, if there is one, before `image`:
    `live.listen(listener)` (see dmu_hw.live)."""
    began_s = time.monotonic()
    output.lights = True
    session = open_session(path, rig_path)
    check_room(out, session.plan.price.disk_bytes)
    tell_plan(session.plan, output)
    tell_belief(session, output)
    read_hours(session.rig.file)
    bundles = bundles_of(session, output)
    live = live_of(session, bundles)
    disk_bytes = needed_bytes(session, bundles)
    check_room(out, disk_bytes)
    with ExitStack() as instrument:
        instrument.enter_context(rig_held(session.rig.file))
        instrument.enter_context(session.rig.opened())
        run = new_run(out, session.protocol.name)
        with run_held(run, output), shown(session, run, live, output, port) as view:
            _write_settings(run, session, bundles)
            taken = image(run, session, Past(), output, bundles=bundles, disk_bytes=disk_bytes, live=live, view=view)
            instrument.close()  # others may have it while this run is stored
            finish(run, session, bundles, taken, output, began_s)


@contextmanager
def run_held(run: RunFolder, output: Output) -> Iterator[None]:
    """Hold a run folder as its only maker; whoever fails in here is told how to go on."""
    output.known["run"] = str(run.path)
    with ExitStack() as ending:
        ending.callback(_tidy, run)
        ending.enter_context(held(run.lock, f"run {run.path}"))
        shown = f'"{run.path}"' if " " in str(run.path) else str(run.path)
        output.remains = f"{run.path} holds what there is; go on with it by: dmu run --resume {shown}"
        yield


def _tidy(run: RunFolder) -> None:
    """Of a run that has ended nobody needs the lock any more."""
    if run.manifest.exists():
        run.lock.unlink(missing_ok=True)


def needed_bytes(session: Session, bundles: Mapping[str, Bundle]) -> int:
    """Room on the disk for the whole run."""
    needed = session.plan.price.disk_bytes
    for bundle in (session.then, *bundles.values()):
        if bundle is not None:
            needed += sum(weight.nbytes for weight in bundle.weights.values())
    if segments(bundles) or session.protocol.keep_spread:  # labels, or how far pixels may be off
        needed += 4 * math.prod(session.protocol.field_px) * session.plan.price.bursts
    return needed


def bundles_of(session: Session, output: Output, kept: Mapping[str, Bundle] | None = None) -> dict[str, Bundle]:
    """What reconstructs each channel: read, kept or computed, and tried before there is light. A channel of which only
    the frames are kept has none."""
    bundles = {name: _bundle_of(session.of(name), output, (kept or {}).get(name)) for name in session.kits}
    return {name: bundle for name, bundle in bundles.items() if bundle is not None}


def _bundle_of(session: Session, output: Output, kept: Bundle | None) -> Bundle | None:
    """That of the only channel."""
    kit = session.kit
    bundle = kit.bundle or kept
    if bundle is None and kit.protocol.inverse is not None:
        output.say(f"computing the {kit.protocol.inverse.model} inverse …")
        bundle = kit.fitted(session.path, kit.stack, kit.protocol.exposure_ms)
    if bundle is not None:
        from dmu_hw.reconstruct import Reconstructor  # noqa: PLC0415
        from dmu_hw.view.window import window_of  # noqa: PLC0415 - torch

        take = session.plan.takes["patterns"]
        dark = np.zeros((take.stack.count, *take.mode.shape), dtype=np.uint16)
        with outsiders(f"{session.path}: the inverse model {bundle.header.model!r}"):
            Reconstructor(bundle, window_of(session.plan, "patterns")).estimate(dark)
    return bundle


def _write_settings(run: RunFolder, session: Session, bundles: Mapping[str, Bundle]) -> None:
    """All that was decided, before the first light."""
    write_whole(run.protocol, session.text.encode())
    write_whole(run.rig, session.rig.file.text.encode())
    believed = session.belief.text()
    write_whole(run.calibration, believed.encode())
    if session.rig.pixels is not None:
        write_whole(run.pixels, session.rig.pixels.packed())
    session.sources.save(run.sources, write_whole)
    for name, bundle in bundles.items():
        bundle.save(run.bundle_of(name))
    if session.then is not None:
        session.then.save(run.then)
    settings = {
        "software": f"dmu-hw {__version__}",
        "protocol": session.protocol.model_dump(mode="json"),
        "protocol_path": str(session.path.resolve()),
        "protocol_hash": session.hash,
        "rig": session.rig.settings.model_dump(mode="json"),
        "rig_path": str(session.rig.file.path.resolve()),
        "rig_hash": session.rig.file.hash,
        "calibration_hash": text_hash(believed),
        "bundle_hash": _hashes(session, bundles),
        "plan": session.plan.as_json(),
    }
    write_whole(run.settings, json.dumps(settings, indent=1, allow_nan=False).encode())


def _hashes(session: Session, bundles: Mapping[str, Bundle]) -> str | dict[str, str | None] | None:
    """Of the bundle, or of those of the channels; null where there is none."""
    hashes = {name: bundles[name].hash if name in bundles else None for name in session.kits}
    return hashes.get("", hashes)

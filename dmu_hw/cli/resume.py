"""`dmu run --resume`: a run that was cut goes on at its first burst that is not sealed, with what it was begun with."""

from __future__ import annotations

import hashlib
import json
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmu_hw import __version__
from dmu_hw.cli.acquire import bundles_of, needed_bytes, run_held
from dmu_hw.cli.finish import finish, segments
from dmu_hw.cli.imaging import already, image
from dmu_hw.cli.living import live_of
from dmu_hw.cli.output import Output
from dmu_hw.cli.session import Kept, Session, load_bundle, open_session
from dmu_hw.cli.viewing import shown
from dmu_hw.errors import InputError, Problem
from dmu_hw.files import file_hash, read_text
from dmu_hw.hours import read_hours
from dmu_hw.lock import rig_held
from dmu_hw.past import Past, read_past
from dmu_hw.room import check_room
from dmu_hw.runfolder import RunFolder, open_run

if TYPE_CHECKING:
    from dmu_hw.bundle import Bundle


def resume_run(folder: Path, path: Path | None, rig_path: Path | None, output: Output, port: int | None = None) -> None:
    """Everything that a run lacks. What is given beside the run must be what it was begun with. With a port there is a
    page in the browser."""
    began_s = time.monotonic()
    output.lights = True
    run = open_run(folder)
    _check_resumable(run)
    with run_held(run, output):
        _check_resumable(run)  # whoever held it may have brought it to its end
        past = read_past(run.journal)
        session, bundles = _as_begun(run, past, path, rig_path, output)
        read_hours(session.rig.file)
        labelled, left = segments(bundles), len(session.plan.shots) - len(past.sealed)
        output.say(f"{run.path}: {len(past.sealed):,} bursts are there, {left:,} are to be taken")
        if past.ended:
            taken = already(session, past, labelled=labelled)
        else:
            live = live_of(session, bundles)
            disk_bytes = needed_bytes(session, bundles)
            check_room(run.path, disk_bytes - _spooled_bytes(run))
            with ExitStack() as instrument:
                instrument.enter_context(rig_held(session.rig.file))
                instrument.enter_context(session.rig.opened())
                view = instrument.enter_context(shown(session, run, live, output, port))
                taken = image(run, session, past, output, bundles=bundles, disk_bytes=disk_bytes, live=live, view=view)
        finish(run, session, bundles, taken, output, began_s)


def _check_resumable(run: RunFolder) -> None:
    if run.manifest.exists():
        raise InputError([Problem(str(run.path), "is complete: the run came to its end, there is nothing to resume")])
    if not run.journal.exists():
        begun = run.settings.exists() or run.protocol.exists()
        what = "nothing was taken yet: begin it anew" if begun else f"is no run folder: no {run.journal.name}"
        raise InputError([Problem(str(run.path), what)])


def _spooled_bytes(run: RunFolder) -> int:
    return sum(path.stat().st_size for path in run.spool.glob("*.tif"))


# ---------------------------------------------------------------- the same as it was begun with


def _as_begun(
    run: RunFolder, past: Past, path: Path | None, rig_path: Path | None, output: Output
) -> tuple[Session, dict[str, Bundle]]:
    """Protocol, rig and bundles of a run from its own copies, if they and all that is given are what they were."""
    settings = _settings(run, past)
    problems = [
        *_changed(run.protocol, settings["protocol_hash"], "the copy of the protocol was changed"),
        *_changed(run.rig, settings["rig_hash"], "the copy of the rig was changed"),
        *_doubted(run, settings),
        *(_foreign(path, settings["protocol_hash"], "protocol", run) if path is not None else ()),
        *(_foreign(rig_path, settings["rig_hash"], "rig", run) if rig_path is not None else _moved_on(settings, run)),
    ]
    if problems:
        raise InputError(problems)
    kept = Kept.of(run, settings)
    if kept.belief is not None:
        # no reason to leave a run without its end
        for what in kept.belief.stale(datetime.now(UTC)):
            output.say(f"caution: {what}; the run goes on with it, as it began")
    session = open_session(Path(settings["protocol_path"]), kept=kept)
    _check_plan(run, session, settings)
    hashes = settings["bundle_hash"] if isinstance(settings["bundle_hash"], dict) else {"": settings["bundle_hash"]}
    bundles = {name: _kept_bundle(run.bundle_of(name), hash_) for name, hash_ in hashes.items() if hash_ is not None}
    return session, bundles_of(session, output, bundles)


def _doubted(run: RunFolder, settings: dict[str, Any]) -> list[Problem]:
    wanted = settings.get("calibration_hash")
    if wanted is None or (run.calibration.is_file() and file_hash(run.calibration) == wanted):
        return []
    return [Problem(str(run.calibration), "is not what was believed when the run began: missing, or changed since")]


def _kept_bundle(path: Path, wanted: str) -> Bundle:
    bundle = load_bundle(path)
    if bundle.hash != wanted:
        raise InputError([Problem(str(path), "is not the bundle that the run was begun with")])
    return bundle


def _settings(run: RunFolder, past: Past) -> dict[str, Any]:
    """What was decided when the run was begun, as the journal vouches for it."""
    if past.began is not None and file_hash(run.settings) != past.began["settings"]:
        raise InputError([Problem(str(run.settings), "was changed since the run began")])
    settings: dict[str, Any] = json.loads(run.settings.read_bytes())
    return settings


def _hash(path: Path) -> str:
    return hashlib.sha256(read_text(path).encode()).hexdigest()


def _changed(path: Path, wanted: str, what: str) -> list[Problem]:
    return [] if _hash(path) == wanted else [Problem(str(path), what)]


def _foreign(path: Path, wanted: str, what: str, run: RunFolder) -> list[Problem]:
    given = _hash(path)
    if given == wanted:
        return []
    return [Problem(str(path), f"is not the {what} of {run.path}: that is {wanted[:12]}, given {given[:12]} (SHA-256)")]


def _moved_on(settings: dict[str, Any], run: RunFolder) -> list[Problem]:
    """The instrument may be another by now than the one that the run was begun with: somebody must say that it is
    not."""
    path = Path(settings["rig_path"])
    if not path.is_file() or _hash(path) == settings["rig_hash"]:
        return []
    what = f"was changed since the run began; if the instrument is still as it was, say so by --rig {run.rig}"
    return [Problem(str(path), what)]


def _check_plan(run: RunFolder, session: Session, settings: dict[str, Any]) -> None:
    """Another version may plan otherwise, and its shots would not be those that are sealed."""
    now: dict[str, Any] = json.loads(json.dumps(session.plan.as_json()))
    then = settings["plan"]
    others = [key for key in then | now if then.get(key) != now.get(key)]
    if others:
        what = f"was planned by {settings['software']}; dmu-hw {__version__} plans {', '.join(others)} otherwise"
        raise InputError([Problem(str(run.path), what)])

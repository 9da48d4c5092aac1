"""`dmu reconstruct`: images of runs that have ended, made afresh, by any bundle that fits, here or on a cluster."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, cast

import numpy as np

from dmu_hw.bundle import Bundle
from dmu_hw.cli.output import DONE, INCOMPLETE, Output
from dmu_hw.cli.remaking import Remake
from dmu_hw.cli.session import load_bundle
from dmu_hw.errors import InputError, Problem, RunError
from dmu_hw.files import Settings, content_hash, load_yaml
from dmu_hw.lock import held
from dmu_hw.metrics import mse
from dmu_hw.moves import move
from dmu_hw.omezarr import Store
from dmu_hw.pool import Done, Job, Local, run
from dmu_hw.pool.settings import Engine
from dmu_hw.room import check_room
from dmu_hw.runfolder import RunFolder, open_run, read_sealed, write_sealed
from dmu_hw.view.amounts import plural


class EngineFile(Settings):
    """Where to reconstruct, in the words of a sweep."""

    engine: Engine


def reconstruct_runs(
    folders: Sequence[Path], bundles: Sequence[str], engine: Path | None, workers: int | None, output: Output
) -> None:
    """Every image of every run; what is there already is not made again, and what was cut goes on."""
    began_s = time.monotonic()
    given = _given(bundles)
    where: Engine = Local(workers=workers) if engine is None else load_yaml(engine, EngineFile).engine
    if engine is not None and workers is not None:
        raise InputError([Problem("--workers", f"{engine} says where to reconstruct, and with how many")])
    remakes = _remakes(folders, given)
    left = [remake for remake in remakes if not remake.run.remade_record(remake.name).is_file()]
    for remake in remakes:
        if remake not in left:
            output.say(f"{remake.path}: is there already")
    if left:
        output.remains = "the same command goes on where this one ended"
        _make(left, where, output)
        output.remains = ""
    told = [read_sealed(remake.run.remade_record(remake.name)) | {"images": str(remake.path)} for remake in remakes]
    for facts in told:
        output.say(_line(facts))
    output.finish(
        INCOMPLETE if any(facts["failures"] for facts in told) else DONE,
        runs=[{key: value for key, value in facts.items() if key not in ("files", "sha256")} for facts in told],
        wall_s=time.monotonic() - began_s,
    )


def _line(facts: dict[str, Any]) -> str:
    """One run, for people."""
    missing = facts["bursts"] - facts["made"]
    metrics = "".join(f"; {name} {value:.2f}" for name, value in facts["metrics"].items())
    return f"{facts['images']}: {plural(facts['made'], 'image')}{f', {missing:,} missing' if missing else ''}{metrics}"


# ---------------------------------------------------------------- what is asked for


def _given(bundles: Sequence[str]) -> dict[str | None, Bundle]:
    """Bundles by channel; None is whichever there is."""
    found: dict[str | None, Bundle] = {}
    for text in bundles:
        name, split, file = text.partition("=")
        # a path may hold an equals sign as well
        key, path = (name, Path(file)) if split and not Path(text).exists() else (None, Path(text))
        if key in found:
            raise InputError([Problem("--bundle", f"names two bundles for {key or 'one channel'}")])
        found[key] = load_bundle(path)
    return found


def _remakes(folders: Sequence[Path], given: dict[str | None, Bundle]) -> list[Remake]:
    """All of them, or all that stands against any."""
    remakes: list[Remake] = []
    problems: list[Problem] = []
    for folder in dict.fromkeys(folder.resolve() for folder in folders):
        try:
            remakes.append(Remake.of(_ended(folder), given))
        except InputError as error:
            problems.extend(error.problems)
    if problems:
        raise InputError(problems)
    return remakes


def _ended(folder: Path) -> RunFolder:
    found = open_run(folder)
    if not found.manifest.exists():
        what = "did not come to its end: end it by dmu run --resume, or this is no run folder"
        raise InputError([Problem(str(folder), what)])
    return found


# ---------------------------------------------------------------- doing it


def _make(remakes: Sequence[Remake], engine: Engine, output: Output) -> None:
    """Each run is closed as soon as the last of its shares is there."""
    with ExitStack() as ending:
        for remake in remakes:
            ending.callback(remake.run.lock.unlink, missing_ok=True)
            ending.enter_context(held(remake.run.lock, f"run {remake.run.path}"))
            check_room(remake.run.path, remake.needed_bytes)
            remake.begin()
        owners = {job.key: (remake, job) for remake in remakes for job in remake.jobs()}
        jobs = [job for _, job in owners.values()]
        folder = remakes[0].run.path.parent / f".reconstructing-{content_hash({'jobs': sorted(owners)})[:8]}"
        ended: dict[str, list[Done]] = {}
        failed: list[str] = []
        coming = cast("Generator[Done]", run(jobs, folder, engine, again=True))
        with output.progress("reconstructing") as progress, closing(coming):  # whoever stops here stops the workers
            progress(0, len(jobs))
            for number, done in enumerate(coming, start=1):
                remake, _ = owners[done.job.key]
                if done.failed:
                    failed.append(f"{remake.run.path}: {done.record.error}")
                shares = ended.setdefault(remake.name + str(remake.run.path), [])
                shares.append(done)
                progress(number, len(jobs))
                if len(shares) == _shares(remake, jobs) and not any(share.failed for share in shares):
                    _close(remake, shares)
        if failed:
            raise RunError("; ".join(failed[:5]) + (f"; and {len(failed) - 5} more" if len(failed) > 5 else ""))
        shutil.rmtree(folder)


def _shares(remake: Remake, jobs: Sequence[Job]) -> int:
    run_path = str(remake.run.path.resolve())
    return sum(job.config["run"] == run_path for job in jobs)


def _close(remake: Remake, shares: Sequence[Done]) -> None:
    """Whole, or not there: what should have an image has one, or a reason why not."""
    failures: dict[str, int] = {}
    for share in shares:
        for reason, count in (share.record.result or {})["failures"].items():
            failures[reason] = failures.get(reason, 0) + count
    bursts, whole, made = remake.counted()
    if made + sum(failures.values()) != whole:
        what = f"holds {made:,} images of {whole:,}, and {sum(failures.values()):,} failed: remove it and try again"
        raise RunError(f"{remake.part}: {what}")
    move(remake.part, remake.path)
    facts = {
        "run": remake.run.path.name,
        "bundles": {name: {"name": bundle.header.name, "hash": bundle.hash} for name, bundle in remake.bundles.items()},
        "bursts": bursts,
        "made": made,
        "failures": failures,
        "metrics": _metrics(remake),
    }
    write_sealed(remake.run.remade_record(remake.name), {**facts, "files": remake.run.sums(remake.files())})


def _metrics(remake: Remake) -> dict[str, float]:
    """PSNR in dB against the truth where the run kept it; what a segmenter looks at is no image to be judged."""
    if not remake.run.truth.is_dir():
        return {}
    images, truth = Store(remake.path), Store(remake.run.truth)
    found: dict[str, float] = {}
    for index, source in enumerate(remake.sources):
        if source.bundle.header.task == "segment" or not truth.has(source.channel):
            continue
        of_truth = truth.channel(source.channel)
        pairs = ((images.burst(*place)[index], truth.burst(*place)[of_truth]) for place in remake.places())
        errors = [mse(image, true) for image, true in pairs if np.isfinite(image).all() and np.isfinite(true).all()]
        if errors and np.mean(errors) > 0:
            name = f"{source.channel}: PSNR / dB" if source.channel else "PSNR / dB"
            found[name] = -10 * math.log10(float(np.mean(errors)))
    return found

"""`dmu sweep`: very many trainings with some settings varied; a table of all of them, and heat maps."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from dmu_hw.cli.learn import optics_of_rig
from dmu_hw.cli.output import DONE, INCOMPLETE, Output
from dmu_hw.cli.session import outsiders
from dmu_hw.errors import InputError, Problem
from dmu_hw.files import load_yaml, read_text, write_whole
from dmu_hw.heatmaps import NEEDS, write_heat_maps
from dmu_hw.pool import Done, Job, Local, find, run
from dmu_hw.pool.settings import cores
from dmu_hw.sweep import Expansion, Sweep, estimate, expand
from dmu_hw.trials import rows, write_table
from dmu_hw.view.amounts import duration, plural

_PROBE_UPDATES = 4
_LINE_S = 10.0
"""A line for people no more often than this; failures at once."""
_TOLD_FAILURES = 20


def read_sweep(path: Path) -> tuple[Sweep, Expansion]:
    """What is wrong with a sweep or with any of its trials is said."""
    sweep = load_yaml(path, Sweep)
    with outsiders(str(path)):
        return sweep, expand(sweep, optics_of_rig)


def sweep_settings(path: Path, out: Path, device: str, output: Output, *, dry_run: bool, again: bool) -> None:
    """Train all, or say how long that would take; what is done already is not done again."""
    sweep, expansion = read_sweep(path)
    _use(device, sweep)
    jobs, folder = expansion.jobs, out / sweep.name
    output.known |= {"folder": str(folder), "trials": len(jobs), "left_out": expansion.left_out_count}
    for problem in expansion.left_out:
        output.say(f"left out: {problem}")
    if dry_run:
        _show_price(sweep, jobs, folder, output)
    output.remains = f"{folder} keeps what is done; the same command goes on from there"
    failed = _run(sweep, jobs, folder, output, again=again)
    write_whole(folder / "sweep.yaml", read_text(path).encode())
    table, pictures = _keep(sweep, jobs, folder)
    output.remains = ""
    for told in failed[:_TOLD_FAILURES]:
        output.say(f"failed: {told}")
    if failed:
        output.say(f"{len(failed):,} of {plural(len(jobs), 'trial')} failed; --again tries them once more")
    for written in (table, *(picture for picture in pictures if picture.suffix == ".png")):
        output.say(str(written))
    if not pictures:
        output.say(f"no heat maps: {NEEDS}")
    output.finish(
        INCOMPLETE if failed else DONE,
        table=str(table),
        heat_maps=[str(picture) for picture in pictures],
        failed=failed,
    )


def _use(device: str, sweep: Sweep) -> None:
    """Workers see no other device than the one that is named."""
    if device == "auto":
        return
    if not isinstance(sweep.engine, Local):
        raise InputError(
            [Problem("--device", f"engine {sweep.engine.kind!r} gives out its GPUs itself: gpus in the YAML")]
        )
    kind, _, number = device.partition(":")
    if kind == "cpu" and not number:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    elif kind == "cuda" and (not number or number.isdecimal()):
        _check_gpu(device, int(number or 0))
        known = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        os.environ["CUDA_VISIBLE_DEVICES"] = known.split(",")[int(number or 0)] if known else number or "0"
    else:
        raise InputError([Problem("--device", f"must be auto, cpu, cuda or cuda:0, cuda:1, …, given {device!r}")])


def _check_gpu(device: str, number: int) -> None:
    import torch  # noqa: PLC0415 - large, and only for those who name a GPU

    there = torch.cuda.device_count()
    if number >= there:
        raise InputError([Problem("--device", f"there is no {device}: {plural(there, 'GPU')} here")])


# ---------------------------------------------------------------- how long


def _show_price(sweep: Sweep, jobs: Sequence[Job], folder: Path, output: Output) -> None:
    told = estimate(jobs, folder, sweep.engine)
    if told.seconds_each is None and told.left:
        output.say("no trial has come to its end yet: a few updates tell how long they take …")
        told = replace(told, seconds_each=_probed_s(jobs, output))
    for key, values in sweep.grid.items():
        output.say(f"{key}: {', '.join(str(value) for value in values)}")
    for name, count in (("points", len(sweep.points)), ("seeds", sweep.seeds)):
        if count > 1:
            output.say(f"{name}: {count}")
    kept = f", {told.kept:,} of them there already" + (f" ({told.failed:,} failed)" if told.failed else "")
    left = "" if told.seconds_left is None else f"; about {duration(told.seconds_left)} more, {told.at_once} at a time"
    output.say(f"{plural(told.trials, 'trial')}{kept if told.kept else ''}{left}")
    output.finish(DONE, kept=told.kept, kept_failed=told.failed, left=told.left, seconds_left=told.seconds_left)


def _probed_s(jobs: Sequence[Job], output: Output) -> float | None:
    """About how long a trial takes, from the beginning and a few updates of the first and of the last."""
    probed = {job.key: job for job in (jobs[0], jobs[-1])}.values()
    pairs = [(job, [_shortened(job, updates) for updates in (1, _PROBE_UPDATES)]) for job in probed]
    with tempfile.TemporaryDirectory() as folder:
        short = [job for _, some in pairs for job in some]
        took = {done.job.key: done.record for done in run(short, Path(folder), Local(workers=min(len(pairs), cores())))}
    failed = [record.error for record in took.values() if record.error is not None]
    if failed:
        output.say(f"they fail: {failed[0]}")
        return None
    each: list[float] = []
    for job, (one, few) in pairs:
        begun_s, updated_s = took[one.key].seconds, took[few.key].seconds
        per_update_s = max(0.0, updated_s - begun_s) / (_PROBE_UPDATES - 1)
        each.append(begun_s + per_update_s * (job.config["schedule"]["updates"] - 1))
    return sum(each) / len(each)


def _shortened(job: Job, updates: int) -> Job:
    return Job(job.call, {**job.config, "schedule": job.config["schedule"] | {"updates": updates}})


# ---------------------------------------------------------------- doing it


def _run(sweep: Sweep, jobs: Sequence[Job], folder: Path, output: Output, *, again: bool) -> list[str]:
    """Every trial has a result, or a reason why not: these are told."""
    failed: list[str] = []
    keys = [key for key in sweep.keys if len({repr(_value(job.config, key)) for job in jobs}) > 1]
    coming = cast("Generator[Done]", run(jobs, folder, sweep.engine, again=again))
    with _following(len(jobs), output) as tell, closing(coming):  # whoever stops here stops the workers
        for done in coming:
            who = _named(done.job, keys)
            if done.failed:
                failed.append(f"{who}: {done.record.error}")
            tell(done, who)
    return failed


@contextmanager
def _following(total: int, output: Output) -> Iterator[Any]:
    """A bar where somebody looks, and now and then a line with the time left."""
    began_s = told_s = time.monotonic()
    ended = new = 0
    with output.progress("trials") as progress:

        def tell(done: Done, who: str) -> None:
            nonlocal told_s, ended, new
            ended, new = ended + 1, new + (not done.kept)
            progress(ended, total)
            now_s = time.monotonic()
            if done.kept or not (done.failed or ended == total or now_s - told_s > _LINE_S):
                return
            told_s = now_s
            left = f"; about {duration((now_s - began_s) / new * (total - ended))} left" if ended < total else ""
            how = f"FAILED, {done.record.error}" if done.failed else f"done in {duration(done.record.seconds)}"
            output.say(f"trial {ended:,} of {total:,}: {who}: {how}{left}")

        progress(0, total)
        yield tell
    if ended > new:
        output.say(f"{ended - new:,} of {plural(total, 'trial')} were there already")


def _named(job: Job, keys: Sequence[str]) -> str:
    """What a trial has of its own."""
    return ", ".join(f"{key} {_value(job.config, key)}" for key in keys) or job.key


def _value(config: Any, key: str) -> Any:
    for step in key.split("."):
        config = config.get(step) if isinstance(config, dict) else None
    return config


# ---------------------------------------------------------------- what came of it


def _keep(sweep: Sweep, jobs: Sequence[Job], folder: Path) -> tuple[Path, list[Path]]:
    """The table of all results in the folder, and maps of this sweep's own."""
    table = write_table(folder, sweep.keys)
    found = rows((record for job in jobs if (record := find(job, folder)) is not None), sweep.keys)
    return table, write_heat_maps(found, sweep.keys, folder)

"""The one way to run jobs, whatever the engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from dmu_hw.pool.jobs import Done, Job, Record, find, path_of
from dmu_hw.pool.settings import Engine, Local, Ray

Work = Callable[[Sequence[Job], Path], Iterator[tuple[Job, Record]]]


def run(jobs: Iterable[Job], folder: Path, engine: Engine, *, again: bool = False) -> Iterator[Done]:
    """Yields every job once: first those whose result is there already, then the others as they finish.

    A failure counts as a result unless `again`. Whoever stops listening (Ctrl-C, close) stops the workers."""
    work = _work(engine)
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return _run({job.key: job for job in jobs}, folder, work, again=again)


def _run(jobs: dict[str, Job], folder: Path, work: Work, *, again: bool) -> Iterator[Done]:
    todo = []
    for job in jobs.values():
        record = find(job, folder)
        if record is not None and not (again and record.error):
            yield Done(job, record, kept=True)
        else:
            path_of(job, folder).unlink(missing_ok=True)
            todo.append(job)
    if todo:
        for job, record in work(todo, folder):
            yield Done(job, record, kept=False)


def _work(engine: Engine) -> Work:
    """The engine, loaded; that it is not installed is said before anything is touched."""
    if isinstance(engine, Local):
        from dmu_hw.pool.local import LocalPool  # noqa: PLC0415 - one engine of three is needed

        return LocalPool(engine).work
    if isinstance(engine, Ray):
        from dmu_hw.pool.ray import RayPool  # noqa: PLC0415

        return RayPool(engine).work
    from dmu_hw.pool.slurm import SlurmPool  # noqa: PLC0415

    return SlurmPool(engine).work

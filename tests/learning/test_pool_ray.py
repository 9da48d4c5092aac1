"""The same promises on Ray."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dmu_hw.errors import InputError
from dmu_hw.pool import Job, Ray, find, run

ray = pytest.importorskip("ray")
ENGINE = Ray(kind="ray", cpus=0.5, tries=3)


def toy(name: str, **config: Any) -> Job:
    return Job(f"pool_toys:{name}", config)


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> Iterator[None]:
    """Started by hand, as on a cluster; then the pool must leave it running."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        yield
        ray.shutdown()


def test_workers_that_are_killed_and_jobs_that_fail(tmp_path: Path) -> None:
    mortal = [toy("mortal", deaths=2), toy("mortal", deaths=99), toy("mortal", deaths=1, signal=int(signal.SIGABRT))]
    jobs = [*mortal, *(toy("square", x=x) for x in range(20)), toy("wrong", way="raise", x=3)]
    done = {done.job.key: done.record for done in run(jobs, tmp_path, ENGINE)}
    results = [done[job.key].result for job in jobs]
    assert results == [{"begun": 3}, None, {"begun": 2}, *({"square": x * x} for x in range(20)), None]
    lost, failed = done[jobs[1].key].error, done[jobs[-1].key].error
    assert lost is not None
    assert failed is not None
    assert lost.type == "Lost"
    assert "tried 3 times" in lost.message
    assert failed.type == "ValueError"
    assert all(find(job, tmp_path) == done[job.key] for job in jobs)
    assert all(again.kept for again in run(jobs, tmp_path, ENGINE))
    assert ray.is_initialized()


def test_who_stops_listening_stops_the_jobs(tmp_path: Path) -> None:
    work = run([toy("square", x=0), toy("slow_once", x=1)], tmp_path, ENGINE)
    assert next(work).record.result == {"square": 0}
    work.close()  # type: ignore[attr-defined]
    (done,) = run([toy("square", x=5, seconds=0.01)], tmp_path, Ray(kind="ray", cpus=2))  # all of them: none is taken
    assert done.record.result == {"square": 25}


def test_no_ray_at_the_address(tmp_path: Path) -> None:
    ray.shutdown()
    with pytest.raises(InputError, match="Ray cannot be reached"):
        list(run([toy("square", x=1)], tmp_path, Ray(kind="ray", address="auto")))

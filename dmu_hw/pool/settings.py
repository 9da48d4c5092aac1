"""Where jobs run. Loads no engine."""

from __future__ import annotations

import os
from typing import Annotated, Literal

from pydantic import Field

from dmu_hw.files import Count, NonNegative, Positive, Settings

Tries = Annotated[int, Field(ge=1, le=100)]


class Local(Settings):
    """Processes on this computer."""

    kind: Literal["local"] = "local"
    workers: Count | None = None
    """null: one for each core."""
    tries: Tries = 3
    """How often a job is begun whose worker was killed."""

    @property
    def crew(self) -> int:
        return self.workers or cores()

    @property
    def threads(self) -> int:
        """That each worker may use."""
        return max(1, cores() // self.crew)


class Ray(Settings):
    """Ray, on one computer or a cluster. All nodes must see the folder and have this package."""

    kind: Literal["ray"]
    address: str | None = None
    """Of a cluster, `auto` or `ray://HOST:10001`; null: Ray is started here and ends with the sweep."""
    cpus: Positive = 1.0
    """That a job takes."""
    gpus: NonNegative = 0.0
    """Of each job; parts are shared. 0: it sees none."""
    tries: Tries = 3


class Slurm(Settings):
    """SLURM by submitit. All nodes must see the folder and have this package."""

    kind: Literal["slurm"]
    cluster: Literal["local", "debug"] | None = None
    """null: SLURM; local and debug: submitit's own stand-ins, to try things without one."""
    partition: str | None = None
    timeout_min: Count = 60
    """Of one task; a job that was cut goes on in another."""
    cpus: Count = 1
    gpus: Annotated[int, Field(ge=0)] = 0
    memory_gb: Positive | None = None
    jobs_a_task: Count = 1
    """Short jobs share a task, one after another."""
    array_size: Annotated[int, Field(ge=1, le=100_000)] = 1000
    """Tasks in one array; a cluster's MaxArraySize allows so many."""
    at_once: Count = 256
    """Tasks of an array that run at the same time."""
    setup: tuple[str, ...] = ()
    """Shell lines before Python, such as `module load`."""
    extra: dict[str, str | int | bool] = Field(default_factory=dict)
    """More parameters of sbatch, such as {account: mine}."""
    tries: Tries = 3


Engine = Annotated[Local | Ray | Slurm, Field(discriminator="kind")]


def cores() -> int:
    """Cores that this process may use."""
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1

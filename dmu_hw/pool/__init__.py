"""Very many independent jobs on engines that exist: processes here, Ray, SLURM.

A job is one pure function of a configuration; its result is one file, named by the hash of both. So any job may be
killed and run again, and what is there need not be run. Two pools may work in one folder: at worst both compute the
same, and each writes the same file whole.
"""

from __future__ import annotations

from dmu_hw.pool.jobs import Done, Failure, Job, Record, find, records
from dmu_hw.pool.run import run
from dmu_hw.pool.settings import Engine, Local, Ray, Slurm

__all__ = ["Done", "Engine", "Failure", "Job", "Local", "Ray", "Record", "Slurm", "find", "records", "run"]

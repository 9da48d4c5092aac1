"""A laser twin in its own process, rigs whose light it is, and its own account of when it was on."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from fakes import bench_rig

from dmu_hw.rig import Rig, load_rig
from dmu_hw.twins.laser import YAML

posix = pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
WATCHDOG_MS = 250.0


@dataclass(frozen=True)
class Change:
    """The light went on or off, on the laser's own clock, which is that of all processes."""

    time_s: float
    lit: bool
    why: str
    power_w: float


class Laser:
    """The process."""

    def __init__(self, folder: Path, watchdog_ms: float | None, dialect: str = "generic") -> None:
        self.log = folder / "laser.jsonl"
        self.watchdog_ms = watchdog_ms
        self.dialect = dialect
        command = [sys.executable, "-m", "dmu_hw.twins.laser", "--log", str(self.log), "--dialect", dialect]
        command += [] if watchdog_ms is None else ["--watchdog-ms", str(watchdog_ms)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.port = self.process.stdout.readline().strip()

    def suffer(self, what: str) -> None:
        """Let something go wrong from now on."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == f"{what}\n"

    def changes(self) -> list[Change]:
        return [Change(**json.loads(line)) for line in self.log.read_text().splitlines()]

    @property
    def lit(self) -> bool:
        changes = self.changes()
        return bool(changes) and changes[-1].lit

    def wait(self, lit: bool, within_s: float = 30.0) -> None:
        """Until it is on, or off."""
        until_s = time.monotonic() + within_s
        while self.lit != lit:
            assert time.monotonic() < until_s, f"the light is {'off' if lit else 'on'} after {within_s:g} s"
            time.sleep(0.001)

    def dark_after_s(self, moment_s: float) -> float:
        """How long after a moment it went off for good; below 0 if it was off already."""
        time.sleep(0.05)
        changes = self.changes()
        assert not changes[-1].lit
        return changes[-1].time_s - moment_s

    def yaml(self, **changes: Any) -> dict[str, Any]:
        """What a rig says of it."""
        told: dict[str, Any] = {"port": self.port, "max_power_mw": 10.0}
        if self.dialect != "generic":
            return {"driver": self.dialect, **told, **changes}
        return {**YAML, **told, "watchdog_ms": self.watchdog_ms, **changes}

    def end(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
        self.process.wait(10.0)


@contextmanager
def laser(folder: Path, watchdog_ms: float | None = WATCHDOG_MS, dialect: str = "generic") -> Iterator[Laser]:
    made = Laser(folder, watchdog_ms, dialect)
    try:
        yield made
    finally:
        made.end()


def laser_rig(folder: Path, light: dict[str, Any], **changes: Any) -> Rig:
    """The bench with another light, not opened; `changes` are keys of the rig."""
    path = bench_rig(folder, side=32).file.path
    rig = yaml.safe_load(path.read_text())
    rig["devices"]["light"] = light
    path.write_text(yaml.safe_dump({**rig, **changes}))
    return Rig(load_rig(path))

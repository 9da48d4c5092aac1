"""Jobs for the tests of the pool. Workers import this by name."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def square(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    time.sleep(config.get("seconds", 0))
    return {"square": config["x"] ** 2}


def busy(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Computes, rather than sleeps."""
    end, rounds = time.perf_counter() + config["seconds"], 0
    while time.perf_counter() < end:
        rounds += 1
    return {"x": config["x"], "rounds": rounds}


def threads(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    return {"threads": int(os.environ["OMP_NUM_THREADS"])}


def wrong(config: dict[str, Any], folder: Path) -> Any:
    """Fails in the way that it is told to."""
    if config["way"] == "exit":
        sys.exit("enough")
    if config["way"] == "raise":
        raise ValueError(f"no {config['x']} \udcff")
    return {"nan": {"y": float("nan")}, "list": [1], "object": {"y": object()}}[config["way"]]


def mortal(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Is killed so many times before it comes to its end; a child of its own outlives it if nobody cares."""
    begun = folder / "begun"
    with open(begun, "a") as file:
        file.write("x")
    sys.stderr.write("begun\n")
    if len(begun.read_text()) <= config["deaths"]:
        if config.get("child"):
            subprocess.Popen(["sleep", "60"], close_fds=False)
        os.kill(os.getpid(), config.get("signal", signal.SIGKILL))
    return {"begun": len(begun.read_text())}


def slow_once(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Says by a file that it runs, and runs for a minute the first time."""
    begun = folder / f"begun-{os.getpid()}"
    first = not any(folder.glob("begun-*"))
    begun.touch()
    if first:
        time.sleep(60)
    return {"first": first}


def pause(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    time.sleep(0.03)
    return {"test_mse": config["patterns"]["camera_pixel"] ** 2 / config["patterns"]["count"]}

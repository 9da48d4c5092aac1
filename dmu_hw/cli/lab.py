"""`dmu new`: a lab folder of one's own."""

from __future__ import annotations

import shutil
from pathlib import Path

import dmu_hw
from dmu_hw.cli.output import DONE, Output
from dmu_hw.errors import InputError, Problem

PARTS = ("devices", "calibration", "protocols")


def write_lab(folder: Path, output: Output) -> None:
    """Copy the examples; a folder that holds anything is left alone."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError([Problem(str(folder), "exists already and is not empty")])
    source = _examples()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        for part in PARTS:
            shutil.copytree(source / part, folder / part, ignore=shutil.ignore_patterns("__pycache__", "results"))
    except BaseException:
        for part in PARTS:
            shutil.rmtree(folder / part, ignore_errors=True)  # half a lab would look like a whole one
        raise
    output.say(f"{folder} is ready; try: dmu run {folder / 'protocols' / 'quickstart.yaml'}")
    output.finish(DONE, folder=str(folder))


def _examples() -> Path:
    """Beside the package in a checkout, inside it when a wheel was installed."""
    package = Path(dmu_hw.__file__).parent
    for place in (package / "lab", package.parent):
        if all((place / part).is_dir() for part in PARTS):
            return place
    raise InputError("the example files were not installed with this package")

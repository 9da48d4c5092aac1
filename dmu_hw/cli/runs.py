"""`dmu verify` and `dmu export`: finished runs."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import NoReturn

from dmu_hw.cli.output import DONE, FAILED, INCOMPLETE, Output
from dmu_hw.errors import DmuError, InputError, Problem, RunError
from dmu_hw.export import export_tiff
from dmu_hw.mosaic import export_mosaic
from dmu_hw.omezarr import Labels, Store
from dmu_hw.runfolder import RunFolder, open_run
from dmu_hw.verify import verify

_LABELS = {"labels": "reconstruction", "truth-labels": "truth"}
"""Objects that can be exported, and the store whose they are."""


def known_run(folder: Path) -> RunFolder:
    """A folder that a run has made, whole or not."""
    run = open_run(folder)
    if not run.manifest.exists() and not run.journal.exists():
        raise InputError([Problem(str(folder), f"is no run folder: no {run.manifest.name}, no {run.journal.name}")])
    return run


def verify_run(folder: Path, output: Output) -> None:
    """Say what is damaged; 3 when nothing is, but the run has gaps."""
    findings = verify(known_run(folder))
    for what in findings.damage:
        output.say(f"damaged: {what}")
    for name in findings.unfinished:
        output.say(f"{name}: made after the run, and not to the end; dmu reconstruct goes on with it")
    if findings.cut:
        output.say("the run was cut before its end")
    if findings.missing:
        output.say(f"frames that the run itself recorded as missing: {findings.missing:,}")
    if not findings.damage:
        output.say(f"{folder}: sound, {findings.frames:,} frames in {findings.files:,} files")
    complete = not (findings.cut or findings.missing or findings.damage)
    status = DONE if complete else FAILED if findings.damage else INCOMPLETE
    output.finish(status, damage=findings.damage, frames=findings.frames, missing=findings.missing, complete=complete)


def export_run(folder: Path, file: Path, what: str, output: Output, *, mosaic: bool = False) -> None:
    """One of the run's stores, or the objects in it, as OME-TIFF: field by field, or all in one image."""
    run = known_run(folder)
    stores = {path.name.removesuffix(".ome.zarr"): path for path in sorted(run.path.glob("*.ome.zarr"))}
    paths = stores | {name: stores[of] for name, of in _LABELS.items() if of in stores and _labelled(stores[of])}
    if what not in paths:
        there = ", ".join(paths) or "none, so that nothing can be exported"
        raise InputError([Problem(str(folder), f"holds no images {what!r} (--what); there are: {there}")])
    if not file.absolute().parent.is_dir():
        raise InputError([Problem(str(file), f"there is no folder {file.parent}")])
    path = paths[what]
    try:
        if mosaic:
            _export_mosaic(path, what, file, output)
        fields = export_tiff(Labels(path) if what in _LABELS else Store(path), file)
    except (KeyError, ValueError, RuntimeError, TypeError) as error:
        # what zarr and its codecs raise over damaged chunks and metadata
        raise RunError(f"{path}: is damaged: {error} (dmu verify names what is)") from error
    output.say(f"{file}: {fields:,} fields")
    output.finish(DONE, file=str(file), fields=fields)


def _export_mosaic(path: Path, what: str, file: Path, output: Output) -> NoReturn:
    if what in _LABELS:
        raise InputError([Problem(what, "make no mosaic: an object that two fields share has two numbers")])
    canvas = export_mosaic(Store(path), file)
    rows, columns = canvas.shape_px
    output.say(f"{file}: {columns:,}x{rows:,} pixels from {len(canvas.corners_px):,} fields")
    output.finish(DONE, file=str(file), fields=len(canvas.corners_px), shape=canvas.shape)


def _labelled(path: Path) -> bool:
    with contextlib.suppress(DmuError):  # damage is told when the store itself is asked for
        return Store(path).labelled
    return False

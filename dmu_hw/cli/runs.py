"""`dmu verify` and `dmu export`: finished runs."""

from __future__ import annotations

from pathlib import Path

from dmu_hw.cli.output import DONE, FAILED, INCOMPLETE, Output
from dmu_hw.errors import InputError
from dmu_hw.export import export_tiff
from dmu_hw.omezarr import Store
from dmu_hw.runfolder import open_run
from dmu_hw.verify import verify


def verify_run(folder: Path, output: Output) -> None:
    """Say what is damaged; 3 when nothing is, but the run has gaps."""
    findings = verify(open_run(folder))
    for what in findings.damage:
        output.say(f"damaged: {what}")
    if findings.cut:
        output.say("the run was cut before its end")
    if findings.missing:
        output.say(f"{findings.missing} frames are recorded as missing")
    if not findings.damage:
        output.say(f"sound: {findings.frames} frames, {findings.files} files")
    incomplete = findings.cut or findings.missing > 0
    status = FAILED if findings.damage else INCOMPLETE if incomplete else DONE
    output.finish(
        status, damage=findings.damage, frames=findings.frames, missing=findings.missing, complete=not incomplete
    )


def export_run(folder: Path, file: Path, what: str, output: Output) -> None:
    """One of the run's stores as OME-TIFF."""
    run = open_run(folder)
    stores = sorted(path.name.removesuffix(".ome.zarr") for path in run.path.glob("*.ome.zarr"))
    if what not in stores:
        raise InputError(
            f"--what must be one of: {', '.join(stores) or 'nothing, the run holds no images'}; given {what!r}"
        )
    fields = export_tiff(Store(run.path / f"{what}.ome.zarr"), file)
    output.say(f"{file}: {fields} fields")
    output.finish(DONE, file=str(file), fields=fields)

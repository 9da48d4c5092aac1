"""Is a run folder what it was when the run ended? Every checksum; damage is told frame by frame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dmu_hw.errors import RunError
from dmu_hw.files import file_hash
from dmu_hw.journal import Line, crc32c, read_journal
from dmu_hw.omezarr import Store, chunk_place
from dmu_hw.runfolder import RunFolder
from dmu_hw.spool import SpoolReader


@dataclass
class Findings:
    """What was looked at and what is wrong."""

    files: int = 0
    frames: int = 0
    missing: int = 0
    """Frames that the run itself recorded as missing."""
    damage: list[str] = field(default_factory=list)
    cut: bool = False
    """The run never came to its end."""


def verify(run: RunFolder) -> Findings:
    """Check a finished run against its manifest, or what a cut run left against its journal."""
    if not run.manifest.exists():
        return _verify_cut(run)
    findings = Findings()
    try:
        manifest = run.read_manifest()
    except RunError as error:
        findings.damage.append(str(error))
        return findings
    sums: dict[str, str] = manifest["files"]
    present = {path.relative_to(run.path).as_posix(): path for path in run.files()}
    for name in sorted(set(sums) | set(present)):
        if name not in present:
            findings.damage.append(f"{name}: is missing{_whose(run, manifest, name)}")
        elif name not in sums:
            findings.damage.append(f"{name}: does not belong to the run")
        elif file_hash(present[name]) != sums[name]:
            findings.damage.append(f"{name}: was changed{_whose(run, manifest, name)}")
        findings.files += 1
    findings.frames = manifest["counts"]["saved"]
    findings.missing = manifest["counts"]["missing"]
    return findings


def _verify_cut(run: RunFolder) -> Findings:
    """Without a manifest: every frame that the journal seals."""
    findings = Findings(cut=True)
    if not run.journal.is_file():
        findings.damage.append(f"{run.path}: there is neither a manifest nor a journal: this is no run folder")
        return findings
    reader = SpoolReader(run.spool)
    try:
        for line in read_journal(run.journal):
            if line["kind"] == "frame" and run.spool.is_dir():
                findings.frames += 1
                try:
                    reader.frame(line)
                except RunError as error:
                    findings.damage.append(str(error))
            findings.missing += line["kind"] == "missing"
    except RunError as error:
        findings.damage.append(str(error))
    finally:
        reader.close()
    return findings


def _whose(run: RunFolder, manifest: dict[str, Any], name: str) -> str:
    """Which frames a damaged file holds, as far as can be told."""
    store, _, inner = name.partition("/")
    place = chunk_place(inner)
    if place is None or not store.endswith(".ome.zarr"):
        return ""
    role = {"frames": "patterns"}.get(store.removesuffix(".ome.zarr"), store.removesuffix(".ome.zarr"))
    field_, time, plane = place
    text = f": field {field_}, time {time}, plane {plane}"
    if role not in manifest["roles"]:
        return text
    shot = manifest["roles"][role] + manifest["shots_per_place"] * (
        plane + manifest["planes"] * (field_ + manifest["positions"] * time)
    )
    damaged = list(_damaged_frames(run, store, place, shot))
    return text + (f", frames of patterns {', '.join(map(str, damaged))}" if damaged else "")


def _damaged_frames(run: RunFolder, store: str, place: tuple[int, int, int], shot: int) -> Iterator[int]:
    """Patterns of a burst whose pixels no longer have the checksum that the journal gives."""
    try:
        lines: list[Line] = [
            line for line in read_journal(run.journal) if line.get("shot") == shot and line["kind"] == "frame"
        ]
    except (RunError, OSError):
        return  # the journal is damaged too, and that is said of its own file
    try:
        burst: np.ndarray[Any, Any] | None = Store(Path(run.path / store)).burst(*place)
    except (RuntimeError, ValueError, OSError):
        burst = None  # the chunk does not even unpack: all its frames are lost
    for line in lines:
        pattern = line["pattern"]
        if (
            burst is None
            or crc32c(np.ascontiguousarray(burst[pattern], dtype="<u2").tobytes()) != line["crc32c_pixels"]
        ):
            yield pattern

"""Is a run folder what it was when the run ended? Every checksum; damage is told frame by frame."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dmu_hw.errors import DmuError, RunError
from dmu_hw.files import file_hash
from dmu_hw.journal import Line
from dmu_hw.loops import Loops, Role, Stop
from dmu_hw.omezarr import Store, chunk_place
from dmu_hw.runfolder import RunFolder, read_sealed
from dmu_hw.spool import SpoolReader
from dmu_hw.writer import bursts, is_frame

Place = tuple[int, int, int]
"""Field, time and plane."""


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
    unfinished: list[str] = field(default_factory=list)
    """Images made after the run that are not whole yet."""


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
    sums: dict[str, str] = manifest["files"] | _remade(run, findings)
    present = {path.relative_to(run.path).as_posix(): path for path in run.files()}
    findings.unfinished = sorted({name.split("/")[0] for name in present if name not in sums and run.half_made(name)})
    present = {name: path for name, path in present.items() if name.split("/")[0] not in findings.unfinished}
    names = sorted(set(sums) | set(present))
    damage = {name: what for name in names if (what := _file_damage(present.get(name), sums.get(name)))}
    whose = _whose(run, list(damage))
    findings.files = len(names)
    findings.damage.extend(f"{name}: {what}{whose.get(name, '')}" for name, what in damage.items())
    findings.frames = manifest["counts"]["saved"]
    findings.missing = manifest["counts"]["missing"]
    return findings


def _remade(run: RunFolder, findings: Findings) -> dict[str, str]:
    """Checksums of what was made after the run, each time with a record of its own."""
    sums: dict[str, str] = {}
    for record in run.remade_records():
        try:
            sums |= read_sealed(record)["files"] | {record.name: file_hash(record)}
        except RunError as error:
            findings.damage.append(str(error))
            sums[record.name] = file_hash(record)
    return sums


def _file_damage(path: Path | None, wanted: str | None) -> str:
    if path is None:
        return "is missing"
    if wanted is None:
        return "does not belong to the run"
    try:
        return "" if file_hash(path) == wanted else "was changed"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


# ---------------------------------------------------------------- runs without a manifest


def _verify_cut(run: RunFolder) -> Findings:
    """Without a manifest: every frame of every burst that the journal seals, in the spool or in the stores."""
    findings = Findings(cut=True)
    if not run.journal.is_file():
        findings.damage.append(f"{run.path}: there is neither a manifest nor a journal: this is no run folder")
        return findings
    reader = SpoolReader(run.spool)
    stores = {} if run.spool.is_dir() else dict(_stores(run))
    try:
        for lines in bursts(run.journal):
            frames = [line for line in lines if line["kind"] == "frame"]
            findings.frames += len(frames)
            findings.missing += len(lines) - len(frames)
            if run.spool.is_dir():
                findings.damage.extend(_spool_damage(reader, frames))
            else:
                findings.damage.extend(_store_damage(stores, frames))
    except RunError as error:
        findings.damage.append(str(error))
    finally:
        reader.close()
    return findings


def _spool_damage(reader: SpoolReader, frames: list[Line]) -> Iterator[str]:
    for line in frames:
        try:
            reader.frame(line)
        except RunError as error:
            yield str(error)


def _store_damage(stores: dict[str, _Layout], frames: list[Line]) -> Iterator[str]:
    """Frames whose spool has gone are in the stores."""
    for shot in sorted({line["shot"] for line in frames}):
        layout = next((layout for layout in stores.values() if layout.holds(shot)), None)
        if layout is None:
            yield f"shot {shot}: there is neither a spool nor a store that holds it"
            continue
        damaged = layout.damaged(layout.place(shot), frames)
        if damaged:
            yield f"{layout.store.path}: {_named(layout.place(shot))}, frames of patterns {damaged}"


def _stores(run: RunFolder) -> Iterator[tuple[str, _Layout]]:
    for path in sorted(run.path.glob("*.ome.zarr")):
        layout = _layout(path)
        if layout is not None:
            yield path.name, layout


# ---------------------------------------------------------------- which frames a damaged file holds


@dataclass(frozen=True)
class _Layout:
    """Where a store keeps the bursts of its role."""

    store: Store
    role: Role
    loops: Loops
    channel: str = ""

    def holds(self, shot: int) -> bool:
        if not 0 <= shot < len(self.loops):
            return False
        stop = self.loops.at(shot)
        return (stop.role, stop.channel) == (self.role, self.channel)

    def shot(self, place: Place) -> int:
        field_, time, plane = place
        return self.loops.index(Stop(time, field_, plane, self.role, self.channel))

    def place(self, shot: int) -> Place:
        stop = self.loops.at(shot)
        return stop.field, stop.time, stop.plane

    def damaged(self, place: Place, frames: list[Line]) -> str:
        """Patterns of a burst whose pixels no longer have the checksum that the journal gives."""
        try:
            burst = self.store.burst(*place)
        except RunError:
            # it does not even unpack, or its checksum is off: nothing tells the good frames from the others
            return ", ".join(str(line["pattern"]) for line in frames)
        return ", ".join(str(line["pattern"]) for line in frames if not is_frame(burst[line["pattern"]], line))


def _layout(path: Path) -> _Layout | None:
    """None for a store that is damaged itself, and for those that hold no frames."""
    with contextlib.suppress(DmuError):
        store = Store(path)
        if "loops" in store.facts:
            role, loops = store.facts["role"], Loops.of(store.facts["loops"])
            channel = store.facts.get("channel", {}).get("name", "") if loops.channels != ("",) else ""
            known = role in loops.all_roles and channel in loops.channels
            return _Layout(store, role, loops, channel) if known else None
    return None


def _named(place: Place) -> str:
    field_, time, plane = place
    return f"field {field_}, time {time}, plane {plane}"


def _whose(run: RunFolder, names: list[str]) -> dict[str, str]:
    """Which frames damaged files hold, as far as can be told."""
    places = {name: place for name in names if (place := chunk_place(name.partition("/")[2])) is not None}
    folders = {name: name.partition("/")[0] for name in places}
    layouts = {folder: _layout(run.path / folder) for folder in set(folders.values())}
    held = {name: layout for name, folder in folders.items() if (layout := layouts[folder]) is not None}
    frames = _frames(run, {layout.shot(places[name]) for name, layout in held.items()})
    texts = {name: f": {_named(place)}" for name, place in places.items()}
    for name, layout in held.items():
        damaged = layout.damaged(places[name], frames.get(layout.shot(places[name]), []))
        texts[name] += f", frames of patterns {damaged}" if damaged else ""
    return texts


def _frames(run: RunFolder, shots: set[int]) -> dict[int, list[Line]]:
    """Journal lines of the frames of some shots."""
    found: dict[int, list[Line]] = {}
    with contextlib.suppress(RunError, OSError):  # damage of the journal is told of its own file
        for lines in bursts(run.journal) if shots else ():
            if lines[0]["shot"] in shots:
                found[lines[0]["shot"]] = [line for line in lines if line["kind"] == "frame"]
    return found

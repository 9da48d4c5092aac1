"""The folder of one run: where everything lies, its manifest, and whether it is what it was."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dmu_hw import __version__
from dmu_hw.errors import InputError, Problem, RunError
from dmu_hw.files import file_hash, write_whole

_END = b"\n}"
_MARK = b',\n "sha256": "'
_TAIL = b'"' + _END
"""The end of a manifest: the checksum of all that stands before it."""
_REMADE = "reconstruction-"
"""What the names of images begin with that were made after the run."""


@dataclass(frozen=True)
class RunFolder:
    """Names within a run folder."""

    path: Path

    @property
    def protocol(self) -> Path:
        return self.path / "protocol.yaml"

    @property
    def rig(self) -> Path:
        return self.path / "rig.yaml"

    @property
    def calibration(self) -> Path:
        """What was believed of the instrument, and which results that rests on."""
        return self.path / "calibration.yaml"

    @property
    def pixels(self) -> Path:
        """Maps of the camera's pixels, if there were any."""
        return self.path / "pixels.safetensors"

    @property
    def sources(self) -> Path:
        """Copies of the files that the protocol says where and when with, if it names any."""
        return self.path / "sources"

    @property
    def bundle(self) -> Path:
        return self.path / "bundle.dmu"

    @property
    def then(self) -> Path:
        """The bundle that fields which were chosen are imaged with, if there is one."""
        return self.path / "then.dmu"

    @property
    def chosen(self) -> Path:
        """What it made of them."""
        return self.path / "chosen-reconstruction.ome.zarr"

    @property
    def settings(self) -> Path:
        """Everything that was decided before the run, for programs."""
        return self.path / "settings.json"

    @property
    def journal(self) -> Path:
        return self.path / "journal.jsonl"

    @property
    def spool(self) -> Path:
        return self.path / "spool"

    @property
    def frames(self) -> Path:
        return self.path / "frames.ome.zarr"

    @property
    def reconstruction(self) -> Path:
        return self.path / "reconstruction.ome.zarr"

    @property
    def truth(self) -> Path:
        """What the simulated specimen looked like."""
        return self.path / "truth.ome.zarr"

    @property
    def control(self) -> Path:
        """Orders to the run while it goes on; the file is there only until it has been read."""
        return self.path / "control"

    @property
    def lock(self) -> Path:
        """Held by whoever makes the run; no part of it."""
        return self.path / "lock"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def manifest(self) -> Path:
        return self.path / "manifest.json"

    def remade(self, name: str) -> Path:
        """The images that were made afresh, of that name."""
        return self.path / f"{_REMADE}{name}.ome.zarr"

    def remade_bundle(self, name: str, channel: str = "") -> Path:
        """What they were made with."""
        return self.path / f"{_REMADE}{name}{'-' if channel else ''}{channel}.dmu"

    def remade_record(self, name: str) -> Path:
        """How they were made, with the checksums of all that belongs to them; written last."""
        return self.path / f"{_REMADE}{name}.json"

    def remade_records(self) -> list[Path]:
        return sorted(self.path.glob(f"{_REMADE}*.json"))

    def half_made(self, name: str) -> bool:
        """Whether a file belongs to images that have no record yet."""
        head = name.split("/", maxsplit=1)[0]
        return head.startswith(_REMADE) and not any(
            head.startswith((f"{record.stem}.", f"{record.stem}-")) for record in self.remade_records()
        )

    def frames_of(self, role: str, channel: str = "") -> Path:
        """The store of one kind of bursts: patterns, or the references."""
        kind = "frames" if role == "patterns" else role
        return self.path / f"{channel}{'-' if channel else ''}{kind}.ome.zarr"

    def bundle_of(self, channel: str = "") -> Path:
        """What reconstructs one channel."""
        return self.path / f"{channel}-bundle.dmu" if channel else self.bundle

    def files(self) -> Iterator[Path]:
        """All files but the manifest and the lock, in a fixed order."""
        for folder, folders, names in os.walk(self.path):
            folders.sort()
            for name in sorted(names):
                path = Path(folder) / name
                if path not in (self.manifest, self.lock):
                    yield path

    def clear_leftovers(self) -> None:
        """Remove what a killed program was about to write whole."""
        for path in self.path.glob(".*"):
            if re.fullmatch(r"\..+\.[0-9a-f]{32}", path.name):
                path.unlink()

    def write_manifest(self, facts: dict[str, Any]) -> None:
        """Close the run: its facts, the checksum of every file, and that of the manifest itself."""
        write_sealed(self.manifest, {**facts, "files": self.sums(self.files())})

    def sums(self, files: Iterable[Path]) -> dict[str, str]:
        """The checksums of some files of the folder."""
        return {path.relative_to(self.path).as_posix(): file_hash(path) for path in files}

    def read_manifest(self) -> dict[str, Any]:
        """What the manifest says; any byte of it that was changed is an error."""
        try:
            return read_sealed(self.manifest)
        except FileNotFoundError:
            raise InputError(
                [Problem(str(self.manifest), "is missing: the run was cut, or this is no run folder")]
            ) from None


def write_sealed(path: Path, facts: dict[str, Any]) -> None:
    """Facts as JSON, with the checksum of all that stands before it at the end."""
    content = {"software": f"dmu-hw {__version__}", **facts}
    body = json.dumps(content, indent=1, allow_nan=False).encode().removesuffix(_END)
    write_whole(path, body + _MARK + _own_sum(body) + _TAIL)


def read_sealed(path: Path) -> dict[str, Any]:
    """The same again; any byte that was changed is an error."""
    raw = path.read_bytes()
    body, mark, tail = raw.rpartition(_MARK)
    if not mark or tail != _own_sum(body) + _TAIL:
        raise RunError(f"{path}: was changed: it does not match its own checksum")
    content: dict[str, Any] = json.loads(raw)
    return content


def _own_sum(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode()


def new_run(out: Path, name: str) -> RunFolder:
    """A fresh folder TIME-NAME; a second run in the same second gets a number."""
    stamp = time.strftime("%Y%m%dT%H%M%S")
    try:
        out.mkdir(parents=True, exist_ok=True)
        for attempt in range(1000):
            path = out / (f"{stamp}-{name}" + (f"-{attempt + 1}" if attempt else ""))
            with contextlib.suppress(FileExistsError):
                path.mkdir()
                return RunFolder(path)
    except OSError as error:
        raise InputError([Problem(str(out), f"a run folder cannot be made here: {error.strerror}")]) from None
    raise InputError([Problem(str(out), f"no free name for {stamp}-{name}")])


def open_run(path: Path) -> RunFolder:
    """A run folder that somebody names."""
    if not path.is_dir():
        raise InputError([Problem(str(path), "is no run folder")])
    return RunFolder(path)

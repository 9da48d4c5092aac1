"""What calibrations found, kept for ever: a folder a result, never overwritten.

RESULTS/RIG/OBJECTIVE/CHANNEL/ROUTINE/TIME/result.yaml        what was found, when, and for what it holds
                                          /found.safetensors    maps that were found
                                          /evidence.safetensors what was measured: enough to fit again
                                          /evidence.json        how it was measured
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from pydantic import Field
from safetensors.numpy import load, save

from dmu_hw.errors import InputError, Problem
from dmu_hw.files import Positive, Settings, file_hash, parse_yaml, read_text, validate, write_whole
from dmu_hw.physics.optics import Optics
from dmu_hw.routine import Array, Evidence, Said

ALL_CHANNELS = "all"
"""Where results lie that hold for every channel."""
_RESULT, _FOUND, _EVIDENCE, _FACTS = "result.yaml", "found.safetensors", "evidence.safetensors", "evidence.json"
_MOST_BYTES = 4_000_000


class Key(Settings):
    """For what a result holds."""

    rig: str
    objective: str
    channel: str
    """Empty of a rig that names none, `all` where it makes no difference."""
    routine: str


class CheckRecord(Settings):
    """A figure that was judged."""

    name: str
    value: float | None
    """None: no number at all."""
    warns: float
    refuses: float
    said: Said
    advice: str = ""


class Record(Settings):
    """result.yaml."""

    kind: Literal["calibration-result"] = "calibration-result"
    key: Key
    at: datetime
    valid_days: Positive
    verdict: Said
    why: str = ""
    """Of a result that is refused: what nothing could be fitted to."""
    checks: tuple[CheckRecord, ...] = ()
    figures: dict[str, float] = Field(default_factory=dict)
    optics: dict[str, Any] = Field(default_factory=dict)
    """What is to be believed, in the layout of `optics` in a rig YAML, in coordinates of the bare chip."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Of the routine."""
    believed: dict[str, Any]
    """The optics that were believed when it was measured."""
    roles: tuple[str, ...]
    """Devices that it depends on…"""
    devices: str
    """…and the hash of what the rig YAML said of them."""
    sensor_shape: tuple[int, int]
    mirrors_shape: tuple[int, int]
    stands_on: dict[str, str] = Field(default_factory=dict)
    """Routine → hash of the result that it builds upon."""
    dose_mj_cm2: float = 0.0
    """Light that the sample took."""
    hashes: dict[str, str] = Field(default_factory=dict)
    """File beside it → SHA-256."""
    software: str

    @property
    def good_until(self) -> datetime:
        return self.at + timedelta(days=self.valid_days)

    def is_stale(self, now: datetime) -> bool:
        return now > self.good_until


@dataclass(frozen=True)
class Result:
    """A result and where it lies."""

    folder: Path
    record: Record
    hash: str
    """Of result.yaml, which holds those of the files beside it."""

    def found(self) -> dict[str, Array]:
        """The maps; refused if they are not what was stored."""
        return self._arrays(_FOUND)

    def evidence(self) -> Evidence:
        arrays = self._arrays(_EVIDENCE)
        path = self.folder / _FACTS
        self._check(path)
        return Evidence(arrays, json.loads(path.read_bytes()))

    def believed(self) -> Optics:
        """The optics that were believed when it was measured."""
        return Optics.model_validate_json(json.dumps(self.record.believed))

    def _arrays(self, name: str) -> dict[str, Array]:
        path = self.folder / name
        if name not in self.record.hashes:
            return {}
        self._check(path)
        return load(path.read_bytes())

    def _check(self, path: Path) -> None:
        wanted = self.record.hashes.get(path.name)
        if not path.is_file():
            raise InputError([Problem(str(path), "is missing; the result that it belongs to cannot be used")])
        if file_hash(path) != wanted:
            raise InputError([Problem(str(path), "is not what was stored: its checksum differs")])


class Store:
    """The results of one lab."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, record: Record, evidence: Evidence, found: Mapping[str, Array]) -> Result:
        """Keep a result; what is there already is never touched. result.yaml comes last: without it there is none."""
        folder = self._new_folder(record)
        parts = {
            _FOUND: _packed(found),
            _EVIDENCE: _packed(evidence.arrays),
            _FACTS: json.dumps(dict(evidence.facts), indent=1, allow_nan=False).encode(),
        }
        hashes = {}
        for name, content in parts.items():
            write_whole(folder / name, content)
            hashes[name] = hashlib.sha256(content).hexdigest()
        whole = record.model_copy(update={"hashes": hashes})
        text = yaml.safe_dump(whole.model_dump(mode="json"), sort_keys=False, width=120)
        write_whole(folder / _RESULT, text.encode())
        return self._read(folder / _RESULT)

    def results(self, key: Key) -> list[Result]:
        """All of a kind, the oldest first."""
        return [self._read(path) for path in sorted(self._place(key).glob(f"*/{_RESULT}"))]

    def latest(self, key: Key) -> Result | None:
        """The last one, whatever came of it; earlier ones are not even read."""
        paths = sorted(self._place(key).glob(f"*/{_RESULT}"))
        return self._read(paths[-1]) if paths else None

    def all(self) -> Iterator[Result]:
        return (self._read(path) for path in sorted(self.folder.glob(f"*/*/*/*/*/{_RESULT}")))

    def _place(self, key: Key) -> Path:
        return self.folder / key.rig / key.objective / (key.channel or "only") / key.routine

    def _new_folder(self, record: Record) -> Path:
        """Names sort by time, in whatever zone they were made."""
        stamp = f"{record.at.astimezone(UTC):%Y%m%d-%H%M%S-%f}"
        folder = self._place(record.key) / stamp
        folder.mkdir(parents=True, exist_ok=False)
        return folder

    def _read(self, path: Path) -> Result:
        text = read_text(path, _MOST_BYTES)
        record = _record(text, path)
        return Result(path.parent, record, hashlib.sha256(text.encode()).hexdigest())


def _record(text: str, path: Path) -> Record:
    document = parse_yaml(text, path)
    if isinstance(document.value, dict) and isinstance(document.value.get("at"), str):
        try:
            document.value["at"] = datetime.fromisoformat(document.value["at"])
        except ValueError:
            raise InputError([Problem(document.where(("at",)), "should be a time as ISO 8601 writes it")]) from None
    record = validate(document, Record)
    if record.at.tzinfo is None:
        raise InputError([Problem(document.where(("at",)), "should say its time zone")])
    return record


def _packed(arrays: Mapping[str, Array]) -> bytes:
    return save({name: np.ascontiguousarray(array) for name, array in arrays.items()})

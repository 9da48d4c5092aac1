"""What calibrations found, kept for ever: a folder a result, never overwritten.

RESULTS/RIG/OBJECTIVE/CHANNEL/ROUTINE/TIME/result.yaml        what was found, when, and for what it holds
                                          /found.safetensors    maps that were found
                                          /evidence.safetensors what was measured: enough to fit again
                                          /evidence.json        how it was measured

TIME is when it was found. The last folder is the last result that was stored, also where the clock was set back since
the one before: then its name is the next moment after that one's.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError
from safetensors.numpy import load, save

from dmu_hw.dump import dump_yaml
from dmu_hw.errors import InputError, Problem, RunError
from dmu_hw.files import Document, Settings, content_hash, file_hash, parse_yaml, read_text, validate, write_whole
from dmu_hw.physics.optics import Optics
from dmu_hw.routine import Array, Evidence, Said

ALL_CHANNELS = "all"
"""Where results lie that hold for every channel."""
_RESULT, _FOUND, _EVIDENCE, _FACTS = "result.yaml", "found.safetensors", "evidence.safetensors", "evidence.json"
_MOST_BYTES = 4_000_000
_STAMP = "%Y%m%d-%H%M%S-%f"
_TICK = timedelta(microseconds=1)
_FIRST_YEAR, _LAST_YEAR = 1970, 2900


def _to_moment(value: object) -> object:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise PydanticCustomError("moment", "should be a time as ISO 8601 writes it") from None
    if isinstance(value, datetime) and value.tzinfo is None:
        raise PydanticCustomError("moment", "should say its time zone")
    if isinstance(value, datetime) and not _FIRST_YEAR <= value.year < _LAST_YEAR:
        raise PydanticCustomError("moment", "should be a time that a clock can show")
    return value


Moment = Annotated[datetime, BeforeValidator(_to_moment)]
Days = Annotated[float, Field(gt=0, le=36_500)]


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
    at: Moment
    valid_days: Days
    verdict: Said
    why: str = ""
    """Of a result that is refused: what nothing could be fitted to."""
    checks: tuple[CheckRecord, ...] = ()
    figures: dict[str, float] = Field(default_factory=dict)
    optics: dict[str, Any] = Field(default_factory=dict)
    """What is to be believed, in the layout of `optics` in a rig YAML, in coordinates of the bare chip."""
    named: str
    """The routine, as the recipe named it."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Of the routine."""
    believed: Optics
    """The optics that were believed when it was measured."""
    roles: tuple[str, ...]
    """Devices that it depends on…"""
    devices: str
    """…and the hash of what the rig YAML said of them."""
    sensor_shape: tuple[int, int]
    mirrors_shape: tuple[int, int]
    stands_on: dict[str, str] = Field(default_factory=dict)
    """Routine → hash of the result that it builds upon."""
    again_of: str = ""
    """Of a result whose evidence was fitted again: the hash of the one that it was measured for."""
    dose_mj_cm2: float = 0.0
    """Light that the sample took."""
    hashes: dict[str, str] = Field(default_factory=dict)
    """File beside it → SHA-256."""
    software: str
    seal: str = ""
    """Hash of all that stands above it."""

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

    def check(self) -> None:
        """Every file beside it is what was stored; all that are not are named."""
        problems: list[Problem] = []
        for name in self.record.hashes:
            try:
                self._check(self.folder / name)
            except InputError as error:
                problems.extend(error.problems)
        if problems:
            raise InputError(problems)

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
        parts = {
            _FOUND: _packed(found),
            _EVIDENCE: _packed(evidence.arrays),
            _FACTS: json.dumps(dict(evidence.facts), indent=1, allow_nan=False, default=_plain).encode(),
        }
        hashes = {name: hashlib.sha256(content).hexdigest() for name, content in parts.items()}
        place = self._place(record.key)
        text = _told(record.model_copy(update={"hashes": hashes}), place)
        folder: Path | None = None
        try:
            folder = _new_folder(place, record.at)
            for name, content in parts.items():
                write_whole(folder / name, content)
            write_whole(folder / _RESULT, text.encode())
        except OSError as error:
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)  # room for what comes after it
            raise RunError(f"{folder or place}: the result could not be stored: {error.strerror or error}") from error
        return _read(folder / _RESULT)

    def results(self, key: Key) -> list[Result]:
        """All of a kind, the oldest first."""
        return [_read(path) for path in self._paths(key)]

    def history(self, key: Key, most: int) -> tuple[list[Result], list[Problem]]:
        """The last so many of a kind, the oldest first, and what is wrong with those that cannot be read."""
        found: list[Result] = []
        problems: list[Problem] = []
        for path in self._paths(key)[-most:]:
            try:
                found.append(_read(path))
            except InputError as error:
                problems.extend(error.problems)
        return found, problems

    def latest(self, key: Key) -> Result | None:
        """The last one that was stored, whatever came of it; earlier ones are not even read."""
        paths = self._paths(key)
        return _read(paths[-1]) if paths else None

    def last_good(self, key: Key) -> Result | None:
        """The last one that was not refused, however old; what is damaged is passed over, and told of elsewhere."""
        for path in reversed(self._paths(key)):
            with contextlib.suppress(InputError):
                result = _read(path)
                if result.record.verdict != "refuse":
                    return result
        return None

    def routines(self, rig: str, objective: str) -> set[str]:
        """Of which there may be results."""
        return {folder.name for folder in (self.folder / rig / objective).glob("*/*") if folder.is_dir()}

    def _place(self, key: Key) -> Path:
        return self.folder / key.rig / key.objective / (key.channel or "only") / key.routine

    def _paths(self, key: Key) -> list[Path]:
        return sorted(self._place(key).glob(f"*/{_RESULT}"))


def results_in(folder: Path) -> Iterator[Path]:
    """Every result.yaml of a store, or of a part of it."""
    return (path for path in sorted(folder.rglob(_RESULT)) if path.is_file())


def cut_in(folder: Path) -> Iterator[Path]:
    """Folders whose results never came to be stored whole; nobody takes them for results."""
    for path in sorted(folder.rglob("*")):
        if _moment(path.name) is not None and path.is_dir() and not (path / _RESULT).exists():
            yield path


def read_result(folder: Path) -> Result:
    """The result that lies in a folder; refused if it is not what was stored."""
    if not (folder / _RESULT).is_file():
        raise InputError([Problem(str(folder), f"holds no result: no {_RESULT}")])
    return _read(folder / _RESULT)


def _new_folder(place: Path, at: datetime) -> Path:
    """Names sort by time, in whatever zone they were made; two within a microsecond have a microsecond each."""
    place.mkdir(parents=True, exist_ok=True)
    at = at.astimezone(UTC)
    while True:
        last = max((stamp for folder in place.iterdir() if (stamp := _moment(folder.name))), default=None)
        if last is not None and last >= at:
            at = last + _TICK
        folder = place / f"{at:{_STAMP}}"
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            return folder


def _moment(name: str) -> datetime | None:
    """What a folder's name says; None if it is no time."""
    try:
        return datetime.strptime(name, _STAMP).replace(tzinfo=UTC)
    except ValueError:
        return None


def _told(record: Record, place: Path) -> str:
    """result.yaml, which can be read again: that was tried."""
    path = place / _RESULT
    text = dump_yaml(record.model_dump(mode="json", exclude={"seal"}))
    text += f"seal: {_seal(parse_yaml(text, path))}\n"
    _sound(text, path)
    return text


def _seal(document: Document) -> str:
    """Of what the file itself says: a later version may know keys that it lacks."""
    return content_hash({key: value for key, value in document.value.items() if key != "seal"})


def _plain(value: Any) -> Any:
    """Numbers of numpy as JSON can say them."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"evidence cannot hold {type(value).__name__} among its facts")


def _read(path: Path) -> Result:
    if _moment(path.parent.name) is None:
        raise InputError([Problem(str(path.parent), "is not called as results are, by their time: take it away")])
    text = read_text(path, _MOST_BYTES)
    return Result(path.parent, _sound(text, path), hashlib.sha256(text.encode()).hexdigest())


def _sound(text: str, path: Path) -> Record:
    document = parse_yaml(text, path)
    record = validate(document, Record)
    if record.seal != _seal(document):
        raise InputError([Problem(str(path), "was changed since it was stored: it does not match its own checksum")])
    return record


def _packed(arrays: Mapping[str, Array]) -> bytes:
    return save({name: np.ascontiguousarray(array) for name, array in arrays.items()})

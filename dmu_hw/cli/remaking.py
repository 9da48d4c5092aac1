"""Images made afresh from the frames of a run: what they are called, what makes them, and a job's share of them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from dmu_hw.bundle import Bundle
from dmu_hw.cli.output import origin
from dmu_hw.cli.session import Session, load_bundle, session_of
from dmu_hw.counts import count_reason
from dmu_hw.errors import InputError, Problem
from dmu_hw.files import content_hash
from dmu_hw.moves import move
from dmu_hw.omezarr import PART, Store
from dmu_hw.pool import Job
from dmu_hw.results import Place, Source, begin, fill, places_of
from dmu_hw.runfolder import RunFolder
from dmu_hw.view.window import window_of

CALL = "dmu_hw.cli.remaking:make"
_BURSTS_A_JOB = 64
_NAMED_DIGITS = 8


@dataclass(frozen=True)
class Remake:
    """All images of one run, by the bundles of its channels."""

    run: RunFolder
    bundles: Mapping[str, Bundle]
    sources: tuple[Source, ...]

    @classmethod
    def of(cls, run: RunFolder, given: Mapping[str | None, Bundle]) -> Remake:
        """With the bundles that are given, by channel or for the only one, and else with the run's own."""
        session = session_of(run)
        bundles = _bundles(run, session, given)
        return cls(run, bundles, _sources(run, session, bundles))

    @property
    def name(self) -> str:
        """What it was made with: the same again is the same."""
        told = [bundle.header.name for bundle in self.bundles.values()]
        hashes = {name: bundle.hash for name, bundle in self.bundles.items()}
        return f"{told[0] if len(set(told)) == 1 else 'channels'}-{content_hash(hashes)[:_NAMED_DIGITS]}"

    @property
    def path(self) -> Path:
        return self.run.remade(self.name)

    @property
    def part(self) -> Path:
        """The store while it is not whole."""
        return self.path.with_name(self.path.name + PART)

    @property
    def needed_bytes(self) -> int:
        """Room on the disk, if nothing can be packed."""
        rows, columns = self.sources[0].window.field_px
        segmenting = any(bundle.header.task == "segment" for bundle in self.bundles.values())
        return 4 * rows * columns * len(self.places()) * (len(self.sources) + segmenting)

    def files(self) -> list[Path]:
        """All that belongs to it, but for its record."""
        bundles = [self.run.remade_bundle(self.name, name) for name in self.bundles]
        return sorted([*bundles, *(path for path in self.path.rglob("*") if path.is_file())])

    def counted(self) -> tuple[int, int, int]:
        """Bursts, those of which no frame is missing, and those that have an image."""
        store = Store(self.part)
        fields = range(len(store))
        made = sum(int(np.isfinite(np.asarray(store.times(field))).sum()) for field in fields)
        whole = sum(source.exposed_ms(place) is not None for source in self.sources for place in self.places())
        return len(self.places()) * len(self.sources), whole, made

    def places(self) -> list[Place]:
        return list(places_of(self.sources[0].frames))

    def begin(self) -> None:
        """Everything that jobs need to find there; what an attempt before this one has made stays."""
        for name, bundle in self.bundles.items():
            bundle.save(self.run.remade_bundle(self.name, name))
        if self.path.is_dir():
            shutil.rmtree(self.part, ignore_errors=True)
            move(self.path, self.part)  # it was cut before its record: whether it is whole is seen at the end
        if not self.part.is_dir():
            half = self.part.with_name(self.part.name + PART)
            begin(self.sources, half)
            move(half, self.part)

    def jobs(self) -> list[Job]:
        """Shares that can be made at the same time: no field and time point is in two of them."""
        shares: list[list[Place]] = []
        for place in self.places():
            if not shares or (len(shares[-1]) >= _BURSTS_A_JOB and shares[-1][-1][:2] != place[:2]):
                shares.append([])
            shares[-1].append(place)
        config = {"run": str(self.run.path.resolve()), "name": self.name, "channels": list(self.bundles)}
        return [Job(CALL, {**config, "places": [list(place) for place in share]}) for share in shares]


def make(config: dict[str, Any], _folder: Path) -> dict[str, Any]:
    """The job: one share of the images."""
    run, name = RunFolder(Path(config["run"])), config["name"]
    failures: dict[str, int] = {}

    def failed(_place: Place, error: Exception) -> None:
        count_reason(failures, origin(error), 1)

    sources = _kept_sources(run, name, tuple(config["channels"]))
    places = [(field, time, plane) for field, time, plane in config["places"]]
    part = run.remade(name).with_name(run.remade(name).name + PART)
    fill(sources, part, places, failed=failed)
    return {"bursts": len(places) * len(sources), "failures": failures}


@lru_cache(maxsize=1)
def _kept_sources(run: RunFolder, name: str, channels: tuple[str, ...]) -> tuple[Source, ...]:
    """Of one share after another a worker reads the run once."""
    bundles = {channel: load_bundle(run.remade_bundle(name, channel)) for channel in channels}
    return _sources(run, session_of(run), bundles)


def _sources(run: RunFolder, session: Session, bundles: Mapping[str, Bundle]) -> tuple[Source, ...]:
    plans = {name: session.plan.of(name) for name in bundles}
    return tuple(
        Source(
            Store(run.frames_of("patterns", name)),
            bundle,
            window_of(plans[name], "patterns"),
            name,
            plans[name].waves_nm([name]),
        )
        for name, bundle in bundles.items()
    )


# ---------------------------------------------------------------- which bundles


def _bundles(run: RunFolder, session: Session, given: Mapping[str | None, Bundle]) -> dict[str, Bundle]:
    """One for every channel that has one; whatever does not fit is said at once."""
    problems = [
        Problem(str(run.path), f"has no channel {name!r}; there are: {', '.join(session.kits) or 'none by name'}")
        for name in given
        if name is not None and name not in session.kits
    ]
    if None in given and len(session.kits) > 1:
        problems.append(Problem(str(run.path), f"has several channels: say --bundle NAME=FILE, of {_names(session)}"))
    chosen: dict[str, Bundle] = {}
    for name in session.kits:
        bundle = given.get(name, given.get(None))
        if bundle is None and run.bundle_of(name).is_file():
            bundle = load_bundle(run.bundle_of(name))
        if bundle is not None:
            chosen[name] = bundle
            problems += _misfits(run, session, name, bundle)
    if not chosen and not problems:
        problems.append(Problem(str(run.path), "kept its frames only: say --bundle FILE, which reconstructs them"))
    if problems:
        raise InputError(problems)
    return chosen


def _names(session: Session) -> str:
    return ", ".join(session.kits)


def _misfits(run: RunFolder, session: Session, channel: str, bundle: Bundle) -> Sequence[Problem]:
    """Why a bundle cannot tell what the frames of a channel show."""
    where = f"{run.path}{f' (channel {channel})' if channel else ''}"
    shown = session.plan.of(channel).takes["patterns"].stack
    found = bundle.misfits(session.kits[channel].channel.optics)
    if bundle.patterns.hash != shown.hash:
        found.append(f"was taken with other patterns ({shown.name}) than bundle {bundle.header.name} is for")
    if len(session.kits) > 1 and bundle.header.task == "segment":
        found.append(f"has several channels, and bundle {bundle.header.name} finds objects: only one channel can be")
    return [Problem(where, what) for what in found]

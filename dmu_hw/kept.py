"""What a run believed of its instrument, kept with it: it ends with what it was begun with, whatever is found since."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Literal

import numpy as np

from dmu_hw.belief import Belief
from dmu_hw.dump import dump_yaml
from dmu_hw.errors import InputError, Problem
from dmu_hw.files import Settings, parse_yaml, read_text, validate
from dmu_hw.mechanics import Mechanics
from dmu_hw.physics.optics import Optics
from dmu_hw.pixels import PixelMaps
from dmu_hw.powercurve import PowerCurve
from dmu_hw.rig import Rig
from dmu_hw.routine import Said
from dmu_hw.store import Moment

_MOST_BYTES = 4_000_000


class Ground(Settings):
    """A result that a belief rests on."""

    routine: str
    at: Moment
    good_until: Moment
    verdict: Said
    folder: str
    """Where it lay."""
    hash: str


class KeptCurve(Settings):
    """What comes of the settings of a light."""

    settings_mw: tuple[float, ...]
    delivered_mw: tuple[float, ...]


class KeptChannel(Settings):
    """What was believed of one channel."""

    channel: str
    """Empty of a rig that names none."""
    rests_on: tuple[Ground, ...]
    """Empty: what the rig's file says is all."""
    optics: Optics
    """All of it, as it was put together."""
    light: KeptCurve | None = None
    """null: what its light is told is what is believed to come of it."""


class KeptBelief(Settings):
    """calibration.yaml of a run folder."""

    kind: Literal["belief"] = "belief"
    results: str | None
    """Folder of results; null: the rig names none."""
    channels: tuple[KeptChannel, ...]
    pixels: str | None = None
    """Hash of the maps of the camera's pixels, which lie beside it; null: all pixels are believed alike."""
    mechanics: Mechanics = Mechanics()
    """How it was believed to move."""
    aside: tuple[str, ...] = ()
    """What stands against results that nothing rests on."""

    @classmethod
    def of(cls, rig: Rig, beliefs: Mapping[str, Belief]) -> KeptBelief:
        """What a rig believes now."""
        calibration = rig.settings.calibration
        return cls(
            results=None if calibration is None else str(calibration.results.absolute()),
            channels=tuple(
                KeptChannel(
                    channel=name,
                    rests_on=_grounds(beliefs[name]) if name in beliefs else (),
                    optics=channel.optics,
                    light=_kept_curve(rig.curves.get(channel.light)),
                )
                for name, channel in rig.channels.items()
            ),
            mechanics=rig.mechanics,
            pixels=None if rig.pixels is None else rig.pixels.hash,
            aside=tuple(dict.fromkeys(str(problem) for belief in beliefs.values() for problem in belief.aside)),
        )

    @property
    def grounds(self) -> dict[str, Ground]:
        """Every result once: `routine`, or `routine of channel` where it is of one of several."""
        found: dict[str, Ground] = {}
        for kept in self.channels:
            for ground in kept.rests_on:
                shared = all(ground in other.rests_on for other in self.channels)
                found[ground.routine if shared else f"{ground.routine} of {kept.channel}"] = ground
        return found

    def stale(self, now: datetime) -> list[str]:
        """What has gone stale by now, for people."""
        return [
            f"{name} was good until {ground.good_until.astimezone():%Y-%m-%d %H:%M}"
            for name, ground in self.grounds.items()
            if now > ground.good_until
        ]

    def text(self) -> str:
        return dump_yaml(self.model_dump(mode="json"))

    def told_to(self, rig: Rig, pixels: PixelMaps | None = None) -> None:
        """Let a rig believe just that; the maps of pixels are those that lie beside it."""
        if (None if pixels is None else pixels.hash) != self.pixels:
            raise InputError([Problem(str(rig.file.path), "the maps of pixels are not those that were believed")])
        optics = {kept.channel: kept.optics for kept in self.channels}
        if set(optics) != set(rig.channels):
            raise InputError([Problem(str(rig.file.path), "has other channels than the belief that was kept")])
        lights = {rig.channels[kept.channel].light: kept.light for kept in self.channels}
        curves = {
            light: PowerCurve(np.array(kept.settings_mw), np.array(kept.delivered_mw))
            for light, kept in lights.items()
            if kept is not None
        }
        rig.believe(optics, curves, pixels)
        rig.moves(self.mechanics)


def _kept_curve(curve: PowerCurve | None) -> KeptCurve | None:
    if curve is None:
        return None
    return KeptCurve(settings_mw=tuple(curve.settings_mw.tolist()), delivered_mw=tuple(curve.delivered_mw.tolist()))


def _grounds(belief: Belief) -> tuple[Ground, ...]:
    return tuple(
        Ground(
            routine=name,
            at=result.record.at,
            good_until=result.record.good_until,
            verdict=result.record.verdict,
            folder=str(result.folder.absolute()),
            hash=result.hash,
        )
        for name, result in belief.results.items()
    )


def read_kept(path: Path) -> KeptBelief:
    """What a run kept."""
    return validate(parse_yaml(read_text(path, _MOST_BYTES), path), KeptBelief)


def text_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()

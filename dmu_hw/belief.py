"""What is believed of a rig: what its file says, and in its place what calibrations have measured.

Fails closed: a result that is stale, failed, damaged or of another instrument is not passed over in silence, since what
it would have said is then not known. The refusal names the routine to run again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from dmu_hw.errors import InputError, Problem
from dmu_hw.files import Document, content_hash
from dmu_hw.mechanics import AS_TOLD, OF_MECHANICS, Mechanics
from dmu_hw.orientation import Orientation
from dmu_hw.physics.optics import Optics, overridden
from dmu_hw.pixels import PixelMaps
from dmu_hw.ports import role_of
from dmu_hw.powercurve import PowerCurve
from dmu_hw.rig import Rig, RigFile
from dmu_hw.routine import Check
from dmu_hw.store import ALL_CHANNELS, CheckRecord, Key, Result, Store

_USED = ("register", "stage", "sensor", "field", "contrast", "psf", "bleach")
"""Whose optics are believed, in the order in which they are laid over each other."""
_HEEDED = (*_USED, "power", "timing")
"""What a run rests on where there is such a result; others only tell people."""
_AHEAD = timedelta(minutes=10)
"""By so much the clocks of a lab's computers may differ."""


@dataclass(frozen=True)
class Belief:
    """Of one channel."""

    optics: Optics
    """In coordinates of the frames that the camera gives."""
    results: Mapping[str, Result]
    """What it rests on, by routine."""
    curve: PowerCurve | None = None
    """What comes of the settings of its light, where that was measured."""
    pixels: PixelMaps | None = None
    """What was measured of the camera pixel by pixel, in the same coordinates."""
    mechanics: Mechanics = AS_TOLD
    """The same in all channels."""
    aside: tuple[Problem, ...] = ()
    """What stands against results that nothing rests on: nobody demanded them, and they only tell people."""

    @property
    def hashes(self) -> dict[str, str]:
        return {name: result.hash for name, result in self.results.items()}


def key_of(file: RigFile, channel: str, routine: str, *, per_channel: bool) -> Key:
    """Where results of a routine lie for a channel of a rig."""
    settings = file.settings
    channel = channel if per_channel else ALL_CHANNELS
    return Key(rig=settings.name, objective=settings.objective, channel=channel, routine=routine)


def devices_hash(file: RigFile, roles: Collection[str]) -> str:
    """Of what the rig says of the devices that a result depends on. What a driver names in `of_frames` (flips, sizes of
    buffers) changes how frames are handed over and nothing that is measured."""
    parts = {
        name: {
            "driver": file.settings.devices[name].driver,
            "settings": part.settings.model_dump(mode="json", exclude=set(getattr(part.driver, "of_frames", ()))),
        }
        for name, part in file.parts.items()
        if role_of(name) in roles
    }
    return content_hash(parts)


class Beliefs:
    """Of all channels of a rig, whose results lie in a store."""

    def __init__(self, rig: Rig, store: Store, now: datetime) -> None:
        self._rig = rig
        self._store = store
        self._now = now
        self._orientation = Orientation.of(rig.camera)

    def of_chip(self, channel: str) -> Belief:
        """What good results say of a channel, in coordinates of the bare chip; others are passed over, since whoever
        calibrates is about to replace them."""
        found = {
            name: result for name, result, problems in self._latest(channel) if result is not None and not problems
        }
        return self._belief(channel, found)

    def of_frames(self, channel: str) -> Belief:
        """What a run in a channel is to believe, or an InputError with all that stands against it."""
        calibration = self._rig.settings.calibration
        demanded = calibration.demand if calibration is not None else ()
        found: dict[str, Result] = {}
        problems: list[Problem] = []
        aside: list[Problem] = []
        there: set[str] = set()
        for name, result, objections in self._latest(channel):
            there.add(name)
            (problems if name in _HEEDED or name in demanded else aside).extend(objections)
            if result is not None and not objections:
                found[name] = result
        for name in demanded:
            if name not in there:
                where = f"{self._rig.file.path}: calibration.demand"
                of = f" of channel {channel}" if channel else ""
                problems.append(Problem(where, f"there is no {name}{of} in {self._store.folder}; {_advice(name)}"))
        if problems:
            raise InputError(problems)
        belief = self._belief(channel, found)
        flips, pixels = self._orientation, belief.pixels
        if pixels is not None:
            pixels = pixels.turned(flip_x=flips.flip_x, flip_y=flips.flip_y)
        return replace(belief, optics=flips.optics(belief.optics), pixels=pixels, aside=tuple(aside))

    def objections(self, key: Key, result: Result) -> Iterator[Problem]:
        """Why a result that lies where those of a key do is not to be used."""
        record, where, name = result.record, str(result.folder / "result.yaml"), key.routine
        if record.verdict == "refuse":
            checks = "; ".join(str(_check(check)) for check in record.checks if check.said == "refuse")
            yield Problem(where, f"{name} failed: {record.why or checks}; {_advice(name)}")
        if record.is_stale(self._now):
            yield Problem(where, f"{name} was good until {record.good_until:%Y-%m-%d %H:%M}; {_advice(name)}")
        if record.at > self._now + _AHEAD:
            what = f"{name} was measured at {record.at:%Y-%m-%d %H:%M}, which is to come: the clock was set back"
            yield Problem(where, f"{what}; {_advice(name)}")
        file = self._rig.file
        if record.key != key:
            yield Problem(where, f"{name} is of another instrument: {_named(record.key)}, here {_named(key)}")
        for what, then, here in (
            ("sensor", record.sensor_shape, self._rig.camera.sensor_shape),
            ("mirrors", record.mirrors_shape, self._rig.dmd.shape),
        ):
            if then != here:
                yield Problem(where, f"{name} is of another instrument: {what} of {then}, here {here}; {_advice(name)}")
        if record.devices != devices_hash(file, record.roles):
            of = ", ".join(record.roles)
            yield Problem(where, f"{name} was measured when {file.path} said otherwise of {of}; {_advice(name)}")

    def _latest(self, channel: str) -> Iterator[tuple[str, Result | None, list[Problem]]]:
        """The last result of every routine that there is one of, and what stands against it; None: it is damaged."""
        for name in sorted(self._store.routines(self._rig.settings.name, self._rig.settings.objective)):
            for per_channel in (True, False):
                key = key_of(self._rig.file, channel, name, per_channel=per_channel)
                try:
                    result = self._store.latest(key)
                except InputError as error:
                    yield name, None, _advised(error, name)
                    break
                if result is not None:
                    yield name, result, list(self.objections(key, result)) or self._misfits(channel, result)
                    break

    def _belief(self, channel: str, found: Mapping[str, Result]) -> Belief:
        """The rig's file with results laid over it."""
        optics = self._of_file(channel)
        for name in (name for name in _USED if name in found):
            record, path = found[name].record, found[name].folder / "result.yaml"
            optics = laid_over(optics, record.optics, record.believed.sensor_pixel_um, path)
        curve = _curve(found["power"]) if "power" in found else None
        pixels = _pixels(found["sensor"]) if "sensor" in found else None
        return Belief(optics, dict(found), curve, pixels, _mechanics(found))

    def _of_file(self, channel: str) -> Optics:
        return self._orientation.optics(self._rig.file_optics(channel))

    def _misfits(self, channel: str, result: Result) -> list[Problem]:
        """What of it is no optics at all."""
        record, path = result.record, result.folder / "result.yaml"
        try:
            laid_over(self._of_file(channel), record.optics, record.believed.sensor_pixel_um, path)
            if record.key.routine == "power" and record.verdict != "refuse":
                _curve(result)
            if record.key.routine == "sensor":
                _pixels(result)
            if record.verdict != "refuse":
                _mechanics({record.key.routine: result})
        except InputError as error:
            return _advised(error, record.key.routine)
        return []


def laid_over(optics: Optics, changes: Mapping[str, Any], then_um: float, path: Path) -> Optics:
    """Optics with what was found in their place, which stands in a file, when a camera pixel was believed to be so
    large; what fits no optics is refused."""
    if "sensor_pixel_um" in changes:
        return _stretched(optics, _length_um(changes["sensor_pixel_um"], path) / optics.sensor_pixel_um)
    given = {"optics": dict(changes)}
    laid = overridden(optics, given["optics"], Document(given, {}, path), "optics")
    return _kept_in_pixels(optics, laid, changes, optics.sensor_pixel_um / then_um)


def believe(rig: Rig, now: datetime | None = None) -> dict[str, Belief]:
    """Let a rig believe what its calibrations measured, channel by channel; nothing changes where its file names none.
    All that stands against it is said at once."""
    calibration = rig.settings.calibration
    if calibration is None:
        return {}
    beliefs = Beliefs(rig, Store(calibration.results), now or datetime.now(UTC))
    found: dict[str, Belief] = {}
    problems: list[Problem] = []
    for name in rig.channels:
        try:
            found[name] = beliefs.of_frames(name)
        except InputError as error:
            problems.extend(problem for problem in error.problems if problem not in problems)
    if problems:
        raise InputError(problems)
    rig.moves(next(belief.mechanics for belief in found.values()))
    pixels = next((belief.pixels for belief in found.values() if belief.pixels is not None), None)
    rig.believe({name: belief.optics for name, belief in found.items()}, _curves(rig, found), pixels)
    return found


def _mechanics(found: Mapping[str, Result]) -> Mechanics:
    """What results say of how the rig moves; refused if they do not say it."""
    try:
        return Mechanics.of({name: result.record.figures for name, result in found.items()})
    except KeyError as error:
        where = ", ".join(str(result.folder / "result.yaml") for name, result in found.items() if name in OF_MECHANICS)
        raise InputError([Problem(where, f"has no figure {error}")]) from None


def _pixels(result: Result) -> PixelMaps | None:
    """What a result says of the camera pixel by pixel, if it does; refused if it is damaged, or of another chip."""
    arrays = result.found()
    if not {field.name for field in fields(PixelMaps)} <= arrays.keys():
        return None
    try:
        maps = PixelMaps.of(arrays)
    except ValueError as error:
        raise InputError([Problem(str(result.folder), str(error))]) from None
    if maps.bad.shape != result.record.sensor_shape:
        what = f"has maps of {maps.bad.shape} pixels, the chip has {result.record.sensor_shape}"
        raise InputError([Problem(str(result.folder), what)])
    return maps


def _curve(result: Result) -> PowerCurve:
    """What a result says of a light; refused if it is no such curve, or not what was stored."""
    arrays = result.found()
    try:
        return PowerCurve(arrays["settings_mw"].astype(np.float64), arrays["delivered_mw"].astype(np.float64))
    except KeyError as error:
        raise InputError([Problem(str(result.folder), f"holds no {error}")]) from None
    except ValueError as error:
        raise InputError([Problem(str(result.folder), str(error))]) from None


def _curves(rig: Rig, beliefs: Mapping[str, Belief]) -> dict[str, PowerCurve]:
    """By lights. Of channels that share one, the last to be measured says what comes of it."""
    found = [
        (belief.results["power"].record.at, rig.channels[name].light, belief.curve)
        for name, belief in beliefs.items()
        if belief.curve is not None
    ]
    return {light: curve for _, light, curve in sorted(found, key=lambda one: one[0])}


def _stretched(optics: Optics, factor: float) -> Optics:
    """The same microscope with another size of its pixels: all that was known in pixels stays so."""
    sizes = {"object_pixel_um": optics.object_pixel_um * factor, "sensor_pixel_um": optics.sensor_pixel_um * factor}
    lengths = {name: getattr(optics, name).stretched(factor) for name in ("excitation", "emission", "profile")}
    mirrors = optics.mirrors.model_copy(update={"to_sample": optics.mirrors.to_sample.stretched(factor)})
    return optics.model_copy(update={**sizes, **lengths, "mirrors": mirrors})


def _kept_in_pixels(before: Optics, laid: Optics, changes: Mapping[str, Any], factor: float) -> Optics:
    """What a result says in micrometres was measured in pixels, which had another size then."""
    if factor == 1:
        return laid
    names = [name for name in ("excitation", "emission", "profile") if name in changes]
    update: dict[str, Any] = {name: getattr(laid, name).stretched(factor) for name in names}
    if laid.mirrors.to_sample != before.mirrors.to_sample:
        stretched = laid.mirrors.to_sample.stretched(factor)
        update["mirrors"] = laid.mirrors.model_copy(update={"to_sample": stretched})
    return laid.model_copy(update=update)


def _length_um(value: object, path: Path) -> float:
    if isinstance(value, float) and value > 0:
        return value
    raise InputError([Problem(f"{path}: optics.sensor_pixel_um", f"should be a number above 0, given {value!r}")])


def _named(key: Key) -> str:
    return "/".join((key.rig, key.objective, key.channel or "only"))


def _check(record: CheckRecord) -> Check:
    value = float("nan") if record.value is None else record.value
    return Check(record.name, value, record.warns, record.refuses, record.advice)


def _advised(error: InputError, routine: str) -> list[Problem]:
    return [replace(problem, what=f"{problem.what}; {_advice(routine)}") for problem in error.problems]


def _advice(routine: str) -> str:
    return f"run `dmu calibrate` with a recipe that has the routine {routine}"

"""A rig of numpy only, on its own clock, whose frames tell what was truly on the mirrors when they were exposed.

It is a driver file like any other: a rig YAML names it by its path. Its faults strike by occasion: the n-th pulse,
step or exposure since the rig was built, from 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from dmu_hw.control import Control
from dmu_hw.data import Burst
from dmu_hw.engine import Counts, Engine
from dmu_hw.errors import DeviceError, DeviceTimeout
from dmu_hw.files import Settings
from dmu_hw.journal import Journal, Line, read_journal
from dmu_hw.physics.patterns import PatternSet
from dmu_hw.plan import Plan, Shot
from dmu_hw.planner import make_plan, plan_channels
from dmu_hw.ports import CameraMode, Mount, RawFrame
from dmu_hw.protocol import ChannelsProtocol, Protocol
from dmu_hw.rig import Rig, load_rig
from dmu_hw.runfolder import RunFolder
from dmu_hw.spool import Spool
from dmu_hw.taking import Asked

_POOL = 64
_NOISE: dict[tuple[int, int], np.ndarray[Any, Any]] = {}


def picture(place: int | None, exposure: int, shape: tuple[int, int]) -> np.ndarray[Any, Any]:
    """What the camera gives: noise that no other exposure has, and in its corner what was on the mirrors."""
    if shape not in _NOISE:
        _NOISE[shape] = np.random.default_rng(3).integers(100, 1000, (_POOL, *shape), dtype=np.uint16)
    pixels = _NOISE[shape][exposure % _POOL].copy()
    pixels[0, :3] = 0 if place is None else place + 1, exposure % 65536, exposure // 65536
    return pixels


def seen_place(pixels: np.ndarray[Any, Any]) -> int:
    """Place in the mirrors' memory that a frame was exposed with; -1 is the dark array."""
    return int(pixels[0, 0]) - 1


def seen_exposure(pixels: np.ndarray[Any, Any]) -> int:
    return int(pixels[0, 1]) + 65536 * int(pixels[0, 2])


# ---------------------------------------------------------------- the devices


class Clock:
    def __init__(self) -> None:
        self.ms = 0.0

    def now_ms(self) -> float:
        return self.ms

    def sleep_ms(self, duration_ms: float) -> None:
        self.ms += max(0.0, duration_ms)


@dataclass
class Faults:
    """Occasions at which something goes wrong."""

    lost_pulses: set[int] = field(default_factory=set)
    lost_steps: set[int] = field(default_factory=set)
    stray_pulses_ms: list[float] = field(default_factory=list)
    """After the start of a sequence."""
    dropped: set[int] = field(default_factory=set)
    repeated: set[int] = field(default_factory=set)
    late: set[int] = field(default_factory=set)
    """Exposures whose frame stays in the camera until it is armed the next time."""
    unflushed: bool = False
    """The camera gives all frames of the burst before once more when it is armed."""
    dead_at: int | None = None
    """Exposure at which the camera vanishes."""
    off_refused: int = 0
    """How often the light still ignores OFF."""
    off_raises: type[BaseException] | None = None
    """What the light's driver raises instead of going off."""
    power_refused: bool = False
    interlock_open: bool = False
    trips_at: int | None = None
    """Exposure at which the light goes off by itself."""
    wheel_stuck: bool = False
    """The filter stays where it is, and says so."""
    wheel_slips_at: int | None = None
    """Exposure at which it is turned by itself."""


class BenchSettings(Settings):
    read_back: bool = True
    sensor_shape: tuple[int, int] = (128, 128)


class Connection:
    """What the devices share."""

    Settings = BenchSettings

    def __init__(self, settings: BenchSettings, _mount: Mount) -> None:
        self.settings = settings
        self.clock = Clock()
        self.faults = Faults()
        self.log: list[str] = []
        """Commands in the order in which they came."""
        self.hooks: dict[str, Callable[[], None]] = {}
        """Called when the command of that name comes."""
        self.timeline: list[tuple[float, int | None]] = [(-1e9, None)]
        self.pulses_ms: list[float] = []
        self.exposure_ended: Callable[[float], None] | None = None
        self.lit = False
        self.others_lit: set[str] = set()
        """Lights beside `light`, by name."""
        self.stands = "GFP"
        """The filter."""
        self.shutter_open = False
        self.pulses = self.steps = self.exposures = 0
        self.unsteady = 0
        """Exposures during which the mirrors moved."""

    def open(self) -> None: ...

    def close(self) -> None: ...

    def remember(self) -> dict[str, Any]:
        return {"exposures": self.exposures, "pulses": self.pulses, "steps": self.steps, "ms": self.clock.ms}

    def recall(self, memory: dict[str, Any], _doses: Any) -> None:
        self.exposures, self.pulses, self.steps = (memory[name] for name in ("exposures", "pulses", "steps"))
        self.clock.ms = memory["ms"]

    def say(self, what: str) -> None:
        if what != "pop" and len(self.log) < 100_000:
            self.log.append(what)
        self.hooks.get(what, lambda: None)()

    def mirrors(self, time_ms: float, place: int | None) -> None:
        before = [event for event in self.timeline if event[0] < time_ms]
        self.timeline = [*before[-4:], (time_ms, place)]

    def plan_mirrors(self, events: list[tuple[float, int | None]]) -> None:
        now_ms = self.clock.now_ms()
        self.timeline = [event for event in self.timeline if event[0] < now_ms][-4:] + events

    def mirrors_at(self, time_ms: float) -> int | None:
        return [place for at, place in self.timeline if at <= time_ms][-1]


class _Face:
    class Settings(Settings):
        pass

    def __init__(self, _settings: Settings, mount: Mount) -> None:
        assert mount.connection is not None
        self.bench: Any = mount.connection
        self.mount = mount

    def open(self) -> None: ...

    def close(self) -> None: ...


class Dmd(_Face):
    memory_frames = 400
    settle_ms = 0.07

    @property
    def shape(self) -> tuple[int, int]:
        return self.mount.optics.mirrors.shape

    def __init__(self, settings: Settings, mount: Mount) -> None:
        super().__init__(settings, mount)
        self.loaded = 0
        self.stepped: list[tuple[float, int]] = []
        self.left: list[int] = []

    @property
    def reads_back(self) -> bool:
        return bool(self.bench.settings.read_back)

    def upload_ms(self, frames: int) -> float:
        return float(frames)

    def load(self, frames: np.ndarray[Any, Any]) -> None:
        self.bench.say("load")
        self.loaded = len(frames)

    def show(self, index: int | None) -> None:
        self.bench.say("show" if index is not None else "dark")
        self._halt()
        now_ms = self.bench.clock.now_ms()
        self.bench.mirrors(now_ms, None)
        if index is not None:
            self.bench.mirrors(now_ms + self.settle_ms, index)

    def start(self, order: Sequence[int], period_ms: float | None) -> None:
        self.bench.say("start")
        self._halt()
        assert all(0 <= index < self.loaded for index in order)
        begin_ms, bench = self.bench.clock.now_ms(), self.bench
        if period_ms is None:
            self.left = list(order)
            bench.exposure_ended = self._step
            self._advance(begin_ms)
            return
        events: list[tuple[float, int | None]] = []
        for step, index in enumerate(order):
            at_ms = begin_ms + step * period_ms
            self.stepped.append((at_ms, index))
            events += [(at_ms, None), (at_ms + self.settle_ms, index)]
            if bench.pulses not in bench.faults.lost_pulses:
                bench.pulses_ms.append(at_ms + self.settle_ms)
            bench.pulses += 1
        bench.plan_mirrors([*events, (begin_ms + len(order) * period_ms, None)])
        bench.pulses_ms += [begin_ms + after_ms for after_ms in bench.faults.stray_pulses_ms]
        bench.pulses_ms.sort()
        bench.faults.stray_pulses_ms = []

    def stop(self) -> None:
        self.bench.say("dark")
        self._halt()
        self.bench.mirrors(self.bench.clock.now_ms(), None)

    def shown(self) -> tuple[int, ...] | None:
        if not self.bench.settings.read_back:
            return None
        return tuple(index for at_ms, index in self.stepped if at_ms <= self.bench.clock.now_ms())

    def _halt(self) -> None:
        self.stepped, self.left = [], []
        self.bench.pulses_ms = []
        self.bench.exposure_ended = None

    def _step(self, time_ms: float) -> None:
        self.bench.steps += 1
        if self.bench.steps - 1 not in self.bench.faults.lost_steps:
            self._advance(time_ms)

    def _advance(self, time_ms: float) -> None:
        self.bench.mirrors(time_ms, None)
        if self.left:
            index = self.left.pop(0)
            self.stepped.append((time_ms, index))
            self.bench.mirrors(time_ms + self.settle_ms, index)


class Camera(_Face):
    binnings = (1, 2, 4, 8)
    buffer_frames = 1000

    def __init__(self, settings: Settings, mount: Mount) -> None:
        super().__init__(settings, mount)
        self.sensor_shape: tuple[int, int] = self.bench.settings.sensor_shape
        self.mode: CameraMode | None = None
        self.buffer = np.zeros((0, 0), dtype=np.uint16)
        self.old: list[RawFrame] = []
        self.stuck: list[RawFrame] = []
        self.given: list[RawFrame] = []
        self.left = self.number = 0
        self.free_ms = 0.0

    def readout_ms(self, _mode: CameraMode) -> float:
        return 0.5

    def configure(self, mode: CameraMode) -> None:
        self.bench.say("configure")
        self.mode, self.left = mode, 0
        self.buffer = np.zeros(mode.shape, dtype=np.uint16)

    def arm(self, frames: int) -> None:
        self.bench.say("arm")
        self.old, self.stuck = self.old + self.stuck, []
        if self.bench.faults.unflushed and self.given:
            self.old, self.bench.faults.unflushed = self.given, False
        self.given = []
        self.left, self.number = frames, 0
        self.free_ms = self.bench.clock.now_ms()

    def disarm(self) -> None:
        self.bench.say("disarm")
        self.left = 0

    def pop(self, timeout_ms: float) -> RawFrame:
        bench, mode = self.bench, self.mode
        assert mode is not None
        bench.say("pop")
        if self.old:
            return self.old.pop(0)
        deadline_ms = bench.clock.now_ms() + timeout_ms
        while True:
            if bench.faults.dead_at is not None and bench.exposures >= bench.faults.dead_at:
                raise DeviceError("camera", "does not answer any more")
            start_ms = self._next_start(mode)
            if start_ms is None or start_ms + mode.exposure_ms + 0.5 > deadline_ms:
                bench.clock.ms = max(bench.clock.ms, deadline_ms)
                raise DeviceTimeout("camera", f"gave no frame within {timeout_ms:g} ms")
            bench.clock.ms = max(bench.clock.ms, start_ms + mode.exposure_ms + 0.5)
            frame = self._expose(start_ms, mode)
            if frame is not None:
                if len(self.given) < 16:
                    self.given.append(RawFrame(frame.pixels.copy(), frame.number, frame.time_ms))
                return frame

    def _next_start(self, mode: CameraMode) -> float | None:
        if not self.left:
            return None
        if mode.trigger == "internal":
            return self.free_ms
        pulses = [pulse for pulse in self.bench.pulses_ms if pulse >= self.free_ms - 1e-6]
        return pulses[0] if pulses else None

    def _expose(self, start_ms: float, mode: CameraMode) -> RawFrame | None:
        bench = self.bench
        stop_ms = start_ms + mode.exposure_ms
        self.left -= 1
        number, self.number = self.number, self.number + 1
        self.free_ms = max(stop_ms + 0.5, start_ms + mode.interval_ms)
        exposure, bench.exposures = bench.exposures, bench.exposures + 1
        if exposure == bench.faults.trips_at:
            bench.lit = False
        if exposure == bench.faults.wheel_slips_at:
            bench.stands = "none"
        bench.unsteady += len({bench.mirrors_at(start_ms + 1e-6), bench.mirrors_at(stop_ms - 1e-6)}) > 1
        pixels = picture(bench.mirrors_at((start_ms + stop_ms) / 2), exposure, mode.shape)
        if bench.exposure_ended is not None:
            bench.exposure_ended(stop_ms)
        if exposure in bench.faults.dropped:
            return None
        if exposure in bench.faults.late:
            self.stuck.append(RawFrame(pixels, number, start_ms))
            return None
        if exposure not in bench.faults.repeated:
            self.buffer[:] = pixels
        return RawFrame(self.buffer, number, start_ms)


class Light(_Face):
    max_power_mw = 50.0
    watchdog_ms = 300.0

    def __new__(cls, _settings: Settings, mount: Mount) -> Any:
        return super().__new__(cls if mount.name == "light" else SecondLight)

    def set_power(self, power_mw: float) -> None:
        self.bench.say("power")
        if self.bench.faults.power_refused:
            raise DeviceError("light", f"refuses {power_mw} mW")

    def on(self, _longest_ms: float = math.inf) -> None:
        self.bench.say("on")
        self.bench.lit = True

    def off(self) -> None:
        self.bench.say("off")
        if self.bench.faults.off_refused > 0:
            self.bench.faults.off_refused -= 1
            if self.bench.faults.off_raises is not None:
                raise self.bench.faults.off_raises
            return
        self.bench.lit = False

    def is_on(self) -> bool:
        return bool(self.bench.lit)

    def interlock_closed(self) -> bool:
        return not self.bench.faults.interlock_open


class SecondLight(Light):
    """Any other light of a rig."""

    max_power_mw = 80.0
    watchdog_ms = 200.0

    def set_power(self, power_mw: float) -> None:
        self.bench.say(f"{self.mount.name} power {power_mw:g}")

    def on(self, _longest_ms: float = math.inf) -> None:
        self.bench.say(f"{self.mount.name} on")
        self.bench.others_lit.add(self.mount.name)

    def off(self) -> None:
        self.bench.say(f"{self.mount.name} off")
        self.bench.others_lit.discard(self.mount.name)

    def is_on(self) -> bool:
        return self.mount.name in self.bench.others_lit

    def interlock_closed(self) -> bool:
        return True


class Filter(_Face):
    positions = ("GFP", "RFP", "none")

    def switch_ms(self, before: str, after: str) -> float:
        return 25.0 * abs(self.positions.index(before) - self.positions.index(after))

    def select(self, position: str, _timeout_ms: float) -> None:
        self.bench.say(f"filter {position}")
        assert not self.bench.lit, "a filter is turned in the light"
        assert not self.bench.others_lit, "a filter is turned in the light"
        self.bench.clock.ms += self.switch_ms(self.bench.stands, position)
        if not self.bench.faults.wheel_stuck:
            self.bench.stands = position

    def selected(self) -> str:
        return str(self.bench.stands)


class Shutter(_Face):
    switch_ms = 5.0

    def set_open(self, wanted: bool) -> None:
        self.bench.say("shutter open" if wanted else "shutter closed")
        self.bench.clock.ms += self.switch_ms
        self.bench.shutter_open = wanted

    def is_open(self) -> bool:
        return bool(self.bench.shutter_open)

    def block_light(self) -> None:
        if self.bench.shutter_open:
            self.set_open(False)


# ---------------------------------------------------------------- rigs, plans and runs


COLOURS: dict[str, Any] = {
    "green": {"light": "light", "filters": {"filter": "GFP"}},
    "red": {"light": "light_561", "filters": {"filter": "RFP"}, "optics": {"sensor": {"offset_adu": 100.0}}},
}


def bench_rig(
    folder: Path, stepping: str = "dmd", *, read_back: bool = True, side: int = 128, colours: bool = False
) -> Rig:
    """A bench, not opened: it has nothing to open. `colours`: with two lights, a filter and a shutter."""
    settings = {
        "kind": "rig",
        "name": "bench",
        "optics": {
            "object_pixel_um": 0.5,
            "sensor_pixel_um": 0.5,
            "excitation": {"kind": "gaussian", "sigma_um": 0.3},
            "emission": {"kind": "gaussian", "sigma_um": 0.35},
            "mirrors": {
                "shape": [side + 16, side + 16],
                "leakage": 0.01,
                "to_sample": {"matrix": [[0.5, 0.0], [0.0, 0.5]]},
            },
            "dye": {"photons_per_um2_mw_ms": 100.0, "background_photons_per_um2_mw_ms": 1.0},
            "sensor": {"offset_adu": 100.0},
        },
        "connections": {"bench": {"driver": __file__, "read_back": read_back, "sensor_shape": [side, side]}},
        "devices": {role: {"driver": __file__, "connection": "bench"} for role in ("dmd", "camera", "light")},
        "stepping": stepping,
    }
    if colours:
        more = ("light_561", "filter", "shutter")
        settings["devices"] |= {name: {"driver": __file__, "connection": "bench"} for name in more}  # type: ignore[operator]
        settings["channels"] = COLOURS
    path = folder / "bench.yaml"
    path.write_text(yaml.safe_dump(settings))
    return Rig(load_rig(path))


def bench_protocol(folder: Path, *, side: int = 32, **changes: Any) -> Path:
    """A protocol for the bench beside it, as `plan_of` makes it; `changes` are keys of the protocol."""
    bench_rig(folder, side=side)
    protocol = {
        "kind": "run",
        "name": "small",
        "rig": "bench.yaml",
        "field_px": [side, side],
        "patterns": {"set": "hadamard", "count": 4, "camera_pixel": 4},
        "light": {"power_mw": 1.0},
        "exposure_ms": 3.0,
        "frame_timeout_ms": 50.0,
        "proof": {"marker": "never"},  # what a bench's camera gives is no light
        **changes,
    }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(protocol))
    return path


def bench_of(rig: Rig) -> Any:
    """What is behind a bench."""
    return rig.connection("bench")


def plan_of(rig: Rig, *, count: int = 4, camera_pixel: int = 4, side: int = 128, **changes: Any) -> Plan:
    """A small plan; `changes` are keys of the protocol."""
    patterns = {"set": "hadamard", "count": count, "camera_pixel": camera_pixel}
    keys: dict[str, Any] = {
        "kind": "run",
        "name": "small",
        "rig": rig.file.path,
        "field_px": (side, side),
        "patterns": patterns,
        "light": {"power_mw": 1.0},
        "exposure_ms": 3.0,
        "frame_timeout_ms": 50.0,
        "proof": {"marker": "never"},  # what a bench's camera gives is no light
        **changes,
    }
    protocol = Protocol.model_validate(keys)
    stack = PatternSet.model_validate(patterns).make()
    return make_plan(protocol, rig.file.path, rig, rig.optics, stack)


def colour_plan_of(rig: Rig, *, counts: Sequence[int] = (4, 1), side: int = 32, **changes: Any) -> Plan:
    """A small plan in green and red, with so many patterns each; `changes` are keys of the protocol."""
    looks = [
        {
            "channel": channel,
            "patterns": {"set": "hadamard", "count": count, "camera_pixel": 4},
            "light": {"power_mw": power_mw},
            "exposure_ms": exposure_ms,
        }
        for channel, count, power_mw, exposure_ms in zip(COLOURS, counts, (1.0, 2.0), (3.0, 5.0), strict=True)
    ]
    keys: dict[str, Any] = {
        "kind": "run",
        "name": "colours",
        "rig": rig.file.path,
        "field_px": (side, side),
        "channels": tuple(looks),
        "frame_timeout_ms": 50.0,
        "proof": {"marker": "never"},
        **changes,
    }
    protocol = ChannelsProtocol.model_validate(keys)
    asked = [
        Asked(
            protocol.of(look.channel),
            rig.channels[look.channel],
            PatternSet.model_validate(look.patterns).make(),
            name=look.channel,
            key=f"channels.{number}.",
        )
        for number, look in enumerate(protocol.channels)
    ]
    return plan_channels(protocol, rig.file.path, rig, asked)


@contextmanager
def spooling(folder: Path, *, resumed: bool = False) -> Iterator[tuple[RunFolder, Spool]]:
    """A run folder that takes frames."""
    run = RunFolder(folder)
    run.path.mkdir(exist_ok=True)
    journal = Journal(run.journal)
    spool = Spool(run.spool, journal, resumed=resumed)
    try:
        yield run, spool
    finally:
        spool.close()
        journal.close()


def run_plan(
    folder: Path,
    rig: Rig,
    plan: Plan,
    watch: Callable[[Shot, Burst], None] | None = None,
    control: Control | None = None,
) -> tuple[RunFolder, Counts]:
    """All of a plan through the engine."""
    with spooling(folder) as (run, spool):
        counts = Engine(plan, rig, spool, watch, control).run()
    return run, counts


def lines_of(run: RunFolder, kind: str) -> list[Line]:
    return [line for line in read_journal(run.journal) if line["kind"] == kind]

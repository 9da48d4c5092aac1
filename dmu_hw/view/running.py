"""A run while it goes on, as viewers see it, and what they may ask of it."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dmu_hw.counts import Counts
from dmu_hw.data import Burst
from dmu_hw.engine import Engine
from dmu_hw.errors import DeviceError, InputError, Problem
from dmu_hw.kept import KeptBelief
from dmu_hw.plan import Plan, Shot
from dmu_hw.rig import Rig
from dmu_hw.view.board import Board, Made
from dmu_hw.view.wire import Lamp, Pixels, Word, grey, small

if TYPE_CHECKING:
    from dmu_hw.live import Live, Outcome, Shown

_MISSING, _DOUBTFUL = 1, 2
"""What is to be known of a field, as bits."""
_THUMB_PX = 128
_TILES_BYTES = 1_000_000
_LARGEST_TILE_PX, _SMALLEST_TILE_PX = 64, 8
_AT_LEISURE_S = 0.01
_RATE_S = 5.0
"""What rates are the mean of."""
_READ_BACK_S = 0.5
"""From one question to the lights to the next: their line is the run's as well."""
_POLITE_S = 0.05
"""What an abort leaves the engine to put the light off by itself, which looks every 10 ms."""
_FORCED_S = 2.0


def lit(rig: Rig) -> dict[str, bool | None]:
    """What each light says of itself; None: it cannot say, which is not to be taken for dark."""
    found: dict[str, bool | None] = {}
    for name, light in rig.lights.items():
        try:
            found[name] = light.is_on()
        except DeviceError:
            found[name] = None
    return found


class Running:
    """A Site. Engine and reconstruction tell it what happens, from any thread; nothing here makes them wait."""

    def __init__(self, name: str, run: str, plan: Plan, rig: Rig, belief: KeptBelief) -> None:
        self.board = Board()
        self._engine: Engine | None = None
        self._live: Live | None = None
        self._name, self._run, self._plan, self._rig, self._belief = name, run, plan, rig, belief
        self._began_s = time.monotonic()
        self._stage, self._stage_done, self._stage_total, self._stage_s = "preparing", 0, 0, time.monotonic()
        self._now: dict[str, Any] = {}
        self._paces: deque[tuple[float, int, int]] = deque(maxlen=500)
        self._lights: dict[str, bool | None] = dict.fromkeys(rig.lights)
        self._lights_s = -_READ_BACK_S
        self._aborting = threading.Lock()
        fields = plan.positions
        self._progress = np.zeros((2, fields), np.uint16)
        """Of each field: how many bursts, and what is to be known of them."""
        side = int((_TILES_BYTES / fields) ** 0.5)
        self._tile_px = max(_SMALLEST_TILE_PX, min(_LARGEST_TILE_PX, side))
        self._tiles: dict[str, NDArray[np.float32]] = {}
        self._tiled_s = 0.0
        self.board.tell("map", {})
        self._put_places()
        for channel, part in plan.parts.items():
            self._put_patterns(channel, part.stack.masks)

    # ---------------------------------------------------------------- what is told by those who work

    def say(self, text: str) -> None:
        """What people are told at the terminal."""
        self.board.say(text, "error" if text.startswith("error") else "note")

    def fail(self, error: BaseException) -> None:
        """It ends before its time."""
        why = f"stopped by {error}" if isinstance(error, KeyboardInterrupt) else str(error) or type(error).__name__
        self.board.tell("failed", {"why": why})

    def stage(self, what: str, done: int = 0, total: int = 0) -> None:
        """What goes on now, and how far it is."""
        if what != self._stage:
            self._stage_s = time.monotonic()
        self._stage, self._stage_done, self._stage_total = what, done, total

    def follow(self, engine: Engine) -> None:
        """From now on there is an engine, which may be stopped."""
        self._engine = engine
        self.stage("imaging", len(engine.past.sealed), len(self._plan.shots))

    def listen(self, live: Live) -> None:
        """Show what is reconstructed."""
        self._live = live
        live.listen(self.estimate)

    def burst(self, shot: Shot, burst: Burst) -> None:
        """One was taken; its frames are not copied, nobody writes into them."""
        taken = sum(frame.pixels.nbytes for frame in burst.frames)
        self._paces.append((time.monotonic(), len(burst.frames), taken))
        self._now = self._place(shot)
        self._progress[0, shot.position] += 1
        self._progress[1, shot.position] |= _MISSING if burst.missing else 0
        self.board.put("map", self._map, every_s=0.2)
        if shot.role in ("patterns", "chosen"):
            self.board.put(f"frames/{shot.channel}", lambda: _thumbnails(burst, self._place(shot)), every_s=0.2)

    def estimate(self, outcome: Outcome) -> None:
        """What the inverse made of one."""
        shot, estimate, channel = outcome.shot, outcome.estimate, outcome.channel
        tile = self._tile(estimate.image)
        tiles = self._tiles.get(channel)
        if tiles is None:
            tiles = np.full((self._plan.positions, *tile.shape), np.nan, np.float32)
            self._tiles[channel] = tiles
        tiles[shot.position] = tile
        reasons = estimate.doubt.reasons if estimate.doubt is not None else ()
        if reasons:
            self._progress[1, shot.position] |= _DOUBTFUL
        facts = {**self._place(shot), "pixel_um": estimate.pixel_um, "count": estimate.count}
        facts |= {"latency_ms": outcome.latency_ms, "doubt": ", ".join(reasons)}
        facts |= {
            "residual": _finite(estimate.residual),
            "score": _finite(estimate.doubt.score if estimate.doubt is not None else None),
        }
        self.board.put(f"estimate/{channel}", lambda: _shown(estimate.image, facts), every_s=0.1)
        if estimate.labels is not None:
            labels = estimate.labels
            self.board.put(f"labels/{channel}", lambda: (facts, labels.astype(np.uint16)), every_s=0.1)
        if (spread := estimate.spread) is not None:
            self.board.put(f"spread/{channel}", lambda: _shown(spread, facts), every_s=0.2)
        self.board.put(f"tiles/{channel}", lambda: _atlas(tiles), every_s=0.5 + self._plan.positions / 1000)

    # ---------------------------------------------------------------- a site

    def about(self) -> dict[str, Any]:
        """For the page to build itself."""
        plan, price = self._plan, self._plan.price
        rows, columns = plan.protocol.field_px
        caps = [plan.protocol.budget.dose_mj_cm2, self._rig.settings.limits.dose_mj_cm2]
        return {
            "mode": "run",
            "name": self._name,
            "rig": self._rig.settings.name,
            "folder": self._run,
            "channels": list(plan.parts),
            "field_px": [rows, columns],
            "pixel_um": plan.object_pixel_um,
            "fields": [plan.name_of(field) for field in range(plan.positions)],
            "field_um": plan.size_um,
            "bursts_per_field": max(1, len(plan.shots) // plan.positions),
            "times": plan.times,
            "planes": plan.planes,
            "price": {"time_s": price.time_s, "dose_mj_cm2": price.dose_per_field_mj_cm2},
            "cap_mj_cm2": min((cap for cap in caps if cap is not None), default=None),
            "calibration": self._calibration(),
            "cautions": list(plan.cautions),
        }

    def report(self) -> None:
        self._read_back()
        self.board.tell("state", self._state())

    def order(self, order: Word | Lamp) -> None:
        if isinstance(order, Lamp):
            return
        if self._engine is None or self._stage != "imaging":
            self.board.say("there is no light to put off now, and nothing to pause; Ctrl-C ends the program")
            return
        control = self._engine.control
        if order.do == "abort":
            self._abort(self._engine)
        elif order.do == "pause" and control.state == "running":
            control.pause()
            self.board.say("paused from the page: in the dark after the burst that is being taken")
        elif order.do == "go" and control.state == "paused":
            control.resume()
            self.board.say("goes on, as the page asked")

    def image(self, _wanted: Mapping[str, str]) -> bytes:
        raise InputError([Problem(self._run, "goes on: its stores are made at its end")])

    # ---------------------------------------------------------------- the light

    def _abort(self, engine: Engine) -> None:
        """At once, and by way of nothing that can be stalled; a thread of its own sees to it that it gets dark."""
        began_s = time.monotonic()
        engine.control.abort("abort on the page")
        if self._aborting.acquire(blocking=False):
            threading.Thread(target=self._darken, args=(engine, began_s), name="abort", daemon=True).start()

    def _darken(self, engine: Engine, began_s: float) -> None:
        """Thread. The engine puts the light off within a hundredth of a second; if it hangs, the guard does."""
        forced = False
        while time.monotonic() < began_s + _FORCED_S:
            if all(on is False for on in lit(self._rig).values()):
                took_ms = (time.monotonic() - began_s) * 1e3
                self.board.tell("aborted", {"dark_ms": took_ms, "forced": forced})
                self.board.say(f"aborted from the page: dark {took_ms:.0f} ms after the order", "caution")
                return
            if not forced and engine.guard is not None and time.monotonic() > began_s + _POLITE_S:
                forced = True
                with suppress(DeviceError):  # the guard has told it loudly; what counts is what is read back
                    engine.guard.off()
            time.sleep(0.002)
        self.board.say("LIGHT MAY BE ON: it does not say that it is off. SWITCH IT OFF BY HAND", "error")

    def _read_back(self) -> None:
        """Only while it images: before and after, the devices are not open."""
        if self._engine is None or self._stage != "imaging":
            self._lights = dict.fromkeys(self._lights)
        elif time.monotonic() >= self._lights_s + _READ_BACK_S:
            self._lights_s = time.monotonic()
            self._lights = lit(self._rig)

    # ---------------------------------------------------------------- numbers

    def _state(self) -> dict[str, Any]:
        engine, now_s = self._engine, time.monotonic()
        left_s = None
        if 0 < self._stage_done <= self._stage_total:
            left_s = (now_s - self._stage_s) * (self._stage_total / self._stage_done - 1)
        return {
            "stage": self._stage,
            "done": self._stage_done,
            "total": self._stage_total,
            "control": "running" if engine is None else engine.control.state,
            "lights": self._lights,
            "elapsed_s": now_s - self._began_s,
            "left_s": left_s,
            "now": self._now,
            "rates": self._rates(now_s),
            "counts": None if engine is None else self._numbers(engine),
            "dose": None if engine is None else self._doses(engine.counts),
            "live": {} if self._live is None else _told(self._live),
        }

    def _rates(self, now_s: float) -> dict[str, float]:
        recent = [pace for pace in list(self._paces) if pace[0] > now_s - _RATE_S]
        span_s = min(_RATE_S, max(now_s - self._stage_s, 0.1))
        return {
            "bursts_s": len(recent) / span_s,
            "frames_s": sum(frames for _, frames, _ in recent) / span_s,
            "bytes_s": sum(taken for _, _, taken in recent) / span_s,
        }

    def _numbers(self, engine: Engine) -> dict[str, Any]:
        """What was asked for and what came; while it images, the writer itself knows best what is saved."""
        counts = engine.counts
        names = ("expected", "received", "missing", "duplicates", "retaken_bursts", "unproven_bursts", "late_bursts")
        told: dict[str, Any] = {name: getattr(counts, name) for name in names}
        saved = counts.saved + (engine.saver.saved if self._stage == "imaging" else 0)
        return {**told, "saved": min(saved, counts.expected), "light_on_ms": counts.light_on_ms}

    def _doses(self, counts: Counts) -> dict[str, float]:
        doses = counts.dose_mj_cm2.copy()  # the engine goes on booking
        here = doses.get(self._now.get("field", -1), 0.0)
        return {"here_mj_cm2": here, "most_mj_cm2": max(doses.values(), default=0.0)}

    def _calibration(self) -> list[dict[str, Any]]:
        return [
            {
                "name": name,
                "at": _moment(ground.at),
                "good_until": _moment(ground.good_until),
                "verdict": ground.verdict,
            }
            for name, ground in self._belief.grounds.items()
        ]

    def _place(self, shot: Shown) -> dict[str, Any]:
        return {
            "shot": shot.index,
            "field": shot.position,
            "name": self._plan.name_of(shot.position),
            "time": shot.time,
            "z": shot.z,
            "role": shot.role,
            "channel": shot.channel,
        }

    # ---------------------------------------------------------------- pictures

    def _tile(self, image: Pixels) -> Pixels:
        """For the map. When images come very fast, some pixels speak for all: nobody is to wait for this."""
        since_s, self._tiled_s = time.monotonic() - self._tiled_s, time.monotonic()
        if since_s > _AT_LEISURE_S:
            return small(image, self._tile_px)
        step = -(-max(image.shape) // self._tile_px)
        rows, columns = (max(1, side // step) for side in image.shape)
        return image[step // 2 :: step, step // 2 :: step][:rows, :columns]

    def _map(self) -> Made:
        return {"now": self._now.get("field")}, self._progress.copy()

    def _put_places(self) -> None:
        where = [(place.x_um or 0.0, place.y_um or 0.0) for place in self._plan.shots.places]
        self.board.put("places", lambda: ({}, np.array(where, np.float32)))

    def _put_patterns(self, channel: str, masks: Pixels) -> None:
        self.board.put(f"patterns/{channel}", lambda: ({"channel": channel}, masks.astype(np.uint8)))


def _moment(at: datetime) -> float:
    return at.timestamp()


def _told(live: Live) -> dict[str, Any]:
    counts, latencies = live.counts, live.latencies
    quantiles = {name: latencies.quantile_ms(part) for name, part in (("p50_ms", 0.5), ("p99_ms", 0.99))}
    numbers = {name: getattr(counts, name) for name in ("bursts", "made", "dropped", "incomplete", "failed")}
    return {**numbers, **quantiles, "budget_ms": latencies.budget_ms, "budget_kept": latencies.kept}


def _finite(value: float | None) -> float | None:
    """What JSON can say."""
    return value if value is not None and math.isfinite(value) else None


def _thumbnails(burst: Burst, place: Mapping[str, Any]) -> Made:
    """All frames side by side in their order; what is missing is black, and said."""
    frames = sorted(burst.frames, key=lambda frame: frame.pattern)
    facts = {**place, "missing": [gap.pattern for gap in burst.missing], "why": [gap.reason for gap in burst.missing]}
    facts |= {"patterns": [frame.pattern for frame in frames]}
    if not frames:
        return facts, None
    stack = np.stack([frame.pixels for frame in frames])
    thumbs, low, high = grey(small(stack, _THUMB_PX))
    return {**facts, "low": low, "high": high, "frame_px": list(stack.shape[1:])}, thumbs


def _shown(image: Pixels, facts: Mapping[str, Any]) -> Made:
    pixels, low, high = grey(image)
    return {**facts, "low": low, "high": high}, pixels


def _atlas(tiles: NDArray[np.float32]) -> Made:
    """One small image of each field, 0 where there is none yet."""
    here = tiles.copy()
    known = np.isfinite(here)
    low, high = (float(here[known].min()), float(here[known].max())) if known.any() else (0.0, 1.0)
    span = high - low or 1.0
    levels = np.where(known, 1 + (np.nan_to_num(here) - low) * (254 / span), 0).astype(np.uint8)
    return {"low": low, "high": low + span}, levels

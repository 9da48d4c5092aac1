"""The lights: off at the start, one of them on only inside one context, off on every way out, as they themselves say.
The shutter, where there is one, is open only while a run takes light.

What puts them off works in threads of its own: no Ctrl-C reaches them, and a driver that hangs keeps nobody waiting.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from dmu_hw.darkness import Attempt, Source, Way, put_off
from dmu_hw.errors import DeviceError
from dmu_hw.rig import Rig

_LOOK_S = 0.05
"""From one look at the interlock to the next."""
_AGAIN_S = 0.25
_FIRST_S = 2.0
"""More than the usual time for the first OFF of all: nothing was lit, and a computer that is busy with starting the run
is no reason to refuse it."""
log = logging.getLogger(__name__)


class Guard:
    """The only one who switches a light on. One guard a run: after a fault it never does so again."""

    def __init__(self, rig: Rig) -> None:
        self.fault = ""
        """Why no light is lit again by this guard."""
        self._culprit = ""
        self._rig = rig
        self._lights = rig.lights
        self._sources = {name: Source(name, light.off, light.is_on) for name, light in self._lights.items()}
        self._shutter = rig.shutter
        self._way: Source | None = None
        """The shutter as what light comes through."""
        if rig.shutter is not None:
            needs_s = rig.shutter.switch_ms / 1e3
            self._way = Source("shutter", rig.shutter.block_light, rig.shutter.is_open, needs_s)
        self._opened = False
        """Whether the shutter was opened and not closed since."""
        self._clock = rig.clock
        self._longest_ms = rig.settings.limits.on_time_ms
        self._others: list[tuple[str, Callable[[], None]]] = [("mirrors", rig.dmd.stop)]
        blockers = rig.blockers.items()
        self._others += [(name, blocker.block_light) for name, blocker in blockers if blocker is not rig.shutter]
        self._looked_s = 0.0
        self._lit = ""
        """The light that may be on."""
        self._darken(shutter=True, more_s=_FIRST_S)

    @contextmanager
    def light_on(
        self, power_mw: float, longest_ms: float, light: str = "light", *, bare: bool = False
    ) -> Iterator[None]:
        """One light, and no other, for the length of a block, called off after so long on the rig's clock even if the
        block hangs. The shutter is opened for the first one and stays open until `off`, or an error. `bare`: the light
        is told that very number, whatever was measured of what comes of it."""
        source, lamp = self._sources[light], self._lights[light]
        self._look(light)
        as_it_should = False
        try:
            lamp.set_power(power_mw if bare else self._rig.setting_mw(light, power_mw))
            self._check_others(light)
            self._open_shutter()
            source.dark, self._lit = threading.Event(), light
            longest_ms = min(longest_ms, self._longest_ms)
            threading.Thread(target=self._call_off, args=(source, source.dark, longest_ms), daemon=True).start()
            lamp.on(longest_ms)
            self._raise_fault()  # it may have been called off while it went on
            yield
            self._raise_fault()
            self._check_lit(light)
            as_it_should = True
        finally:
            self._darken(shutter=not as_it_should, mirrors=not as_it_should)

    def check(self) -> None:
        """To be called often while the light is on: raises when it must not be on any more."""
        self._raise_fault()
        if time.monotonic() >= self._looked_s + _LOOK_S:
            self._look(self._lit)

    def off(self) -> None:
        """All lights off, read back, three tries; then the shutter closed; where one does not obey, all else that makes
        it dark, and a fault that says so loudly. Any thread may call it, and no Ctrl-C stops it half way."""
        self._darken(shutter=True)

    # ---------------------------------------------------------------- what must not be

    def _raise_fault(self) -> None:
        if self.fault:
            raise DeviceError(self._culprit, f"is in a fault state: {self.fault}")

    def _fail(self, device: str, why: str) -> None:
        """The first fault is the one that is told."""
        if not self.fault:
            self._culprit, self.fault = device, why

    def _look(self, light: str) -> None:
        """An interlock that was open once in a run ends it: nobody lights again whoever may be in there."""
        self._raise_fault()
        self._looked_s = time.monotonic()
        if not self._lights[light].interlock_closed():
            self._fail(light, "its interlock was open; begin a new run when it is closed")
            raise DeviceError(light, "interlock is open")

    def _check_others(self, light: str) -> None:
        """Whatever else is on would be in the frames, and nobody has booked its dose."""
        for name, other in self._lights.items():
            if name != light and other.is_on():
                raise DeviceError(name, f"is on, and nobody has lit it: only {light} may be on")

    def _check_lit(self, light: str) -> None:
        """At the end of a block: was it as it should be?"""
        if not self._lights[light].is_on():
            self._look(light)  # perhaps it can say why
            raise DeviceError(light, "went off by itself: frames may have been exposed in the dark")
        self._check_others(light)
        if self._shutter is not None and not self._shutter.is_open():
            raise DeviceError("shutter", "closed by itself: frames may have been exposed in the dark")

    def _call_off(self, source: Source, dark: threading.Event, longest_ms: float) -> None:
        """Thread, one for each time that a light is on: puts it off if nobody else does."""
        began_ms = self._clock.now_ms()
        while (left_ms := began_ms + longest_ms - self._clock.now_ms()) > 0:
            if dark.wait(max(left_ms, 1.0) / 1e3):
                return
        self._fail(source.name, f"was on for longer than {longest_ms:.0f} ms")
        log.critical("%s: %s; it is called off", source.name, self.fault)
        while not dark.is_set():
            with suppress(DeviceError):  # told loudly already; the next try may do better
                self.off()
            dark.wait(_AGAIN_S)

    # ---------------------------------------------------------------- the shutter

    def _open_shutter(self) -> None:
        """Once for many blocks: mechanical shutters are slow. One that was opened and is found closed was closed by
        somebody else, and is not opened again."""
        if self._shutter is None:
            return
        if not self._opened:
            self._opened = True
            self._shutter.set_open(True)
        if not self._shutter.is_open():
            raise DeviceError("shutter", "is not open: frames would be exposed in the dark")

    # ---------------------------------------------------------------- ways to darkness

    def _darken(self, *, shutter: bool, mirrors: bool = False, more_s: float = 0.0) -> None:
        """Lights, and if it is wanted the shutter after them. Mirrors, if they are, at once: of a burst that is lost
        nothing is spoiled, and a light that hangs may need all its tries."""
        attempts = [Attempt(source) for source in self._sources.values()]
        closing = [] if self._way is None else [Attempt(self._way)]
        ways = [Way(name, block) for name, block in self._others]
        interrupt: KeyboardInterrupt | None = None
        while True:
            try:
                if mirrors:
                    ways[0].begin()
                self._put_off(attempts, closing, ways, more_s)
                if mirrors:
                    ways[0].waited()  # or it would come between what this thread tells them next
                if shutter:
                    self._close(closing)
                break
            except KeyboardInterrupt as error:
                interrupt = error
        if interrupt is not None:
            raise interrupt

    def _put_off(self, attempts: list[Attempt], closing: list[Attempt], ways: list[Way], more_s: float) -> None:
        refusing = put_off(attempts, more_s)
        if not refusing:
            return
        for attempt in refusing:
            self._fail(attempt.source.name, "it did not go off when it was told to")
            log.critical("LIGHT MAY BE ON: %s did not go off in %d tries", attempt.source.name, attempt.tries)
        for way in ways:
            way.begin()
        blocked = [way.name for way in ways if way.worked()]
        with suppress(DeviceError):  # told by now, and the light is what people must see to first
            blocked += self._close(closing)
        instead = f"; no light now by {', '.join(blocked)}" if blocked else ""
        names = ", ".join(attempt.source.name for attempt in refusing)
        what = f"did not go off in {max(attempt.tries for attempt in refusing)} tries"
        raise DeviceError(names, f"{what}: SWITCH IT OFF BY HAND{instead}") from _first(refusing[0])

    def _close(self, closing: list[Attempt]) -> list[str]:
        """The shutter, if there is one; its name."""
        self._opened = False
        for attempt in put_off(closing):
            what = f"did not close in {attempt.tries} tries"
            self._fail("shutter", what)
            log.critical("SHUTTER MAY BE OPEN: it %s", what)
            raise DeviceError("shutter", f"{what}: CLOSE IT BY HAND") from _first(attempt)
        return [attempt.source.name for attempt in closing]


def _first(attempt: Attempt) -> BaseException | None:
    return attempt.failures[0] if attempt.failures else None

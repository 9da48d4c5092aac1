"""The light: off at the start, on only inside one context, off on every way out, confirmed by reading back.

What puts it off works in threads of its own: no Ctrl-C reaches them, and a driver that hangs keeps nobody waiting.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from dmu_hw.errors import DeviceError
from dmu_hw.ports import Light
from dmu_hw.rig import Rig

_TRIES = 3
_OFF_S = 0.3
"""All tries together; then the other ways to darkness."""
_LOOK_S = 0.05
"""From one look at the interlock to the next."""
_AGAIN_S = 0.25
log = logging.getLogger(__name__)


class Guard:
    """The only one who switches the light on. One guard a run: after a fault it never does so again."""

    def __init__(self, rig: Rig) -> None:
        self.fault = ""
        """Why the light is not lit again by this guard."""
        self._light = rig.light
        self._clock = rig.clock
        self._longest_ms = rig.settings.limits.on_time_ms
        self._others: list[tuple[str, Callable[[], None]]] = [("mirrors", rig.dmd.stop)]
        self._others += [(name, blocker.block_light) for name, blocker in rig.blockers.items()]
        self._turn = threading.Lock()
        self._dark = threading.Event()
        self._looked_s = 0.0
        self.off()

    @contextmanager
    def light_on(self, power_mw: float, longest_ms: float) -> Iterator[None]:
        """Light for the length of a block, called off after so long on the rig's clock even if the block hangs."""
        longest_ms = min(longest_ms, self._longest_ms)
        self._look()
        try:
            self._light.set_power(power_mw)
            self._dark = threading.Event()
            threading.Thread(target=self._call_off, args=(self._dark, longest_ms), daemon=True).start()
            self._light.on(longest_ms)
            self._raise_fault()  # it may have been called off while it went on
            yield
            self._raise_fault()
            if not self._light.is_on():
                self._look()  # perhaps it can say why
                raise DeviceError("light", "went off by itself: frames may have been exposed in the dark")
        finally:
            self.off()

    def check(self) -> None:
        """To be called often while the light is on: raises when it must not be on any more."""
        self._raise_fault()
        if time.monotonic() >= self._looked_s + _LOOK_S:
            self._look()

    def off(self) -> None:
        """Off, read back, three tries; then all else that makes it dark, and a fault that says so loudly. Any thread
        may call it, and no Ctrl-C stops it half way."""
        attempt = _Attempt()
        interrupt: KeyboardInterrupt | None = None
        while True:
            try:
                self._put_off(attempt)
                break
            except KeyboardInterrupt as error:
                interrupt = error
        if interrupt is not None:
            raise interrupt

    # ---------------------------------------------------------------- what must not be

    def _raise_fault(self) -> None:
        if self.fault:
            raise DeviceError("light", f"is in a fault state: {self.fault}")

    def _look(self) -> None:
        """An interlock that was open once in a run ends it: nobody lights again whoever may be in there."""
        self._raise_fault()
        self._looked_s = time.monotonic()
        if not self._light.interlock_closed():
            self.fault = "its interlock was open; begin a new run when it is closed"
            raise DeviceError("light", "interlock is open")

    def _call_off(self, dark: threading.Event, longest_ms: float) -> None:
        """Thread, one for each time that the light is on: puts it off if nobody else does."""
        began_ms = self._clock.now_ms()
        while (left_ms := began_ms + longest_ms - self._clock.now_ms()) > 0:
            if dark.wait(max(left_ms, 1.0) / 1e3):
                return
        self.fault = self.fault or f"was on for longer than {longest_ms:.0f} ms"
        log.critical("light: %s; it is called off", self.fault)
        while not dark.is_set():
            with suppress(DeviceError):  # told loudly already; the next try may do better
                self.off()
            dark.wait(_AGAIN_S)

    # ---------------------------------------------------------------- ways to darkness

    def _put_off(self, attempt: _Attempt) -> None:
        if not attempt.begun:
            _begin(lambda: self._try_off(attempt))
        attempt.over.wait(_OFF_S)
        if attempt.dark:
            return
        self.fault = self.fault or "it did not go off when it was told to"
        what = f"did not go off in {attempt.tries} tries"
        log.critical("LIGHT MAY BE ON: it %s", what)
        blocked = [name for name, block in self._others if _done(name, block)]
        instead = f"; no light now by {', '.join(blocked)}" if blocked else ""
        cause = attempt.failures[0] if attempt.failures else None
        raise DeviceError("light", f"{what}: SWITCH IT OFF BY HAND{instead}") from cause

    def _try_off(self, attempt: _Attempt) -> None:
        """Thread. A second one of the same attempt finds it done."""
        attempt.begun = True
        with self._turn:
            while not attempt.dark and attempt.tries < _TRIES:
                attempt.tell(self._light)
            if attempt.dark:
                self._dark.set()
        attempt.over.set()


@dataclass
class _Attempt:
    """To put the light off. What counts is what is read back, whatever became of the command."""

    begun: bool = False
    over: threading.Event = field(default_factory=threading.Event)
    dark: bool = False
    tries: int = 0
    failures: list[BaseException] = field(default_factory=list)

    def tell(self, light: Light) -> None:
        self.tries += 1
        try:
            light.off()
        except BaseException as error:  # noqa: BLE001 - whatever a driver raises, the light is asked and told again
            self.failures.append(error)
        try:
            self.dark = not light.is_on()
        except BaseException as error:  # noqa: BLE001 - the same
            self.failures.append(error)


def _done(name: str, block: Callable[[], None]) -> bool:
    """Another way to keep light from the sample, tried for a moment; whether it worked."""
    failures: list[BaseException] = []
    over = threading.Event()

    def work() -> None:
        try:
            block()
        except BaseException as error:  # noqa: BLE001 - the next way must get its turn
            failures.append(error)
        over.set()

    _begin(work)
    if over.wait(_OFF_S) and not failures:
        return True
    log.critical("%s cannot keep the light away either: %s", name, failures[0] if failures else "no answer")
    return False


def _begin(work: Callable[[], None]) -> None:
    """In a thread of its own; where the system gives none any more, here."""
    try:
        threading.Thread(target=work, daemon=True).start()
    except RuntimeError:
        work()

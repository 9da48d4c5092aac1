"""What a guardian does: obeys its controller, and puts the light off when it must not be on any more."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import queue
import time
from collections.abc import Callable
from typing import Any

from dmu_hw.errors import DeviceError, DeviceTimeout
from dmu_hw.guardian.charge import Guarded

SILENCE_S = 0.2
"""So long without a heartbeat, and the controller is taken for frozen."""
_LOOK_S = 0.05
"""An OFF whose effect the controller does not ask for within this time is checked by the guardian."""
_AGAIN_S = 0.02
_ROUND = 3
"""After so many tries there is a pause that is longer than the watchdog of the hardware: each try would feed it."""
_FINAL_S = 60.0
"""How long a guardian without a controller tries to put off a light that refuses."""
_LONGEST_WAIT_S = 3600.0
log = logging.getLogger(__name__)


class Keeper:
    """Works in one thread: no command waits for another but on the line itself."""

    def __init__(self, light: Guarded, name: str, say: Callable[[dict[str, Any]], None]) -> None:
        self.heard_s = time.monotonic()
        """When the controller last gave a sign of life; another thread sets it."""
        self._light = light
        self._name = name
        self._say = say
        self._open = False
        self._lit = False
        """On, as far as anybody knows; true before it is told to, false once OFF was obeyed."""
        self._wanted = False
        """Whether the controller wants it on; if not, nothing is done that keeps it on."""
        self._until_s = 0.0
        """It may be on until then."""
        self._check_s = math.inf
        """When the effect of an OFF is to be checked."""
        self._fed_s = 0.0
        self._tries = 0
        self._again_s = 0.0
        """While it refuses to go off: how often it was told, and when it is told again."""
        self._warned: set[str] = set()
        """What was said of that, once each: there are many tries a second."""

    def serve(self, inbox: queue.SimpleQueue[bytes | None]) -> None:
        """Until None comes; then off, for as long as it takes."""
        try:
            while True:
                try:
                    line = inbox.get(timeout=self._patience_s())
                except queue.Empty:
                    line = b""
                if line is None:
                    break
                if line:
                    self._answer(json.loads(line))
                self._look()
        finally:
            self._put_off_for_good()

    # ---------------------------------------------------------------- what the controller asks for

    def _answer(self, request: dict[str, Any]) -> None:
        answer: dict[str, Any] = {"id": request["id"]}
        try:
            answer["gives"] = self._done(request["do"], request["with"])
        except DeviceError as error:
            answer["error"] = [isinstance(error, DeviceTimeout), error.device, error.what]
        except Exception as error:  # noqa: BLE001 - whatever a driver raises, the controller must be told
            answer["error"] = [False, self._name, f"{type(error).__name__}: {error}"]
        self._say(answer)

    def _done(self, what: str, given: list[Any]) -> object:
        now_s = time.monotonic()
        if what == "open":
            self._open = True
        elif what == "on":
            if self._lit and not self._wanted:
                raise DeviceError(self._name, "did not go off when it was told to: it is not lit again")
            self._lit = self._wanted = True
            self._until_s, self._fed_s = now_s + given[0] / 1e3, now_s
        elif what == "off":
            self._wanted = False
        found: object = getattr(self._light, what)(*given)
        if what == "off":
            self._lit, self._check_s = False, now_s + _LOOK_S
        elif what == "is_on":
            self._lit, self._check_s = bool(found), math.inf
        elif what == "close":
            self._lit, self._check_s, self._open = False, math.inf, False
        return found

    # ---------------------------------------------------------------- what it does by itself

    def _patience_s(self) -> float:
        """How long nothing has to be done."""
        due_s = self._check_s
        if self._lit:
            due_s = min(due_s, min(self._dark_s(), self._hungry_s()) if self._wanted else self._again_s)
        return min(_LONGEST_WAIT_S, max(0.0, due_s - time.monotonic()))

    def _dark_s(self) -> float:
        """When the light must go off, if nothing comes before."""
        return min(self._until_s, self.heard_s + SILENCE_S)

    def _hungry_s(self) -> float:
        """When the watchdog of the hardware wants to hear something."""
        return self._fed_s + (self._light.watchdog_ms or math.inf) / 4e3

    def _look(self) -> None:
        now_s = time.monotonic()
        if now_s >= self._check_s:
            self._check()
        if not self._lit:
            return
        if not self._wanted:
            if now_s >= self._again_s:
                self._put_off()
        elif now_s >= self._dark_s():
            heard_s, late = now_s - self.heard_s, now_s >= self._until_s
            self._intervene("was on for the longest time allowed" if late else f"no heartbeat for {heard_s:.2f} s")
        elif now_s >= self._hungry_s():
            self._feed()

    def _check(self) -> None:
        """Nobody asked whether the last OFF was obeyed."""
        self._check_s = math.inf
        try:
            if self._light.is_on():
                self._intervene("it did not obey OFF")
        except Exception as error:  # noqa: BLE001 - a light that cannot tell is taken to be on
            self._intervene(f"after OFF it could not tell its state: {error}")

    def _feed(self) -> None:
        self._fed_s = time.monotonic()
        try:
            self._light.keep_alive()
        except Exception as error:  # noqa: BLE001 - what cannot be reached is not kept alive
            self._intervene(f"its watchdog cannot be fed: {error}")

    def _intervene(self, why: str) -> None:
        self._lit, self._wanted = True, False
        dark = self._put_off()
        self._say({"put_off": why, "dark": dark})

    def _put_off(self) -> bool:
        """One try, confirmed by reading back; if it fails, `_again_s` says when the next is due."""
        self._tries += 1
        try:
            self._light.off()
        except Exception as error:  # noqa: BLE001 - what counts is what is read back
            self._warn(error)
        try:
            dark = not self._light.is_on()
        except Exception as error:  # noqa: BLE001 - not confirmed: it will be told again
            self._warn(error)
            dark = False
        if dark:
            self._lit, self._tries = False, 0
            self._warned.clear()
        else:
            pause_s = _AGAIN_S if self._tries % _ROUND else max(_AGAIN_S, (self._light.watchdog_ms or 0.0) / 500)
            self._again_s = time.monotonic() + pause_s
        return dark

    def _warn(self, error: Exception) -> None:
        if str(error) not in self._warned:
            self._warned.add(str(error))
            log.warning("%s", error if isinstance(error, DeviceError) else f"{self._name}: {error}")

    def _put_off_for_good(self) -> None:
        """Nobody is left who could do it: even what is said to be off is told once more."""
        until_s = time.monotonic() + _FINAL_S
        while self._open and not self._put_off() and time.monotonic() < until_s:
            if self._tries == _ROUND:
                log.critical("LIGHT MAY BE ON: %s does not obey OFF, and its controller is gone", self._name)
            time.sleep(max(0.0, self._again_s - time.monotonic()))
            with contextlib.suppress(Exception):  # the cable may be back: the next try will tell
                self._light.open()
        try:
            self._light.close()
        except Exception as error:  # noqa: BLE001 - there is nobody left to raise it to
            log.critical("%s", error)

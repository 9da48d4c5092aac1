"""The light: off at the start, on only inside one context, off on every way out, confirmed by reading back."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from dmu_hw.errors import DeviceError
from dmu_hw.ports import Light

log = logging.getLogger(__name__)
_TRIES = 3


class Guard:
    """The only one who switches the light on."""

    def __init__(self, light: Light) -> None:
        self._light = light
        self.fault = False
        """The light refused to go off: it is never lit again by this guard."""
        self.off()

    @contextmanager
    def light_on(self, power_mw: float) -> Iterator[None]:
        """Light for the length of a block."""
        if self.fault:
            raise DeviceError("light", "is in a fault state: it did not go off when told to")
        if not self._light.interlock_closed():
            raise DeviceError("light", "interlock is open")
        try:
            self._light.set_power(power_mw)
            self._light.on()
            yield
            if not self._light.is_on():
                raise DeviceError("light", "went off by itself: frames may have been exposed in the dark")
        finally:
            self.off()

    def off(self) -> None:
        """Off, read back; three tries, then a fault that says so loudly. A second Ctrl-C does not stop it half way."""
        failure: Exception | None = None
        interrupt: KeyboardInterrupt | None = None
        for _ in range(_TRIES):
            try:
                self._light.off()
                if not self._light.is_on():
                    break
            except KeyboardInterrupt as error:
                interrupt = error
            except Exception as error:  # noqa: BLE001 - whatever a driver raises, the light must be told again
                failure = error
        else:
            self.fault = True
            log.critical("LIGHT MAY BE ON: it did not go off in %d tries", _TRIES)
            raise DeviceError("light", f"did not go off in {_TRIES} tries: SWITCH IT OFF BY HAND") from failure
        if interrupt is not None:
            raise interrupt

"""What boxes of others obey, as their firmwares do: a light hangs on the first output of each, and on its first
analogue output once that was told something. What is not known of a box is said in its driver."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Final

from dmu_hw.twins.dialects import Dialect, Lines
from dmu_hw.twins.emitter import Emitter

_FULL_W = 0.01
"""What the light gives with all of its analogue input, or without one."""


def _gate(emitter: Emitter, high: bool) -> bool:
    """Whether the output is high after that: one that does not obey stays as it is. A light behind an open interlock
    stays dark whatever its gate is."""
    if high:
        emitter.on()
        return True
    emitter.off()
    return emitter.lit


class TriggerScope(Lines):
    """Acknowledges what it understood; tells the state of its pins."""

    end = b"\n"

    def __init__(self, emitter: Emitter) -> None:
        self.switches = {"name": "ARC TRIGGERSCOPE 16 R4 Board 4B v.620-MM"}
        self._emitter = emitter
        self._masks = [0, 0]
        self._levels = [0] * 16
        emitter.power_w = _FULL_W

    def reply(self, command: str) -> str:
        return f"{self._obeyed(command)}\r\n"

    def _obeyed(self, command: str) -> str:
        if command == "*":
            return self.switches["name"]
        if command == "STAT?":
            return self._state()
        told = re.fullmatch("(SDO|SAO|SAR|PDC|BDO|PAS|BAO|SSL)([0-9]{1,2})((?:-[0-9]{1,5})*)", command)
        if told is None:
            return "ERROR_UNKNOWN_COMMAND"
        number, values = int(told[2]), [int(value) for value in told[3].split("-")[1:]]
        if not self._set(told[1], number, values):
            return f"!ERROR_{told[1]}: Format"
        return f"!{command}"

    def _set(self, what: str, number: int, values: list[int]) -> bool:
        """Whether it is allowed; most of what sequences are told makes no difference here."""
        match what, values:
            case "SDO", [mask] if number <= 1 and mask <= 255:
                high = bool(mask & 1)
                if number == 0 and high != _gate(self._emitter, high):
                    mask |= 1
                self._masks[number] = mask
            case "SAO", [value] if 1 <= number <= 16 and value <= 65535:
                self._levels[number - 1] = value
                if number == 1:
                    self._emitter.power_w = _FULL_W * value / 65535
            case "SAR", [1 | 2] if 1 <= number <= 16:
                self._levels[number - 1] = 0
            case ("PDC" | "SSL", []) | ("BDO", [0 | 1, 0 | 1]) if number <= 1:
                pass
            case ("PAS" | "BAO", [0 | 1, 0 | 1]) if 1 <= number <= 16:
                pass
            case _:
                return False
        return True

    def _state(self) -> str:
        pins = [self._masks[pin // 8] >> pin % 8 & 1 for pin in range(16)]
        said = [
            "Input Trigger = 0",
            "TTL: " + "".join(f"{pin}={high}," for pin, high in enumerate(pins, 1)),
            "DAC:" + "".join(f"{dac}={level}," for dac, level in enumerate(self._levels, 1)),
            "Digital output buffers:",
            "Pins 1-8 buffer size 1-8: 0",
            "Pins 9-16 buffer size: 0",
            "DAC buffers:",
            *["DAC buffer size: 0"] * 16,
            "",
        ]
        return "\r\n".join(said)


class MmArduino:
    """Bytes; it waits a second for what is missing of a command, whatever comes then."""

    _LENGTHS: Final = {1: 2, 3: 4, 5: 3, 6: 2, 7: 2, 10: 4, 11: 2, 22: 2, 41: 2, 42: 3}
    _PATIENCE_S: Final = 1.0
    _PINS: Final = 0x3F

    def __init__(self, emitter: Emitter, clock_s: Callable[[], float] = time.monotonic) -> None:
        self.switches = {"name": "MM-Ard", "version": "5", "dacs": "2"}
        self._emitter = emitter
        self._clock_s = clock_s
        self._waits_s = 0.0
        self._left = 0
        self._pins = 0
        emitter.power_w = _FULL_W

    def split(self, heard: bytes) -> tuple[list[bytes], bytes]:
        """What was left of a command for too long is forgotten."""
        if self._left and self._clock_s() - self._waits_s > self._PATIENCE_S:
            heard = heard[self._left :]
        commands = []
        while heard and len(heard) >= (length := self._LENGTHS.get(heard[0], 1)):
            commands.append(heard[:length])
            heard = heard[length:]
        self._left, self._waits_s = len(heard), self._clock_s()
        return commands, heard

    def reply(self, command: str) -> str:
        code, *told = command.encode("latin-1")
        texts = {30: self.switches["name"], 31: self.switches["version"]}
        if code in texts:
            return f"{texts[code]}\r\n"
        return bytes(self._obeyed(code, told)).decode("latin-1")

    def _obeyed(self, code: int, told: list[int]) -> list[int]:
        answers = {
            2: [self._pins],
            9: [0],
            20: [],
            21: [],
            22: [],
            34: [int(self.switches["dacs"])],
            40: [int(not self._emitter.closed)],
        }
        if code == 1:
            self._set(told[0] & self._PINS)
            return [1]
        if code == 3:
            if told[0] == 0:
                self._emitter.power_w = _FULL_W * ((told[1] & 15) * 256 + told[2]) / 4095
            return [3, told[0], told[1] & 15, told[2]]
        return [code, *answers[code]] if code in answers else []

    def _set(self, pins: int) -> None:
        high = bool(pins & 1)
        self._pins = pins if high == _gate(self._emitter, high) else pins | 1


BOXES: Final[dict[str, Callable[[Emitter], Dialect]]] = {"triggerscope": TriggerScope, "mmarduino": MmArduino}

"""The line to a DLPC900: each command is answered in time, or an error names it; no bytes break it."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence

import numpy as np
import pytest

from dmu_hw.drivers.dlpc900.commands import ask, set_mode
from dmu_hw.drivers.dlpc900.dmd import Controlled
from dmu_hw.drivers.dlpc900.link import Hid, Link
from dmu_hw.drivers.dlpc900.packets import Code
from dmu_hw.drivers.dlpc900.settings import ControlSettings, Model
from dmu_hw.errors import DeviceError, DeviceTimeout
from dmu_hw.files import Document
from dmu_hw.physics.optics import Optics
from dmu_hw.ports import Mount

TIMEOUT_MS = 30.0


class Scripted:
    """Says what it was told to say, whatever it hears."""

    def __init__(self, *reports: bytes, written: int | None = None) -> None:
        self.reports = list(reports)
        self.heard: list[bytes] = []
        self.written = written

    def write(self, report: bytes) -> int:
        self.heard.append(report)
        return len(report) if self.written is None else self.written

    def read(self, max_length: int, timeout_ms: int) -> Sequence[int]:
        assert max_length == 64
        assert timeout_ms > 0, "hidapi takes 0 for: for ever"
        if not self.heard or not self.reports:
            time.sleep(timeout_ms / 1e3)
            return []
        return list(self.reports.pop(0))

    def close(self) -> None:
        pass


def link(hid: Hid) -> Link:
    return Link("dmd", hid, TIMEOUT_MS)


def reply(data: bytes = b"", flags: int = 0xC0, sequence: int = 1, length: int | None = None) -> bytes:
    size = len(data) if length is None else length
    return (bytes([flags, sequence]) + size.to_bytes(2, "little") + data).ljust(64, b"\0")[:64]


def test_the_reply_to_a_question() -> None:
    assert link(Scripted(reply(b"\6"))).number(Code.MODE) == 6


def test_a_long_reply_goes_on_in_the_next_reports() -> None:
    text = bytes(range(128))
    assert (
        link(Scripted(reply(text, length=128), text[60:124], text[124:].ljust(64, b"\0"))).ask(ask(Code.ERROR_TEXT))
        == text
    )


def test_replies_to_earlier_commands_and_noise_are_passed_over() -> None:
    late = reply(b"\1", sequence=0)
    assert link(Scripted(late, b"\7", reply(b"\3", flags=0x40), reply(b"\5"))).number(Code.MODE) == 5


SILENCES = {
    "nothing": ((), "nothing came"),
    "another's": ((reply(b"\1", sequence=9),), "1 other reports came"),
    "half a reply": ((reply(bytes(60), length=100),), "nothing came"),
    "too long a reply": ((reply(bytes(60), length=600),), "1 other reports came"),
}


@pytest.mark.parametrize("what", SILENCES)
def test_what_does_not_come_is_missed_in_time(what: str) -> None:
    reports, told = SILENCES[what]
    began_s = time.monotonic()
    with pytest.raises(DeviceTimeout) as caught:
        link(Scripted(*reports)).ask(ask(Code.MODE))
    assert str(caught.value) == f"dmd: USB: mode (1A1B) was not answered within 30 ms: {told}"
    assert time.monotonic() - began_s < 1.0


REFUSALS = {
    "with a reason": (
        (reply(b"\5", sequence=2), reply(b"busy\0rest", sequence=3)),
        "5, command not allowed in the current mode ('busy')",
    ),
    "with a number that nobody knows": (
        (reply(b"\x77", sequence=2), reply(flags=0xE0, sequence=3)),
        "119, an error that the guide does not know",
    ),
    "without a reason": ((reply(flags=0xE0, sequence=2),), "it does not say why"),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_a_refusal_says_what_was_refused_and_why(what: str) -> None:
    replies, why = REFUSALS[what]
    with pytest.raises(DeviceError) as caught:
        link(Scripted(reply(flags=0x60), *replies)).tell(set_mode(3))
    assert str(caught.value) == f"dmd: USB: mode (1A1B) was refused: {why}"


def test_a_question_that_is_answered_by_nothing() -> None:
    with pytest.raises(DeviceError, match=r"main status \(1A0C\) was answered by nothing"):
        link(Scripted(reply())).number(Code.MAIN_STATUS)


@pytest.mark.parametrize("written", [-1, 0, 64])
def test_what_is_not_written_is_said(written: int) -> None:
    with pytest.raises(DeviceError, match=r"mode \(1A1B\) could not be sent"):
        link(Scripted(written=written)).tell(set_mode(3))


@pytest.mark.parametrize("error", [OSError("read error"), ValueError("not open")])
def test_a_cable_that_is_pulled_is_said(error: Exception) -> None:
    class Pulled(Scripted):
        def write(self, report: bytes) -> int:  # noqa: ARG002 - it is gone
            raise error

        def close(self) -> None:
            raise error

    line = link(Pulled())
    with pytest.raises(DeviceError, match=rf"USB is gone: mode \(1A1B\) failed: {error}"):
        line.tell(set_mode(3))
    with pytest.raises(DeviceError, match=rf"USB does not close: {error}"):
        line.close()


# ---------------------------------------------------------------- noise


class Noise:
    """Answers by chance; from time to time as if it had understood, with any data."""

    def __init__(self, seed: int, most_bytes: int, understands: float) -> None:
        self._luck = random.Random(seed)
        self._understands = understands
        self.left = most_bytes
        self._asked = bytes(4)

    def write(self, report: bytes) -> int:
        self._asked = report[1:5]
        return len(report)

    def read(self, max_length: int, timeout_ms: int) -> Sequence[int]:
        assert timeout_ms > 0
        if self.left <= 0:
            return []
        size = min(self._luck.choice([1, 3, 4, 5, 8, max_length, max_length, max_length]), self.left)
        self.left -= size
        said = self._luck.randbytes(size)
        if self._luck.random() < self._understands:
            flags = self._asked[0] | self._luck.choice([*[0] * 20, 0x20])
            length = self._luck.choice([*[4] * 20, 0, 1, 16, 32, 128, 511, 513])
            data = self._luck.choice([b"\1", b"\3", b"\0\0\0\6", b""]) + said
            said = (bytes([flags, self._asked[1]]) + length.to_bytes(2, "little") + data)[:max_length]
        return list(said)

    def close(self) -> None:
        pass


class Deaf(Controlled):
    """A driver whose controller is noise."""

    hid: Noise

    def _connect(self) -> Hid:
        return self.hid


def deaf(hid: Noise) -> Deaf:
    optics = Optics.model_validate(
        {
            "object_pixel_um": 0.5,
            "sensor_pixel_um": 0.5,
            "excitation": {"kind": "gaussian", "sigma_um": 0.3},
            "emission": {"kind": "gaussian", "sigma_um": 0.3},
            "mirrors": {"shape": (4, 6), "to_sample": {"matrix": ((0.5, 0.0), (0.0, 0.5))}},
            "dye": {"photons_per_um2_mw_ms": 1.0},
        }
    )
    settings = ControlSettings(timeout_ms=3.0, trigger_in="falling")
    driver = Deaf(settings, Mount("dmd", optics, Document({}, {}, None)), Model((4, 6), 1, dual=False))  # type: ignore[arg-type]
    driver.hid = hid
    return driver


def survive(most_bytes: int, understands: float, seed: int) -> int:
    """So many bytes of noise, whatever the driver is asked; how often that went well."""
    hid = Noise(seed, most_bytes, understands)
    driver, luck, went_well = deaf(hid), random.Random(seed), 0
    frames = np.random.default_rng(seed).random((3, 4, 6)) < 0.5
    asks = (
        lambda: driver.load(frames),
        lambda: driver.start((0, 2), 1.0),
        lambda: driver.start((0, 2), None),
        lambda: driver.show(1),
        driver.stop,
        driver.close,
    )
    while hid.left > 0:
        began_s = time.monotonic()
        try:
            (driver.open if driver._link is None else luck.choice(asks))()
            went_well += 1
        except DeviceError as error:
            assert error.device == "dmd"  # noqa: PT017 - most of them fail, some may not
        assert time.monotonic() - began_s < 5.0, "it hangs"
    return went_well


@pytest.mark.parametrize("understands", [0.0, 0.5, 0.97])
def test_a_million_bytes_of_noise_never_break_nor_hang_the_driver(understands: float) -> None:
    went_well = survive(1_000_000, understands, seed=2)
    assert went_well == 0 if understands == 0 else went_well > 0, "no further than the first commands"

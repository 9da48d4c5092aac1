"""A power meter by text commands, and the simulated one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import bench_rig
from lasers import posix
from lines import line

from dmu_hw.drivers.generic import Meter
from dmu_hw.drivers.generic.settings import MeterSettings
from dmu_hw.errors import DeviceError
from dmu_hw.files import Document
from dmu_hw.ports import Meter as MeterPort
from dmu_hw.ports import Mount
from dmu_hw.rig import Rig

SmallRig = Callable[..., Rig]


def meter(port: str, folder: Path, **changes: Any) -> Meter:
    settings = {"port": port, "line_end": "\n", "timeout_ms": 60.0, "ask": "READ?", **changes}
    mount = Mount("meter", bench_rig(folder).optics, Document({}, {}, Path("rig.yaml")))
    return Meter(MeterSettings.model_validate(settings), mount)


@posix
@pytest.mark.parametrize(
    ("changes", "milliwatts"),
    [({}, 12.5), ({"unit": "mW"}, 0.0125), ({"unit": "uW", "transmission": 0.05}, 0.00025)],
)
def test_it_tells_milliwatts_at_the_sample(changes: dict[str, Any], milliwatts: float, tmp_path: Path) -> None:
    asked: list[bytes] = []

    def answer(command: bytes) -> bytes:
        asked.append(command.strip())
        return b"1.25E-02\n"

    with line(answer) as port:
        device = meter(port, tmp_path, set_up=("WAVE 488",), acknowledged_by="1.25E-02", **changes)
        assert isinstance(device, MeterPort)
        device.open()
        assert device.read_mw() == pytest.approx(milliwatts)
        device.close()
        device.close()
    assert asked[0] == b"WAVE 488"


@posix
@pytest.mark.parametrize("reply", [b"OVER\n", b"nan\n", b"inf\n", b"\n", b"1.2 mW\n"])
def test_what_is_no_number_is_an_error(reply: bytes, tmp_path: Path) -> None:
    with line(lambda _command: reply) as port, pytest.raises(DeviceError, match="'READ\\?' was answered by"):
        meter(port, tmp_path).open()


def test_the_simulated_one_tells_what_reaches_the_sample(small_rig: SmallRig) -> None:
    settings = {"driver": "simulated", "connection": "world", "noise": 0.0, "zero_mw": 0.01, "highest_mw": 9.0}
    rig = small_rig({"devices.meter": settings, "optics.mirrors.leakage": 0.1})
    assert rig.meter is not None
    half = np.zeros((2, *rig.dmd.shape), dtype=bool)
    half[0] = True
    half[1, : rig.dmd.shape[0] // 2] = True
    rig.dmd.load(half)
    assert rig.meter.read_mw() == pytest.approx(0.01)
    rig.light.set_power(8.0)
    rig.light.on()
    for shown, part in ((0, 1.0), (1, 0.55), (None, 0.1)):
        rig.dmd.show(shown)
        rig.clock.sleep_ms(1.0)
        assert rig.meter.read_mw() == pytest.approx(8.0 * part + 0.01)
    rig.dmd.show(0)
    rig.light.set_power(9.5)
    rig.clock.sleep_ms(1.0)
    with pytest.raises(DeviceError, match="meter: more than the 9 mW"):
        rig.meter.read_mw()

"""The promises of the ports, kept by every driver: classes by name, devices through every simulated rig in devices/."""

from __future__ import annotations

import importlib
import inspect
import itertools
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from dmu_hw import plugin
from dmu_hw.errors import DeviceError, DeviceTimeout
from dmu_hw.files import Settings, load_yaml
from dmu_hw.ports import PORTS, SEVERAL, CameraMode, Clock, Device, Roi, role_of
from dmu_hw.rig import Rig, RigSettings, load_rig

DEVICES = Path(__file__).parents[2] / "devices"


def is_simulated(path: Path) -> bool:
    settings = load_yaml(path, RigSettings)
    return {part.driver for part in (*settings.devices.values(), *settings.connections.values())} == {"simulated"}


RIGS = sorted(path for path in DEVICES.glob("*.yaml") if is_simulated(path))
TWINS: dict[str, dict[str, Any]] = {
    "dlpc900": {"driver": "dmu_hw.twins.dlpc900"},
    "dlpc900 of two controllers": {"driver": "dmu_hw.twins.dlpc900", "dual": True, "trigger_out": 2, "dark_us": 0},
    "vialux": {"driver": "dmu_hw.twins.alp"},
}
"""DMDs of the simulated rig by other drivers, each on a twin of its device."""
DRIVERS = plugin.names("dmu_hw.drivers")
CLASSES = [
    pytest.param(found, id=f"{driver}.{name}")
    for driver in DRIVERS
    for name, found in sorted(vars(importlib.import_module(f"dmu_hw.drivers.{driver}")).items())
    if isinstance(found, type) and name in {port.__name__ for port in PORTS.values()} | {"Connection"}
]


def test_there_is_something_to_test() -> None:
    assert DEVICES / "simulated.yaml" in RIGS
    assert "simulated" in DRIVERS
    assert len(CLASSES) >= 6


def rig_with(dmd: dict[str, Any]) -> Rig:
    """The simulated rig with another DMD."""
    path = DEVICES / "simulated.yaml"
    told = yaml.safe_load(path.read_text(encoding="utf-8"))
    told["devices"]["dmd"] = {**dmd, "connection": "world"}
    return Rig(load_rig(path, yaml.safe_dump(told)))


@pytest.fixture(params=[*RIGS, *TWINS], ids=lambda param: getattr(param, "stem", param))
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    """Built, not opened; closed in the end."""
    built = rig_with(TWINS[request.param]) if request.param in TWINS else Rig(load_rig(request.param))
    yield built
    built.close()


def parts(rig: Rig) -> dict[str, Device]:
    one_each = {role: getattr(rig, role) for role in PORTS if role not in SEVERAL}
    devices = {**one_each, **rig.lights, **rig.filters}
    return {name: device for name, device in devices.items() if device is not None}


def mode_of(rig: Rig, exposure_ms: float = 2.0, **changes: object) -> CameraMode:
    """A small window in the middle of the chip."""
    rows, columns = rig.camera.sensor_shape
    side = max(rig.camera.binnings)
    roi = Roi((columns - side) // 2, (rows - side) // 2, side, side)
    return CameraMode(exposure_ms, 1, roi, **changes)  # type: ignore[arg-type]


def light_in(rig: Rig) -> float:
    """Mean of a frame that is exposed now, with the shutter open."""
    if rig.shutter is not None:
        rig.shutter.set_open(True)
    rig.camera.configure(mode_of(rig, 20.0))
    rig.camera.arm(1)
    return float(rig.camera.pop(1e4).pixels.mean())


# ---------------------------------------------------------------- classes


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_driver_has_a_device(driver: str) -> None:
    assert any(param.id.startswith(f"{driver}.") for param in CLASSES)


@pytest.mark.parametrize("found", CLASSES)
def test_a_class_has_settings_and_is_built_from_them_and_a_mount(found: type) -> None:
    model = getattr(found, "Settings", None)
    assert isinstance(model, type)
    assert issubclass(model, Settings)
    inspect.signature(found).bind(object(), object())


@pytest.mark.parametrize("found", CLASSES)
def test_a_class_has_the_methods_of_its_port(found: type) -> None:
    """With the arguments that the port names."""
    port = PORTS.get(found.__name__.lower(), Device)
    for base in port.__mro__:
        for name, promised in vars(base).items():
            if not name.startswith("_") and inspect.isfunction(promised):
                kept = inspect.signature(getattr(found, name))
                assert list(kept.parameters) == list(inspect.signature(promised).parameters), f"{found}.{name}"


# ---------------------------------------------------------------- devices


def test_devices_keep_the_runtime_protocols(rig: Rig) -> None:
    for name, device in parts(rig).items():
        assert isinstance(device, PORTS[str(role_of(name))])
        assert isinstance(device, Device)
    assert all(isinstance(link, Device) for link in rig.connections)


def test_planning_needs_no_open_device(rig: Rig) -> None:
    def numbers() -> list[object]:
        mode = mode_of(rig)
        found: list[object] = [
            rig.dmd.shape,
            rig.dmd.memory_frames,
            rig.dmd.settle_ms,
            rig.dmd.upload_ms(10),
            rig.camera.sensor_shape,
            rig.camera.binnings,
            rig.camera.buffer_frames,
            rig.camera.readout_ms(mode),
            *((light.max_power_mw, light.watchdog_ms) for light in rig.lights.values()),
        ]
        for wheel in rig.filters.values():
            found += [wheel.positions, wheel.switch_ms(wheel.positions[0], wheel.positions[-1])]
        if rig.shutter is not None:
            found.append(rig.shutter.switch_ms)
        if rig.stage is not None:
            found += [rig.stage.limits_um, rig.stage.travel_ms(100.0)]
        if rig.focus is not None:
            found += [rig.focus.limits_um, rig.focus.travel_ms(10.0)]
        return found

    before = numbers()
    assert rig.dmd.shape == rig.optics.mirrors.shape
    assert min(rig.dmd.shape) >= 1
    assert rig.dmd.memory_frames >= 1
    assert rig.dmd.settle_ms >= 0
    assert rig.dmd.upload_ms(10) >= rig.dmd.upload_ms(1) >= 0
    assert 1 in rig.camera.binnings
    assert rig.camera.buffer_frames >= 1
    assert all(light.max_power_mw > 0 for light in rig.lights.values())
    with rig.opened():
        assert numbers() == before


def test_open_and_close_in_any_order_and_often(rig: Rig) -> None:
    """On links that stay open, as a rig opens them first and closes them last."""
    devices = parts(rig)
    for device in devices.values():
        device.close()
    for link in rig.connections:
        link.open()
    for order in itertools.islice(itertools.permutations(devices.values()), 0, 120, 17):
        for device in order:
            device.open()
        for device in reversed(order):
            device.close()
            device.close()
        for device in order:
            device.open()
            device.open()
    assert not any(light.is_on() for light in rig.lights.values())
    assert rig.shutter is None or not rig.shutter.is_open()
    for device in (*devices.values(), *reversed(rig.connections)):
        device.close()


def off_or_silent(ask: Callable[[], bool]) -> bool:
    """Once it is closed a device is off, or cannot tell since its link is closed as well; it is not remembered."""
    try:
        return not ask()
    except DeviceError as error:
        return "is not open" in error.what


def test_close_leaves_no_light_and_dark_mirrors(rig: Rig) -> None:
    with rig.opened():
        dark = light_in(rig)
        rig.dmd.load(np.ones((2, *rig.dmd.shape), dtype=bool))
        rig.light.set_power(rig.light.max_power_mw)
        rig.light.on()
        rig.dmd.show(0)
        rig.clock.sleep_ms(rig.dmd.settle_ms)
        bright = light_in(rig)
        assert bright > dark + 5
    assert off_or_silent(rig.light.is_on)
    with rig.opened():
        assert not rig.light.is_on()
        assert light_in(rig) == pytest.approx(dark, abs=1)
        rig.light.set_power(rig.light.max_power_mw)
        rig.light.on()
        assert light_in(rig) - dark < 0.1 * (bright - dark), "the mirrors are dark"


def test_a_burst_stepped_by_the_dmd(rig: Rig) -> None:
    """Frames come in order and in time, with pixels of the promised kind, and the mirrors end dark."""
    with rig.opened():
        rig.dmd.load(np.ones((4, *rig.dmd.shape), dtype=bool))
        if rig.shutter is not None:
            rig.shutter.set_open(True)
        mode = mode_of(rig, trigger="external")
        rig.camera.configure(mode)
        rig.light.set_power(rig.light.max_power_mw)
        rig.light.on()
        rig.camera.arm(4)
        period_ms = rig.dmd.settle_ms + mode.exposure_ms + rig.camera.readout_ms(mode) + 1
        rig.dmd.start((0, 1, 2, 3), period_ms)
        frames = []
        for _ in range(4):
            frame = rig.camera.pop(period_ms + 1000)
            assert frame.pixels.dtype == np.uint16
            assert frame.pixels.shape == mode.shape
            frames.append((frame.number, frame.time_ms, float(frame.pixels.mean())))
        assert [number for number, _, _ in frames] == [0, 1, 2, 3]
        assert np.diff([at_ms for _, at_ms, _ in frames]) == pytest.approx(period_ms, abs=0.2)
        assert rig.dmd.shown() in (None, (0, 1, 2, 3))
        rig.clock.sleep_ms(period_ms)
        lit = np.mean([mean for _, _, mean in frames])
        rig.camera.configure(mode_of(rig))
        rig.camera.arm(1)
        assert float(rig.camera.pop(1000).pixels.mean()) < lit


def refusals(rig: Rig) -> dict[str, tuple[str, Callable[[], object]]]:
    """What every device must refuse: who, and how it is asked."""
    stage, focus = rig.stage, rig.focus
    rows, columns = rig.camera.sensor_shape
    asked: dict[str, tuple[str, Callable[[], object]]] = {
        "frames of another size": ("dmd", lambda: rig.dmd.load(np.ones((1, 3, 5), dtype=bool))),
        "frames of numbers": ("dmd", lambda: rig.dmd.load(np.ones((1, *rig.dmd.shape)))),  # type: ignore[arg-type]
        "a frame that is not there": ("dmd", lambda: rig.dmd.show(rig.dmd.memory_frames)),
        "no frames": ("dmd", lambda: rig.dmd.start((), 100.0)),
        "a window beyond the chip": (
            "camera",
            lambda: rig.camera.configure(CameraMode(1.0, 1, Roi(0, 0, columns + 1, rows))),
        ),
        "no exposure": ("camera", lambda: rig.camera.configure(mode_of(rig, 0.0))),
    }
    for name, light in rig.lights.items():
        too_much = partial(light.set_power, 1.01 * light.max_power_mw)
        asked |= {
            f"too much of {name}": (name, too_much),
            f"less than none of {name}": (name, partial(light.set_power, -1.0)),
        }
    for name, wheel in rig.filters.items():
        asked[f"what is not in {name}"] = (name, partial(wheel.select, "no such position", 1e4))
    if stage is not None:
        (_, right), (_, bottom) = stage.limits_um
        asked["beyond the stage"] = ("stage", lambda: stage.move_um(right + 1, bottom, 1e9))
        asked["in no time"] = ("stage", lambda: stage.move_um(right, bottom, 0.001))
    if focus is not None:
        asked["beyond the focus"] = ("focus", lambda: focus.move_um(focus.limits_um[1] + 1, 1e9))
    return asked


def test_every_refusal_is_a_device_error_that_names_the_device(rig: Rig) -> None:
    with rig.opened():
        for what, (role, ask) in refusals(rig).items():
            with pytest.raises(DeviceError) as caught:
                ask()
            assert caught.value.device == role, what
            assert str(caught.value).startswith(f"{role}: "), what


def test_no_frame_is_a_timeout(rig: Rig) -> None:
    with rig.opened():
        rig.camera.configure(mode_of(rig, trigger="external"))
        rig.camera.arm(1)
        before_ms = rig.clock.now_ms()
        with pytest.raises(DeviceTimeout) as caught:
            rig.camera.pop(50.0)
        assert caught.value.device == "camera"
        assert rig.clock.now_ms() - before_ms == pytest.approx(50.0, rel=0.2)


def test_moves_arrive(rig: Rig) -> None:
    with rig.opened():
        if rig.stage is not None:
            rig.stage.move_um(12.5, -7.0, 1e4)
            assert rig.stage.position_um() == pytest.approx((12.5, -7.0))
        if rig.focus is not None:
            rig.focus.move_um(2.5, 1e4)
            assert rig.focus.position_um() == pytest.approx(2.5)


def test_filters_arrive(rig: Rig) -> None:
    with rig.opened():
        for wheel in rig.filters.values():
            for position in (*wheel.positions, *reversed(wheel.positions)):
                wheel.select(position, 1e4)
                assert wheel.selected() == position


def test_a_closed_shutter_lets_no_light_through(rig: Rig) -> None:
    if rig.shutter is None:
        pytest.skip("it has none")
    with rig.opened():
        assert not rig.shutter.is_open(), "closed when it is opened as a device"
        dark = light_in(rig)
        rig.dmd.load(np.ones((1, *rig.dmd.shape), dtype=bool))
        rig.dmd.show(0)
        rig.light.set_power(rig.light.max_power_mw)
        rig.light.on()
        assert light_in(rig) > dark + 5
        rig.shutter.block_light()
        assert not rig.shutter.is_open()
        rig.camera.arm(1)
        assert float(rig.camera.pop(1e4).pixels.mean()) == pytest.approx(dark, abs=1)
        rig.shutter.set_open(True)
        assert rig.shutter.is_open()
    assert off_or_silent(rig.shutter.is_open)


def test_the_clock_runs(rig: Rig) -> None:
    clock: Clock = rig.clock
    before_ms = clock.now_ms()
    clock.sleep_ms(5.0)
    assert clock.now_ms() >= before_ms + 5.0
    clock.sleep_ms(-5.0)
    assert clock.now_ms() >= before_ms + 5.0

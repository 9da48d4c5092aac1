"""A rig file is refused with all that is wrong with it; a rig opens and closes as a whole."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from dmu_hw.errors import DeviceError, DeviceTimeout, InputError
from dmu_hw.ports import MachineClock
from dmu_hw.rig import DeviceName, Rig, RigSettings, load_rig

RigYaml = Callable[..., Path]
DEVICES = Path(__file__).parents[2] / "devices"

# ---------------------------------------------------------------- drivers beside the YAML

DRIVER = '''
"""Devices that write down what is asked of them, and fail where they are told to."""

import numpy as np

from dmu_hw.errors import DeviceError, DeviceTimeout
from dmu_hw.files import Settings

ASKED = []


class Faulty(Settings):
    fails_in: tuple[str, ...] = ()
    error: str = "device"


class Part:
    Settings = Faulty

    def __init__(self, settings, mount):
        self.settings, self.name, self.link = settings, mount.name, mount.connection
        ASKED.clear()

    def ask(self, what):
        ASKED.append((self.name, what))
        if what in self.settings.fails_in:
            if self.settings.error == "timeout":
                raise DeviceTimeout(self.name, f"said nothing to {what}")
            if self.settings.error == "cut":
                raise KeyboardInterrupt
            if self.settings.error == "system":
                raise OSError("cable pulled")
            raise DeviceError(self.name, f"does not {what}")

    def open(self):
        self.ask("open")

    def close(self):
        self.ask("close")


class Connection(Part):
    pass


class Dmd(Part):
    shape, memory_frames, settle_ms, reads_back = (96, 128), 4, 0.1, False
    def upload_ms(self, frames): return 0.0
    def load(self, frames): pass
    def show(self, index): pass
    def start(self, order, period_ms): pass
    def stop(self): pass
    def shown(self): return None


class Camera(Part):
    sensor_shape, binnings, buffer_frames = (64, 64), (1,), 4
    def readout_ms(self, mode): return 0.0
    def configure(self, mode): pass
    def arm(self, frames): pass
    def pop(self, timeout_ms): raise DeviceTimeout(self.name, "has no frame")
    def disarm(self): pass


class Light(Part):
    max_power_mw, watchdog_ms = 10.0, 300.0
    def set_power(self, power_mw): pass
    def on(self, longest_ms): pass
    def off(self): pass
    def is_on(self): return False
    def interlock_closed(self): return True
'''
OWN: dict[str, Any] = {
    "connections": {"link": {"driver": "own.py"}},
    "devices": {role: {"driver": "own.py", "connection": "link"} for role in ("dmd", "camera", "light")},
}


@pytest.fixture
def own(rig_yaml: RigYaml, tmp_path: Path) -> Callable[..., Rig]:
    """A rig whose drivers are a file beside its YAML."""

    def build(changes: dict[str, Any] | None = None, source: str = DRIVER) -> Rig:
        (tmp_path / "own.py").write_text(source)
        return Rig(load_rig(rig_yaml({**OWN, **(changes or {})})))

    return build


def asked(rig: Rig) -> list[tuple[str, str]]:
    """Who was opened and closed, in order."""
    found: list[tuple[str, str]] = sys.modules[type(rig.dmd).__module__].ASKED
    return found


OPENED = [("link", "open"), ("dmd", "open"), ("camera", "open"), ("light", "open")]
CLOSED = [("light", "close"), ("camera", "close"), ("dmd", "close"), ("link", "close")]


def test_all_are_opened_and_the_light_is_closed_first(own: Callable[..., Rig]) -> None:
    rig = own({"devices": {role: OWN["devices"][role] for role in ("light", "dmd", "camera")}})
    assert asked(rig) == []
    with rig.opened() as same:
        assert same is rig
    assert asked(rig)[4:] == [("light", "close"), ("camera", "close"), ("dmd", "close"), ("link", "close")]
    rig.close()
    assert len(asked(rig)) == 8, "what is closed is not closed again"
    with rig.opened():
        pass
    assert len(asked(rig)) == 16


def test_a_rig_without_a_world_goes_by_the_machines_clock(own: Callable[..., Rig]) -> None:
    rig = own()
    assert isinstance(rig.clock, MachineClock)
    before_ms = rig.clock.now_ms()
    rig.clock.sleep_ms(20.0)
    rig.clock.sleep_ms(-1.0)
    assert 20.0 <= rig.clock.now_ms() - before_ms < 5000
    assert rig.stage is None
    assert rig.focus is None
    assert rig.connection("link") is rig.connections[0] is rig.dmd.link  # type: ignore[attr-defined]
    assert rig.connection("lamp") is None


def test_one_that_does_not_open_is_named_and_all_are_closed(own: Callable[..., Rig]) -> None:
    rig = own({"devices.camera.fails_in": ["open"], "devices.camera.error": "timeout"})
    with pytest.raises(DeviceTimeout, match=r"^camera: said nothing to open$"):
        rig.open()
    assert asked(rig) == [*OPENED, *CLOSED]


def test_all_that_do_not_open_are_named(own: Callable[..., Rig]) -> None:
    rig = own({"devices.dmd.fails_in": ["open"], "devices.light.fails_in": ["open", "close"]})
    with pytest.raises(DeviceError) as caught:
        rig.open()
    assert caught.value.device == "dmd, light"
    assert caught.value.what == "dmd: does not open; light: does not open; light: does not close"
    assert asked(rig) == [*OPENED, *CLOSED]


def test_what_hangs_on_a_dead_link_is_not_tried(own: Callable[..., Rig]) -> None:
    rig = own({"connections.link.fails_in": ["open"], "devices.light": {"driver": "own.py"}})
    with pytest.raises(DeviceError, match=r"^link: does not open$"):
        rig.open()
    assert asked(rig) == [("link", "open"), ("light", "open"), ("light", "close"), ("link", "close")]


@pytest.mark.parametrize(("error", "kind"), [("cut", KeyboardInterrupt), ("system", OSError)])
def test_whatever_else_happens_in_open_leaves_all_closed(
    own: Callable[..., Rig], error: str, kind: type[BaseException]
) -> None:
    rig = own(
        {"devices.camera.fails_in": ["open"], "devices.camera.error": error, "connections.link.fails_in": ["close"]}
    )
    with pytest.raises(kind) as caught:
        rig.open()
    assert asked(rig) == [*OPENED[:3], *CLOSED[1:]]
    assert caught.value.__notes__ == ["small did not close cleanly: link: does not close"]


@pytest.mark.parametrize("error", ["device", "system"])
def test_one_that_does_not_close_keeps_no_other_open(own: Callable[..., Rig], error: str) -> None:
    failing = {"fails_in": ["close"], "error": error}
    rig = own({"devices.light": {**OWN["devices"]["light"], **failing}, "devices.dmd.fails_in": ["close"]})
    rig.open()
    with pytest.raises(DeviceError, match=r"^small: did not close cleanly: .*; dmd: does not close$"):
        rig.close()
    assert asked(rig) == [*OPENED, *CLOSED]


def test_a_failure_in_the_block_closes_too(own: Callable[..., Rig]) -> None:
    rig = own()
    with pytest.raises(ZeroDivisionError), rig.opened():
        _ = 1 / 0
    assert asked(rig) == [*OPENED, *CLOSED]


# ---------------------------------------------------------------- several lights, filters, a shutter, channels

MORE = """

class Filter(Part):
    positions = ("GFP", "RFP")
    def switch_ms(self, before, after): return 1.0
    def select(self, position, timeout_ms): pass
    def selected(self): return "GFP"


class Shutter(Part):
    switch_ms = 1.0
    def set_open(self, wanted): pass
    def is_open(self): return False
    def block_light(self): pass
"""
COLOURED = {
    **{
        f"devices.{name}": OWN["devices"]["dmd"]
        for name in ("shutter", "light_561", "filter", "filter_side", "light_b")
    },
    "channels": {
        "green": {"filters": {"filter": "GFP", "filter_side": "GFP"}},
        "red": {
            "light": "light_561",
            "filters": {"filter": "RFP", "filter_side": "GFP"},
            "optics": {"emission": {"sigma_um": 0.6}, "dye": {"photons_per_um2_mw_ms": 7.0}},
        },
    },
}


def test_lights_are_closed_first_and_then_the_shutter(own: Callable[..., Rig]) -> None:
    rig = own({**COLOURED, "devices.light_561.fails_in": ["close"]}, DRIVER + MORE)
    assert list(rig.lights) == ["light", "light_561", "light_b"]
    assert list(rig.filters) == ["filter", "filter_side"]
    assert rig.blockers == {"shutter": rig.shutter}
    rig.open()
    asked(rig).clear()
    with pytest.raises(DeviceError, match="light_561: does not close"):
        rig.close()
    closed = [name for name, _ in asked(rig)]
    assert closed[:4] == ["light_b", "light_561", "light", "shutter"]
    assert sorted(closed[4:]) == ["camera", "dmd", "filter", "filter_side", "link"]


def test_a_channel_believes_what_the_rig_does_but_for_what_it_says(own: Callable[..., Rig]) -> None:
    rig = own(COLOURED, DRIVER + MORE)
    green, red = rig.channels["green"], rig.channels["red"]
    assert (green.name, green.light, dict(green.filters)) == ("green", "light", {"filter": "GFP", "filter_side": "GFP"})
    assert green.optics == rig.optics
    assert red.light == "light_561"
    assert red.optics.emission == rig.optics.emission.model_copy(update={"sigma_um": 0.6})
    assert red.optics.dye == rig.optics.dye.model_copy(update={"photons_per_um2_mw_ms": 7.0})
    assert red.optics.excitation == rig.optics.excitation
    assert rig.channels == rig.file.channels


def test_a_rig_without_channels_has_one_without_a_name(own: Callable[..., Rig]) -> None:
    (channel,) = own().channels.values()
    assert (channel.name, channel.light, dict(channel.filters)) == ("", "light", {})


@pytest.mark.parametrize(
    "name",
    ["light", "light_561", "filter_a-b", "shutter", "shutter_2", "light_", "lights", "Light_1", "_561", "light_ü"],
)
def test_an_editor_knows_what_a_device_may_be_called(name: str) -> None:
    devices = RigSettings.model_json_schema()["properties"]["devices"]
    (pattern,) = devices["patternProperties"]
    assert devices["additionalProperties"] is False
    allowed = name in ("light", "light_561", "filter_a-b", "shutter")
    assert bool(re.search(pattern, name)) is allowed
    try:
        TypeAdapter(DeviceName).validate_python(name)
    except ValidationError:
        assert not allowed
    else:
        assert allowed


WRONG_CHANNELS: dict[str, tuple[dict[str, Any], list[tuple[str, str]]]] = {
    "no such light": (
        {"channels.red.light": "filter"},
        [("channels.red.light", "there is no light 'filter'; there are: light, light_561, light_b")],
    ),
    "a filter that it has not, and two that are left open": (
        {"channels.red.filters": {"filter_top": "RFP"}},
        [
            ("channels.red.filters.filter_top", "there is no filter 'filter_top'; there are: filter, filter_side"),
            ("channels.red.filters", "does not say where 'filter' is to stand"),
            ("channels.red.filters", "does not say where 'filter_side' is to stand"),
        ],
    ),
    "no such position": (
        {"channels.red.filters.filter": "CFP"},
        [("channels.red.filters.filter", "there is no 'CFP'; there are: GFP, RFP")],
    ),
    "wrong optics": (
        {"channels.red.optics": {"emission": {"sigma": 0.5}, "dye": {"photons_per_um2_mw_ms": 0.0}}},
        [
            ("channels.red.optics.emission.sigma", "unknown key 'sigma'; did you mean 'sigma_um'?"),
            ("channels.red.optics.dye.photons_per_um2_mw_ms", "should be greater than 0, given 0.0"),
        ],
    ),
    "another grid": (
        {"channels.red.optics": {"sensor_pixel_um": 1.0}},
        [("channels.red.optics.sensor_pixel_um", "is the same for all channels")],
    ),
    "another array": (
        {"channels.red.optics": {"mirrors": {"shape": [3, 4]}}},
        [("channels.red.optics.mirrors.shape", "the array has (96, 128) mirrors")],
    ),
    "filters that nobody turns": (
        {"channels": {}},
        [("devices", "has filter, filter_side and no channels, which say where they stand")],
    ),
    "a name that is no file name": (
        {"channels": {"../red": {}}},
        [("channels.../red", "should be a name of 1 to 64 letters")],
    ),
    "a second camera": (
        {"devices.camera_2": OWN["devices"]["camera"]},
        [("devices.camera_2", "should be 'dmd', 'camera', 'light',")],
    ),
    "a connection called as a light": (
        {"connections.light_box": {"driver": "own.py"}},
        [("connections.light_box", "'light_box' is what a device is called")],
    ),
}


@pytest.mark.parametrize("case", WRONG_CHANNELS)
def test_a_wrong_channel_is_refused_with_line_and_key(own: Callable[..., Rig], case: str) -> None:
    changes, expected = WRONG_CHANNELS[case]
    with pytest.raises(InputError) as caught:
        own({**COLOURED, **changes}, DRIVER + MORE)
    told = [(problem.where.partition(": ")[2], problem.what) for problem in caught.value.problems]
    assert [where for where, _ in told] == [where for where, _ in expected]
    assert all(what in said for (_, said), (_, what) in zip(told, expected, strict=True))


# ---------------------------------------------------------------- broken promises

BROKEN = {
    "a method is missing": (
        DRIVER.replace("def show(self, index)", "def display(self, index)"),
        "does not keep the promise of Dmd: it lacks show",
    ),
    "two are": (
        DRIVER.replace("    def stop(self): pass\n", "").replace("settle_ms, reads_back =", "x, reads_back ="),
        "does not keep the promise of Dmd: it lacks settle_ms, stop",
    ),
    "no settings": (
        DRIVER.replace("class Dmd(Part):", "class Dmd(Part):\n    Settings = None"),
        "Dmd of 'own.py' has no Settings",
    ),
    "no class": (DRIVER.replace("class Dmd(Part)", "class Mirrors(Part)"), "'own.py' has no Dmd; it has:"),
    "not built from a mount": (
        DRIVER.replace("class Dmd(Part):", "class Dmd(Part):\n    def __init__(self, settings): pass"),
        "Dmd is to be built from its settings and a mount: too many positional arguments",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_driver_that_breaks_its_promise_is_refused(own: Callable[..., Rig], tmp_path: Path, case: str) -> None:
    source, message = BROKEN[case]
    with pytest.raises(InputError) as caught:
        own(source=source)
    (problem,) = caught.value.problems
    line = (tmp_path / "rig.yaml").read_text().splitlines().index("  dmd:") + 2
    assert problem.where == f"{tmp_path / 'rig.yaml'}:{line}: devices.dmd.driver"
    assert problem.what.startswith(message)


def test_a_connection_has_a_promise_too(own: Callable[..., Rig]) -> None:
    source = DRIVER.replace(
        "class Connection(Part):\n    pass",
        "class Connection:\n    Settings = Faulty\n    def __init__(self, settings, mount): pass",
    )
    with pytest.raises(
        InputError, match=r"connections\.link\.driver: does not keep the promise of Device: it lacks close, open"
    ):
        own(source=source)


# ---------------------------------------------------------------- what a rig file may not say

WRONG: dict[str, tuple[dict[str, Any], list[tuple[str, str]]]] = {
    "a device is missing": (
        {"devices.light": ..., "devices.camera": ...},
        [("devices", "device 'camera' is missing"), ("devices", "device 'light' is missing")],
    ),
    "an unknown driver": (
        {"devices.dmd.driver": "simulatd"},
        [("devices.dmd.driver", "there is no 'simulatd'; did you mean 'simulated'?")],
    ),
    "a driver file that is not there": (
        {"devices.dmd.driver": "my_dmd.py"},
        [("devices.dmd.driver", "there is no file")],
    ),
    "a driver without that device": (
        {"devices.dmd.driver": "dmu_hw.drivers.simulated.stage"},
        [("devices.dmd.driver", "'dmu_hw.drivers.simulated.stage' has no Dmd; it has: Focus")],
    ),
    "an unknown connection": (
        {"devices.dmd.connection": "wrld"},
        [("devices.dmd.connection", "there is no connection 'wrld'; there are: world")],
    ),
    "no connection at all": (
        {"connections": {}},
        [
            (f"devices.{role}.connection", "there is no connection 'world'; there are: none")
            for role in ("dmd", "camera", "light", "stage", "focus")
        ],
    ),
    "a connection on a connection": (
        {"connections.world.connection": "world"},
        [("connections.world.connection", "a connection does not hang on another one")],
    ),
    "a connection called as a device": (
        {"connections.camera": {"driver": "simulated", "specimen": {"kind": "layer"}}},
        [("connections.camera", "'camera' is what a device is called; give the connection another name")],
    ),
    "an unknown setting": (
        {"devices.camera.readout": 3.0},
        [("devices.camera.readout", "unknown key 'readout'; did you mean 'readout_ms'?")],
    ),
    "settings of the wrong kind": (
        {"devices.dmd.memory_frames": 0, "devices.dmd.settle_ms": "fast"},
        [
            ("devices.dmd.memory_frames", "should be greater than or equal to 1, given 0"),
            ("devices.dmd.settle_ms", "should be a number, given 'fast'"),
        ],
    ),
    "mirrors stuck both ways": (
        {"devices.dmd.stuck_on_fraction": 0.6, "devices.dmd.stuck_off_fraction": 0.6},
        [("devices.dmd", "stuck_on_fraction and stuck_off_fraction must not be more than 1 together")],
    ),
    "a device that is none": (
        {"devices.laser": {"driver": "simulated"}},
        [
            (
                "devices.laser",
                "should be 'dmd', 'camera', 'light', 'stage', 'focus', 'filter', 'shutter' or 'meter',",
            )
        ],
    ),
    "no driver": ({"devices.dmd.driver": ...}, [("devices.dmd", "key 'driver' is missing")]),
    "an empty driver": (
        {"devices.dmd.driver": ""},
        [("devices.dmd.driver", "String should have at least 1 character")],
    ),
    "mirrors on a line": (
        {"optics.mirrors.to_sample.matrix": [[0.5, 0.25], [1.0, 0.5]]},
        [("optics.mirrors.to_sample", "matrix ((0.5, 0.25), (1.0, 0.5)) maps the plane onto a line")],
    ),
    "everything at once": (
        {
            "name": "../rig",
            "optics.object_pixle_um": 0.3,
            "devices.dmd.driver": "simulatd",
            "devices.camera.connection": "wrld",
            "connections.world.seed": -1,
            "stepping": "hand",
        },
        [
            ("name", "should be a name of 1 to 64 letters"),
            ("optics.object_pixle_um", "unknown key 'object_pixle_um'; did you mean 'object_pixel_um'?"),
            ("stepping", "should be 'dmd', 'camera' or 'software'"),
            ("connections.world.seed", "should be greater than or equal to 0, given -1"),
            ("devices.dmd.driver", "there is no 'simulatd'"),
            ("devices.camera.connection", "there is no connection 'wrld'"),
        ],
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_rig_file_is_refused_with_line_and_key(rig_yaml: RigYaml, case: str) -> None:
    changes, expected = WRONG[case]
    path = rig_yaml(changes)
    with pytest.raises(InputError) as caught:
        load_rig(path)
    problems = caught.value.problems
    assert len(problems) == len(expected), caught.value
    for problem, (key, message) in zip(problems, expected, strict=True):
        where, _, key_said = problem.where.partition(": ")
        file, _, line = where.rpartition(":")
        assert (file, key_said) == (str(path), key)
        assert path.read_text().splitlines()[int(line) - 1].strip().startswith(f"{key.rpartition('.')[2]}:")
        assert message in problem.what


def test_a_simulated_device_needs_a_world(rig_yaml: RigYaml) -> None:
    path = rig_yaml({"devices.light.connection": ..., "devices.stage.connection": ...})
    with pytest.raises(InputError) as caught:
        Rig(load_rig(path))
    assert [problem.where.rpartition(": ")[2] for problem in caught.value.problems] == [
        "devices.light",
        "devices.stage",
    ]
    assert {problem.what for problem in caught.value.problems} == {
        "driver simulated needs a connection whose driver is simulated"
    }


@pytest.mark.parametrize(
    "text", ["[]", "3", "kind: rig\ndevices: 3\nconnections: []\n", "kind: rig\ndevices: {dmd: 7}\n"]
)
def test_what_is_no_rig_at_all_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rig.yaml"
    path.write_text(text)
    with pytest.raises(InputError):
        load_rig(path)


def test_the_hash_is_that_of_the_text(rig_yaml: RigYaml) -> None:
    one, same, other = (
        load_rig(rig_yaml({"name": name}, f"{file}.yaml")) for name, file in (("a", "1"), ("a", "2"), ("b", "3"))
    )
    assert one.hash == same.hash != other.hash


# ---------------------------------------------------------------- weight


def test_neither_import_nor_building_loads_torch() -> None:
    script = (
        "import sys; from pathlib import Path\n"
        "import dmu_hw.ports, dmu_hw.drivers.simulated\n"
        "from dmu_hw.rig import Rig, load_rig\n"
        f"rig = Rig(load_rig(Path({str(DEVICES / 'simulated.yaml')!r})))\n"
        "rig.open(); rig.stage.move_um(5.0, 5.0, 1e4); rig.light.on(); rig.close()\n"
        "print(rig.dmd.shape, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(768, 1024) False"

"""Several dyes in one sample: each is seen in its own light and through its own filter, and elsewhere as far as its
cross-talk says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from colours import GREEN, RED, TWO_COLOURS

from dmu_hw.drivers.simulated.settings import DyeSettings
from dmu_hw.errors import InputError
from dmu_hw.ports import CameraMode, Roi
from dmu_hw.rig import Rig, load_rig

SmallRig = Callable[..., Rig]
FULL = Roi(0, 0, 64, 64)
CLEAN = {"optics.sensor.read_noise_e": 0.0, "optics.dye.background_photons_per_um2_mw_ms": 0.0}
OFFSET_ADU = 100.0


def snapped(rig: Rig, light: str, position: str, power_mw: float = 20.0) -> Any:
    """A frame in one light through one filter, without the camera's offset."""
    assert rig.shutter is not None
    rig.filters["filter"].select(position, 1e4)
    rig.shutter.set_open(True)
    rig.dmd.load(np.ones((1, *rig.dmd.shape), dtype=bool))
    rig.dmd.show(0)
    rig.clock.sleep_ms(1.0)
    rig.camera.configure(CameraMode(20.0, 1, FULL))
    rig.camera.arm(1)
    rig.lights[light].set_power(power_mw)
    rig.lights[light].on()
    frame = rig.camera.pop(1e4).pixels.astype(float) - OFFSET_ADU
    rig.lights[light].off()
    return frame


def likeness(one: Any, other: Any) -> float:
    return float(np.corrcoef(np.ravel(one), np.ravel(other))[0, 1])


def test_each_channel_sees_its_own_dye(small_rig: SmallRig) -> None:
    rig = small_rig({**TWO_COLOURS, **CLEAN})
    world: Any = rig.connection("world")
    for channel in rig.channels.values():
        frame = snapped(rig, channel.light, channel.filters["filter"])
        truth = {name: world.scene(FULL, light=of.light, filters=of.filters).image for name, of in rig.channels.items()}
        other = next(name for name in truth if name != channel.name)
        assert likeness(frame, truth[channel.name]) > 0.8
        assert likeness(frame, truth[other]) < 0.3
    for light, position in (("light", "RFP"), ("light_561", "GFP"), ("light", "none"), ("light_561", "none")):
        assert abs(snapped(rig, light, position).mean()) < 0.1, "the wrong light, or the wrong filter: nothing"


def test_cross_talk_is_as_large_as_is_said(small_rig: SmallRig) -> None:
    dyes = {"green": {**GREEN, "bleed_through": 0.25}, "red": {**RED, "cross_excitation": 0.1}}
    rig = small_rig({**TWO_COLOURS, **CLEAN, "connections.world.dyes": dyes})
    green, red = snapped(rig, "light", "GFP"), snapped(rig, "light_561", "RFP")
    through = snapped(rig, "light", "RFP")
    assert through.mean() == pytest.approx(0.25 * green.mean() + 0.1 * red.mean(), rel=0.03)
    assert likeness(through, 0.25 * green + 0.1 * red) > 0.95


def test_two_lights_at_once_add_up(small_rig: SmallRig) -> None:
    dyes = {name: {**dye, "filters": {}} for name, dye in (("green", GREEN), ("red", RED))}
    rig = small_rig({**TWO_COLOURS, **CLEAN, "connections.world.dyes": dyes})
    green, red = snapped(rig, "light", "none"), snapped(rig, "light_561", "none")
    rig.lights["light_561"].set_power(20.0)
    rig.lights["light_561"].on()
    both = snapped(rig, "light", "none")
    assert both.mean() == pytest.approx(green.mean() + red.mean(), rel=0.03)


def test_a_dye_is_bleached_by_its_own_light(small_rig: SmallRig) -> None:
    dyes = {"green": GREEN, "red": RED}
    rig = small_rig({**TWO_COLOURS, **CLEAN, "connections.world.dyes": dyes, "optics.dye.bleach_dose_mj_cm2": 2e5})
    world: Any = rig.connection("world")
    fresh = snapped(rig, "light_561", "RFP", 1.0).mean()
    for _ in range(3):
        snapped(rig, "light", "none", 40.0)
    assert snapped(rig, "light_561", "RFP", 1.0).mean() == pytest.approx(fresh, rel=0.05)
    taken = {name: float(dose.read((0.0, 0.0), (16, 16), 0.5).mean()) for name, dose in world.doses.items()}
    assert taken["green"] > 30 * taken["red"] > 0, "also while no filter lets it be seen"


def test_what_was_given_by_a_light_bleaches_the_dye_of_that_light(small_rig: SmallRig) -> None:
    rig = small_rig({**TWO_COLOURS, "optics.dye.bleach_dose_mj_cm2": 2000.0})
    world: Any = rig.connection("world")
    world.recall(world.remember(), [(0.0, 0.0, 500.0, "light_561"), (0.0, 0.0, 20.0)])
    taken = {name: float(dose.read((0.0, 0.0), (16, 16), 0.5).mean()) for name, dose in world.doses.items()}
    assert taken == pytest.approx({"green": 20.0, "red": 500.0}, rel=0.05)


def test_nothing_is_seen_while_a_filter_turns() -> None:
    dye = DyeSettings.model_validate({**GREEN, "bleed_through": 0.5})
    assert dye.passed_by({"filter": ""}) == 0.0
    assert dye.passed_by({"filter": "RFP"}) == 0.5
    assert dye.passed_by({"filter": "GFP", "filter_other": "any"}) == 1.0
    assert dye.shown_by("light_561", {"filter": "GFP"}) == 0.0


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no such light": (
        {"connections.world.dyes.red.light": "light_651"},
        "connections.world.dyes.red.light: there is no device 'light_651'",
    ),
    "no such filter": (
        {"connections.world.dyes.red.filters": {"wheel": "RFP"}},
        "connections.world.dyes.red.filters: there is no device 'wheel'",
    ),
    "no such position": (
        {"devices.filter.positions": ["GFP", "none"], "channels": {"green": TWO_COLOURS["channels"]["green"]}},
        "devices.filter.positions: lacks 'RFP', through which dye red of the world is seen",
    ),
    "a position twice": (
        {"devices.filter.positions": ["GFP", "RFP", "GFP"]},
        "devices.filter.positions: should be called each by a name of its own, 'GFP' is there twice",
    ),
    "another chip": (
        {"connections.world.dyes.red.truth": {"sensor": {"bits": 12}}},
        "connections.world.dyes.red.truth.sensor: is the same for all dyes",
    ),
    "a wrong truth": (
        {"connections.world.dyes.red.truth": {"dye": {"photons": 1.0}}},
        "connections.world.dyes.red.truth.dye.photons: unknown key 'photons'",
    ),
    "two ways at once": (
        {"connections.world.specimen": {"kind": "layer"}},
        "connections.world: should have a specimen, or dyes that have one each",
    ),
    "neither": (
        {"connections.world.dyes": {}},
        "connections.world: should have a specimen, or dyes that have one each",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_dye_is_refused_by_line_and_key(rig_yaml: Callable[..., Path], case: str) -> None:
    changes, message = WRONG[case]
    with pytest.raises(InputError) as caught:
        Rig(load_rig(rig_yaml({**TWO_COLOURS, **changes})))
    (problem,) = caught.value.problems
    assert message in str(problem)

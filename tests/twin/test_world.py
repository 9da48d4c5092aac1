"""The world as a whole: its seed, its clock, what is true in it, and agreement with the forward model."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from dmu_hw.data import PatternStack
from dmu_hw.errors import InputError
from dmu_hw.physics.forward import Forward
from dmu_hw.physics.optics import Optics
from dmu_hw.physics.projection import onto_mirrors
from dmu_hw.physics.sensor import SensorModel
from dmu_hw.physics.specimens import Scene
from dmu_hw.ports import CameraMode, Roi
from dmu_hw.rig import Rig, load_rig

RigYaml = Callable[..., Path]
SmallRig = Callable[..., Rig]
FULL = Roi(0, 0, 64, 64)

# ---------------------------------------------------------------- one seed, one world

SCRIPT = """
import hashlib, sys
import numpy as np
from pathlib import Path
from dmu_hw.ports import CameraMode, Roi
from dmu_hw.rig import Rig, load_rig

digest = hashlib.sha256()
with Rig(load_rig(Path(sys.argv[1]))).opened() as rig:
    rig.dmd.load(np.random.default_rng(5).random((4, *rig.dmd.shape)) < 0.5)
    rig.light.set_power(2.0)
    for x_um, binning in ((0.0, 1), (70.0, 4)):
        rig.stage.move_um(x_um, 0.0, 1e4)
        rig.camera.configure(CameraMode(10.0, binning, Roi(0, 0, 64, 64), "external"))
        rig.camera.arm(4)
        rig.light.on()
        rig.dmd.start((0, 1, 2, 3), 20.0)
        for _ in range(4):
            frame = rig.camera.pop(100.0)
            digest.update(frame.pixels.tobytes() + repr(frame.time_ms).encode())
        rig.light.off()
print(digest.hexdigest())
"""
NUISANCES = {
    "connections.world.truth": {
        "dye": {"bleach_dose_mj_cm2": 3000.0, "saturation_mw": 20.0},
        "sensor": {"gain_spread": 0.02, "offset_spread_adu": 2.0, "hot_fraction": 0.01, "dead_fraction": 0.01},
    },
    "connections.world.drift_um_s": [0.5, 0.2],
    "devices.dmd.stuck_off_fraction": 0.01,
}


def digest(path: Path) -> str:
    """Of the raw frames that a fresh process gets."""
    done = subprocess.run([sys.executable, "-c", SCRIPT, path], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_same_seed_gives_the_same_frames_in_another_process(rig_yaml: RigYaml) -> None:
    one, same, other = (
        digest(rig_yaml({**NUISANCES, "connections.world.seed": seed}, f"{name}.yaml"))
        for name, seed in (("one", 1), ("same", 1), ("other", 2))
    )
    assert len(one) == 64
    assert one == same
    assert one != other


def test_a_seed_gives_another_chip_and_other_noise_but_the_specimen_has_its_own(rig_yaml: RigYaml) -> None:
    worlds = []
    for seed in (1, 2):
        rig = Rig(load_rig(rig_yaml({**NUISANCES, "connections.world.seed": seed})))
        worlds.append(rig.connection("world"))
    chips = [world.renderer.maps.response for world in worlds]
    assert not torch.equal(*chips)
    assert np.array_equal(*(world.scene(FULL).image for world in worlds))


def test_noise_does_not_depend_on_what_was_taken_before(small_rig: SmallRig) -> None:
    """The third frame is the same whether the two before it were bright or dark."""
    thirds = []
    for power_mw in (0.0, 3.0):
        rig = small_rig({})
        rig.camera.configure(CameraMode(10.0, 1, FULL))
        rig.camera.arm(3)
        rig.light.set_power(power_mw)
        rig.light.on()
        for _ in range(2):
            rig.camera.pop(100.0)
        rig.light.off()
        thirds.append(rig.camera.pop(100.0).pixels.copy())
    assert np.array_equal(*thirds)


# ---------------------------------------------------------------- time


def burst_s(rig: Rig, frames: int, exposure_ms: float) -> float:
    """Seconds on the wall for frames without light, which cost nearly nothing to compute."""
    rig.camera.configure(CameraMode(exposure_ms, 16, FULL))
    rig.camera.arm(1)
    rig.camera.pop(1e4)
    began = time.perf_counter()
    rig.camera.arm(frames)
    for _ in range(frames):
        rig.camera.pop(1e4)
    return time.perf_counter() - began


def test_time_is_the_worlds_own(small_rig: SmallRig) -> None:
    """1,000 s of exposure within 10 s."""
    rig = small_rig({"devices.camera.readout_ms": 0.0})
    assert burst_s(rig, 100, 10_000.0) < 10
    assert rig.clock.now_ms() == pytest.approx(101 * 10_000.0)


def test_real_time_on_request(small_rig: SmallRig) -> None:
    """It takes what exposures and waits take, plus what computing takes, which the world does not see."""
    rig = small_rig({"connections.world.realtime": True, "devices.camera.readout_ms": 0.0})
    short_s, long_s = burst_s(rig, 2, 100.0), burst_s(rig, 6, 100.0)
    assert short_s >= 0.2 * 0.999
    assert long_s >= 0.6 * 0.999
    assert 1.5 < long_s / short_s < 6
    before_ms, before_s = rig.clock.now_ms(), time.perf_counter()
    rig.clock.sleep_ms(150.0)
    assert rig.clock.now_ms() - before_ms >= 150.0
    assert time.perf_counter() - before_s >= 0.15 * 0.999


def test_computing_takes_no_time_of_a_real_time_world(small_rig: SmallRig) -> None:
    rig = small_rig({"connections.world.realtime": True})
    before_ms = rig.clock.now_ms()
    with rig.clock.held():  # type: ignore[attr-defined]
        time.sleep(0.3)
    assert rig.clock.now_ms() - before_ms < 150


# ---------------------------------------------------------------- truth

TRUTHS = {
    "one number": ({"mirrors": {"leakage": 0.2}}, ("mirrors", "leakage"), 0.2),
    "a nested one": ({"dye": {"bleach_dose_mj_cm2": 7.5}}, ("dye", "bleach_dose_mj_cm2"), 7.5),
    "within its kind": ({"excitation": {"sigma_um": 0.9}}, ("excitation", "sigma_um"), 0.9),
    "another kind": ({"profile": {"kind": "gaussian", "sigma_um": 30}}, ("profile", "sigma_um"), 30.0),
    "another kind of lens": ({"emission": {"kind": "airy", "na": 0.5, "wavelength_nm": 600}}, ("emission", "na"), 0.5),
}


@pytest.mark.parametrize("case", TRUTHS)
def test_truth_replaces_what_it_names_and_nothing_else(rig_yaml: RigYaml, case: str) -> None:
    changes, path, expected = TRUTHS[case]
    rig = Rig(load_rig(rig_yaml({"connections.world.truth": changes})))
    truth = rig.connection("world").truth
    value = truth
    for step in path:
        value = getattr(value, step)
    assert value == expected
    rest, believed = truth.model_dump(), rig.optics.model_dump()
    differing = [key for key in rest if rest[key] != believed[key]]
    assert differing == [path[0]]
    if "kind" not in changes[path[0]]:
        assert [key for key in rest[path[0]] if rest[path[0]][key] != believed[path[0]][key]] == [path[1]]


WRONG_TRUTHS = {
    "a wrong key": (
        {"mirrors": {"leekage": 0.2}},
        "truth.mirrors.leekage: unknown key 'leekage'; did you mean 'leakage'?",
    ),
    "a wrong section": ({"dyes": {}}, "truth.dyes: unknown key 'dyes'; did you mean 'dye'?"),
    "out of range": ({"mirrors": {"leakage": 1.5}}, "truth.mirrors.leakage: should be less than 1, given 1.5"),
    "no number": ({"dye": {"saturation_mw": "much"}}, "truth.dye.saturation_mw: should be a number, given 'much'"),
    "a kind without its keys": ({"profile": {"kind": "gaussian"}}, "truth.profile: key 'sigma_um' is missing"),
    "a kind that is none": ({"profile": {"kind": "round"}}, "truth.profile.kind: unknown kind 'round'; allowed: flat"),
    "pixels that do not nest": ({"sensor_pixel_um": 0.7}, "truth: sensor_pixel_um must be a whole multiple"),
    "another array": ({"mirrors": {"shape": [96, 96]}}, "truth.mirrors.shape: the array has (96, 128) mirrors"),
}


@pytest.mark.parametrize("case", WRONG_TRUTHS)
def test_a_wrong_truth_is_refused_with_line_and_key(rig_yaml: RigYaml, case: str) -> None:
    changes, expected = WRONG_TRUTHS[case]
    path = rig_yaml({"connections.world.truth": changes})
    with pytest.raises(InputError) as caught:
        Rig(load_rig(path))
    assert len(caught.value.problems) == 1
    said = str(caught.value)
    key = expected.split(": ", maxsplit=1)[0].rsplit(".", maxsplit=1)[-1]
    lines = enumerate(path.read_text().splitlines(), 1)
    below_truth = itertools.dropwhile(lambda line: line[1].strip() != "truth:", lines)
    line = next(number for number, text in below_truth if text.strip().startswith(f"{key}:"))
    assert said.startswith(f"{path}:{line}: connections.world.{expected}")


# ---------------------------------------------------------------- agreement with the forward model


class TwoDiscs:
    """A specimen whose every flip and turn is another: a large disc, a small bright one, and a bar on the right."""

    def scene(self, centre_um: tuple[float, float], shape: tuple[int, int], pixel_um: float) -> Scene:
        x = centre_um[0] + (np.arange(shape[1]) - (shape[1] - 1) / 2) * pixel_um
        y = centre_um[1] + (np.arange(shape[0]) - (shape[0] - 1) / 2) * pixel_um
        x, y = x[None, :], y[:, None]
        image = 0.2 + 0.4 * self._disc(x + 5, y + 6, 5) + 0.4 * self._disc(x - 7, y + 9, 2)
        image = image + 0.3 / (1 + np.exp(-(x - 10) * 3)) / (1 + np.exp(-y * 3))
        return Scene(image.astype(np.float32), np.zeros(shape, dtype=np.int32))

    def _disc(self, x: np.ndarray, y: np.ndarray, radius_um: float) -> np.ndarray:
        return 1 / (1 + np.exp((np.hypot(x, y) - radius_um) * 3))


DEEP = {"full_well_e": 1e9, "gain_adu_per_e": 0.05, "read_noise_e": 1.0}
"""A camera that is never full, so that noise can be as small as one likes."""
FINE = {"optics.mirrors.shape": [400, 400], "optics.sensor": DEEP, "connections.world.oversampling": 4}
WINDOW = Roi(8, 8, 48, 32)
"""Its corner is 12 µm left of and above the axis, its middle 4 µm above."""
MAPS = {
    "straight": {"matrix": [[0.25, 0.0], [0.0, 0.25]]},
    "shifted": {"matrix": [[0.25, 0.0], [0.0, 0.25]], "shift": [4.5, -3.0]},
    "mirrored": {"matrix": [[-0.25, 0.0], [0.0, 0.25]], "shift": [3.0, 2.5]},
    "quarter turn": {"matrix": [[0.0, -0.25], [0.25, 0.0]], "shift": [1.0, -4.5]},
    "turned and mirrored": {"matrix": [[-0.128, 0.045], [0.045, 0.128]], "shift": [2.3, -1.1]},
    "bent": {
        "matrix": [[0.13, 0.01], [-0.01, 0.13]],
        "distortion": [[0.4, 0.0, 0.0, 0.3, 0.0, 0.0, 0.0], [0.0, -0.5, 0.0, 0.0, 0.2, 0.0, 0.0]],
        "radius": 200.0,
    },
}


def asymmetric_patterns(camera_pixel: int) -> PatternStack:
    """Two patterns on a tile of 2×2 camera pixels that no flip, turn or shift maps onto themselves."""
    half = camera_pixel // 2
    masks = np.zeros((2, 2 * camera_pixel, 2 * camera_pixel), dtype=bool)
    masks[0, :half, : 3 * half] = True
    masks[0, half : 3 * half, :half] = True
    masks[1, 2 * half :, half : 2 * half] = True
    masks[1, :half, 3 * half :] = True
    return PatternStack("asymmetric", masks, camera_pixel)


def taken(rig: Rig, stack: PatternStack, mode: CameraMode, corner_um: tuple[float, float], repeats: int) -> np.ndarray:
    """Mean frame of each pattern in 5 mW, with the specimen in place of the rig's own."""
    world = rig.connection("world")
    world.settings = world.settings.model_copy(update={"specimen": TwoDiscs()})
    rig.dmd.load(onto_mirrors(stack, rig.optics, corner_um))
    rig.light.set_power(5.0)
    rig.light.on()
    rig.camera.configure(mode)
    frames = []
    for index in range(stack.count):
        rig.dmd.show(index)
        rig.clock.sleep_ms(1.0)
        rig.camera.arm(repeats)
        frames.append(np.mean([rig.camera.pop(1e4).pixels.astype(float) for _ in range(repeats)], axis=0))
    return np.stack(frames)


def predicted(optics: Optics, stack: PatternStack, mode: CameraMode, centre_um: tuple[float, float]) -> np.ndarray:
    """The same from the physics alone, on the object grid, with a border from which blur brings light in."""
    border = stack.tile_px[0]
    ratio = mode.binning * optics.sensor_ratio
    shape = (mode.shape[0] * ratio + 2 * border, mode.shape[1] * ratio + 2 * border)
    forward = Forward(optics, shape, ratio, centre_um=centre_um)
    lit = forward.illuminate(torch.from_numpy(stack.over(shape)).float(), 5.0)
    scene = torch.from_numpy(TwoDiscs().scene(centre_um, shape, optics.object_pixel_um).image)
    photons = forward.photons(forward.image(scene[None], lit)[0], 5.0, mode.exposure_ms)
    rim = border // ratio
    adu = SensorModel.at(optics.sensor, mode.binning).mean_adu(photons)
    return adu[:, rim:-rim, rim:-rim].numpy()


def rms(one: np.ndarray, other: np.ndarray) -> float:
    """Root mean square of the difference, as a part of the mean signal."""
    return float(np.sqrt(np.mean((one - other) ** 2)) / (other - 100).mean())


@pytest.mark.parametrize("where", MAPS)
@pytest.mark.parametrize("camera_pixel", [4, 8])
def test_a_pattern_lands_where_it_was_designed(small_rig: SmallRig, where: str, camera_pixel: int) -> None:
    """Patterns → mirrors → sample → camera, through any map of the mirrors, in a window off the axis."""
    rig = small_rig({**FINE, "optics.mirrors.to_sample": MAPS[where]})
    mode, centre_um = CameraMode(100.0, camera_pixel, WINDOW), (0.0, -4.0)
    stack = asymmetric_patterns(camera_pixel)
    seen = taken(rig, stack, mode, (-12.0, -12.0), 4)
    expected = predicted(rig.optics, stack, mode, centre_um)
    assert seen.shape == expected.shape == (2, 32 // camera_pixel, 48 // camera_pixel)
    nested = where not in ("turned and mirrored", "bent")
    # where mirrors and object pixels do not nest, a pattern's edges are rounded to whole mirrors
    assert rms(seen, expected) < (0.02 if nested else 0.16 / camera_pixel)
    for what, wrong in {
        "upside down": stack.masks[:, ::-1],
        "mirrored": stack.masks[:, :, ::-1],
        "transposed": stack.masks.swapaxes(1, 2),
        "shifted": np.roll(stack.masks, 1, axis=2),
        "shifted down": np.roll(stack.masks, 1, axis=1),
        "swapped": stack.masks[::-1],
    }.items():
        other = predicted(rig.optics, PatternStack(what, wrong.copy(), camera_pixel), mode, centre_um)
        assert rms(seen, other) > 0.08, f"{what} would show"


def test_half_an_object_pixel_would_show(small_rig: SmallRig) -> None:
    """Patterns and window in place, the specimen half a pixel aside, and the other way round."""
    rig = small_rig({**FINE, "optics.mirrors.to_sample": MAPS["straight"]})
    mode = CameraMode(400.0, 4, WINDOW)
    stack = asymmetric_patterns(4)
    seen = taken(rig, stack, mode, (-12.0, -12.0), 8)
    good = rms(seen, predicted(rig.optics, stack, mode, (0.0, -4.0)))
    for aside_um in ((0.25, 0.0), (-0.25, 0.0), (0.0, 0.25), (0.0, -0.25)):
        assert rms(seen, predicted(rig.optics, stack, mode, (aside_um[0], aside_um[1] - 4.0))) > 2 * good


def test_a_turned_camera_has_no_dark_corners(small_rig: SmallRig) -> None:
    """Light comes from beyond the window where the lens bends: as much as the specimen has there."""
    turn = {"matrix": [[0.9, 0.3], [-0.3, 0.9]], "shift": [4.0, -3.0]}
    rig = small_rig(
        {
            "connections.world.truth": {"sample_to_sensor": turn},
            "connections.world.specimen": {"kind": "layer", "brightness": 1.0},
            "optics.mirrors": {"shape": [300, 300], "to_sample": {"matrix": [[0.5, 0.0], [0.0, 0.5]]}},
        }
    )
    rig.dmd.load(np.ones((1, 300, 300), dtype=bool))
    rig.dmd.show(0)
    rig.light.set_power(1.0)
    rig.light.on()
    rig.clock.sleep_ms(1.0)
    rig.camera.configure(CameraMode(100.0, 8, FULL))
    rig.camera.arm(1)
    pixels = rig.camera.pop(1e4).pixels.astype(float) - 100
    assert pixels == pytest.approx(pixels.mean(), rel=0.05)


def test_a_finer_rendering_shows_the_same(rig_yaml: RigYaml, small_rig: SmallRig) -> None:
    means = {}
    for oversampling in (1, 2, 4):
        rig = small_rig({"connections.world.oversampling": oversampling, "optics.sensor": DEEP})
        means[oversampling] = taken(rig, asymmetric_patterns(4), CameraMode(200.0, 4, FULL), (-16.0, -16.0), 4)
    assert rms(means[1], means[4]) < 0.03
    assert rms(means[2], means[4]) < 0.01


# ---------------------------------------------------------------- weight


def test_a_run_of_many_steps_needs_no_more_memory_than_a_short_one(small_rig: SmallRig) -> None:
    rig = small_rig({})
    world = rig.connection("world")
    rig.dmd.load(np.ones((2, *rig.dmd.shape), dtype=bool))
    rig.camera.configure(CameraMode(1.0, 64, FULL, "external"))
    sizes = []
    for _ in range(60):
        rig.camera.arm(4)
        rig.dmd.start((0, 1, 0, 1), 5.0)
        for _ in range(4):
            rig.camera.pop(100.0)
        rig.dmd.stop()
        sizes.append(len(world.history.mirrors._times_ms) + len(world.pulses_ms))
    assert sizes[-1] == sizes[2]

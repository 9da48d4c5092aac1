"""Rigs drawn at random, whose truth the rig's file does not tell: what calibrations have to find.

Each of the things that a routine has to find is drawn from a stream of its own, so that more of them change none of
those that were there before.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from dmu_hw.calibrate import Calibration, Outcome, sample_put_back
from dmu_hw.drivers.simulated.world import World
from dmu_hw.guard import Guard
from dmu_hw.recipe import load_recipe
from dmu_hw.rig import Rig, load_rig
from dmu_hw.routine import Sample
from dmu_hw.store import Store

Numbers = dict[str, Any]
SENSOR_PX = 384
MIRRORS = (480, 640)
PIXEL_UM = 0.325


def geometry(rng: np.random.Generator) -> Numbers:
    """Mirrors to the sample: any rotation, flip, a scale of 0.3 to 4 camera pixels a mirror, shear, shift, and up to
    2 % of distortion at the border of the chip."""
    scale_um = PIXEL_UM * math.exp(rng.uniform(math.log(0.3), math.log(4.0)))
    turn, shear, stretch = rng.uniform(-math.pi, math.pi), rng.uniform(-0.03, 0.03), 1 + rng.uniform(-0.02, 0.02)
    flip = np.diag([rng.choice([-1.0, 1.0]), 1.0])
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    matrix = scale_um * rotation @ np.array([[1, shear], [0, stretch]]) @ flip
    half_um = SENSOR_PX / 2 * PIXEL_UM
    shift_um = rng.uniform(-0.1, 0.1, 2) * half_um
    # in mirrors from the middle of the array: where the border of the chip lies
    radius = half_um / scale_um
    terms = rng.normal(size=(2, 7))
    terms *= 0.02 * half_um * rng.uniform(0, 1) / np.abs(terms).sum(axis=1, keepdims=True)
    to_sample = {
        "matrix": matrix.tolist(),
        "shift": shift_um.tolist(),
        "distortion": terms.tolist(),
        "radius": radius,
    }
    return {"mirrors": {"to_sample": to_sample}}


def chip(rng: np.random.Generator) -> Numbers:
    """The camera's numbers."""
    return {
        "sensor": {
            "gain_adu_per_e": float(math.exp(rng.uniform(math.log(0.2), math.log(3.0)))),
            "offset_adu": float(rng.uniform(60, 400)),
            "read_noise_e": float(rng.uniform(1.0, 6.0)),
            "full_well_e": float(rng.uniform(15_000, 60_000)),
            "gain_spread": float(rng.uniform(0, 0.02)),
            "offset_spread_adu": float(rng.uniform(0, 3)),
            "hot_fraction": 0.0005,
            "dead_fraction": 0.0002,
        }
    }


def converter(rng: np.random.Generator) -> Numbers:
    """Other cameras than `chip` draws: fewer bits, pixels of which some are noisier, binning in numbers. Not among
    those that every rig has: for `changes`, `optics` of which a data sheet would tell, and `truth`."""
    bits = int(rng.choice([8, 10, 12, 14, 16]))
    kind = str(rng.choice(["charge", "digital"]))
    told = {"sensor": {"bits": bits, "binning": str(rng.choice(["charge", "digital"]))}}
    gain = float(math.exp(rng.uniform(math.log(0.2), math.log(3.0))))
    noise = float(rng.uniform(1.0, 6.0))
    spread = float(rng.uniform(0, 1.5))
    # so high that no dark number is cut off
    offset = float(6 * (noise * gain + spread) + rng.uniform(2, 20))
    truth = {
        "bits": bits,
        "binning": kind,
        "gain_adu_per_e": gain,
        "read_noise_e": noise,
        "offset_adu": offset,
        "offset_spread_adu": spread,
        "read_noise_spread": float(rng.uniform(0, 0.3)),
    }
    return {"optics": told, "truth": {"sensor": truth}}


def output(rng: np.random.Generator) -> Numbers:
    """What comes of a light's settings: a threshold, another gain, less the more there is. For `changes`, `light`."""
    saturation_mw = float(math.exp(rng.uniform(math.log(40.0), math.log(1000.0))))
    truth = {
        "threshold_mw": float(rng.choice([0.0, rng.uniform(0.2, 5.0)])),
        "gain": float(rng.uniform(0.5, 1.1)),
        "saturation_mw": saturation_mw if rng.random() < 0.8 else None,
    }
    return {"true": truth}


def light(rng: np.random.Generator) -> Numbers:
    """Uneven light, and what mirrors that are off let through."""
    half_um = SENSOR_PX / 2 * PIXEL_UM
    profile = {
        "kind": "gaussian",
        "sigma_um": float(half_um * rng.uniform(1.2, 3.0)),
        "centre_um": rng.uniform(-0.3, 0.3, 2).dot(half_um).tolist(),
    }
    return {"profile": profile, "mirrors": {"leakage": float(math.exp(rng.uniform(math.log(5e-4), math.log(0.04))))}}


def lenses(rng: np.random.Generator) -> Numbers:
    """Blur on the way to the sample and from it, in µm."""
    return {
        "excitation": {"kind": "gaussian", "sigma_um": float(PIXEL_UM * rng.uniform(0.8, 2.0))},
        "emission": {"kind": "gaussian", "sigma_um": float(PIXEL_UM * rng.uniform(0.8, 2.0))},
    }


DRAWN: dict[str, Callable[[np.random.Generator], Numbers]] = {
    "geometry": geometry,
    "chip": chip,
    "light": light,
    "lenses": lenses,
}


@dataclass(frozen=True)
class Drawn:
    """A rig that was drawn."""

    rig: Rig
    world: World
    """With the truth, for whoever judges a result."""
    path: Path


def draw_rig(seed: int, folder: Path, **changes: Any) -> Drawn:
    """One rig. `changes` are laid over the YAML: `world`, `camera`, `dmd`, `light`, `stage`, `optics`, `truth`, or any
    other key of a rig."""
    truth: Numbers = {}
    for name, draw in DRAWN.items():
        _lay(truth, draw(np.random.default_rng([seed, *name.encode()])))
    given = believed(truth, seed)
    world = given["connections"]["world"]
    for key, change in changes.items():
        places = {"world": world, "truth": world["truth"], "optics": given["optics"], **given["devices"]}
        if key in places:
            _lay(places[key], change)
        else:
            given[key] = change
    path = folder / f"rig-{seed}.yaml"
    path.write_text(yaml.safe_dump(given, sort_keys=False))
    rig = Rig(load_rig(path))
    (link,) = rig.connections
    assert isinstance(link, World)
    return Drawn(rig, link, path)


def measured(drawn: Drawn, *steps: Numbers, channel: str = "") -> list[Outcome]:
    """Take a rig through routines, each said as in a recipe: `{"routine": "register"}`. Results go to `results` beside
    the rig's file, and what was found before is believed."""
    path = drawn.path.with_name("recipe.yaml")
    given = {"kind": "calibration", "name": "test", "rig": drawn.path.name, "steps": list(steps)}
    path.write_text(yaml.safe_dump(given))
    recipe = load_recipe(path)
    with drawn.rig.opened() as rig, sample_put_back(rig):
        work = Calibration(rig, store_of(drawn), Guard(rig), ask=_nobody)
        return [work.run(measure, channel, _quiet) for measure in recipe.measures]


def store_of(drawn: Drawn) -> Store:
    return Store(drawn.path.with_name("results"))


def _nobody(sample: Sample) -> None:
    raise AssertionError(f"nobody is there to put {sample}")


def _quiet(_done: int, _of: int) -> None:
    """Nobody looks."""


def believed(truth: Numbers, seed: int) -> Numbers:
    """A rig YAML that knows of all this only what a data sheet says."""
    return {
        "kind": "rig",
        "name": f"rig-{seed}",
        "optics": {
            "object_pixel_um": PIXEL_UM,
            "sensor_pixel_um": PIXEL_UM,
            "excitation": {"kind": "gaussian", "sigma_um": 0.4},
            "emission": {"kind": "gaussian", "sigma_um": 0.4},
            "mirrors": {"shape": list(MIRRORS), "to_sample": {"matrix": [[PIXEL_UM, 0.0], [0.0, PIXEL_UM]]}},
            "dye": {"photons_per_um2_mw_ms": 200.0, "background_photons_per_um2_mw_ms": 1.0},
            "sensor": {"bits": 16},
        },
        "connections": {
            "world": {
                "driver": "simulated",
                "seed": seed,
                "specimen": {"kind": "nuclei", "seed": seed},
                "truth": truth,
                "oversampling": 1,
                "sensor_shape": [SENSOR_PX, SENSOR_PX],
            }
        },
        "devices": {
            name: {"driver": "simulated", "connection": "world"}
            for name in ("dmd", "camera", "light", "stage", "focus")
        },
        "stepping": "dmd",
    }


def _lay(over: Numbers, more: Numbers) -> None:
    for key, value in more.items():
        before = over.get(key)
        if isinstance(value, dict) and isinstance(before, dict) and value.get("kind") == before.get("kind"):
            _lay(over[key], value)
        else:
            over[key] = value

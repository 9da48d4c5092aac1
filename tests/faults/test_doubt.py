"""Images that are not to be believed: the shipped bundle on the shipped rig, with another specimen, out of focus, and
with mirrors that are not where they are believed to be."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from dmu_hw.doubt import REASONS
from tests.program import Dmu

ROOT = Path(__file__).parents[2]
PSNR = "PSNR reconstruction / dB"
MIRROR_UM, PIXEL_UM = 0.2275, 0.325
LIGHT, UNLIKE = REASONS["focus"], REASONS["unlike"]


def placed(scale: float = 1.0, degrees: float = 0.0, shift_um: tuple[float, float] = (0.0, 0.0)) -> dict[str, Any]:
    """Where the mirrors' light truly falls."""
    cos, sin = (MIRROR_UM * scale * turn(math.radians(degrees)) for turn in (math.cos, math.sin))
    return {"mirrors": {"to_sample": {"matrix": [[cos, -sin], [sin, cos]], "shift": list(shift_um)}}}


@dataclass(frozen=True)
class Case:
    """What is otherwise than the bundle believes."""

    name: str
    world: dict[str, Any] = field(default_factory=dict)
    truth: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
    """The weightiest one that is to be given; empty: none at all."""
    told: bool = True
    """Whether what comes of it is to be this; else it is only measured."""
    protocol: str = "quickstart"
    """Whose bundle images."""


def nuclei(seed: int) -> dict[str, Any]:
    return {"specimen": {"kind": "nuclei", "seed": seed}}


def focus(z_um: float, *, told: bool = True) -> Case:
    return Case(f"{z_um:+g} µm out of focus", {"specimen_z_um": z_um}, reason=LIGHT, told=told)


GOOD = [Case(f"good fields, specimen {seed}", nuclei(seed)) for seed in (7, 21, 22)]
BAD = [
    Case("filaments", {"specimen": {"kind": "filaments", "seed": 3}}, reason=UNLIKE),
    Case("beads", {"specimen": {"kind": "beads", "seed": 3}}, reason=UNLIKE),
    focus(2.0),
    Case("light 5 % larger than believed", truth=placed(1.05), reason=LIGHT),
]
MORE = [
    focus(0.5, told=False),
    focus(0.75, told=False),
    focus(1.0),
    focus(-1.5),
    focus(4.0),
    focus(-8.0),
    Case("light 2 % larger than believed", truth=placed(1.02), reason=LIGHT, told=False),
    Case("light 5 % smaller than believed", truth=placed(0.95), reason=LIGHT),
    *(
        Case(f"light {px} px beside", truth=placed(shift_um=(px * PIXEL_UM, 0.0)), reason=LIGHT, told=px >= 4)
        for px in (1, 2, 4)
    ),
]


@pytest.fixture(name="imaged")
def _imaged(dmu: Dmu, tmp_path: Path) -> Callable[[Case, int], dict[str, Any]]:
    """What a run of so many fields along a side tells."""

    def image(case: Case, side: int) -> dict[str, Any]:
        rig = yaml.safe_load((ROOT / "devices" / "simulated.yaml").read_text())
        rig["calibration"] = {"results": "none"}
        world = rig["connections"]["world"]
        for part, values in case.truth.items():
            world["truth"].setdefault(part, {}).update(values)
        world |= case.world
        protocol = yaml.safe_load((ROOT / "protocols" / f"{case.protocol}.yaml").read_text())
        bundle = ROOT / "protocols" / protocol["patterns"]["bundle"]
        grid = {"rows": side, "columns": side, "overlap": 0.0}
        protocol |= {"rig": "rig.yaml", "patterns": {"bundle": str(bundle)}, "references": {}, "grid": grid}
        for name, content in (("rig", rig), ("run", protocol)):
            (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content))
        said = dmu("run", tmp_path / "run.yaml", "--out", tmp_path / "runs", "--json")
        assert said.status == 0, said.err
        told: dict[str, Any] = said.told
        return told

    return image


@pytest.mark.parametrize("case", [GOOD[0], *BAD], ids=lambda case: case.name)
def test_some_fields(case: Case, imaged: Callable[[Case, int], dict[str, Any]]) -> None:
    doubts = imaged(case, 2)["doubts"]
    assert doubts["judged"] == 4
    assert doubts["doubted"] == (4 if case.reason else 0)
    if case.reason:
        assert doubts["reasons"][case.reason] == 4


@pytest.mark.campaign
def test_many_fields(imaged: Callable[[Case, int], dict[str, Any]], figure: Callable[..., None]) -> None:
    good = [imaged(case, 12) for case in GOOD]
    for case, told in zip(GOOD, good, strict=True):
        doubts = told["doubts"]
        figure("doubt", case.name, f"{doubts['doubted']} of {doubts['judged']} doubted", "2 %")
    judged, doubted = (sum(told["doubts"][name] for told in good) for name in ("judged", "doubted"))
    best_db = sum(told["metrics"][PSNR] for told in good) / len(good)
    figure("doubt", "all good fields", f"{doubted} of {judged} doubted ({doubted / judged:.2%})", "2 %")
    assert doubted <= 0.02 * judged
    for case in BAD + MORE:
        told = imaged(case, 6)
        doubts, lost_db = told["doubts"], best_db - told["metrics"][PSNR]
        part = doubts["doubted"] / doubts["judged"]
        value = f"{doubts['doubted']} of {doubts['judged']} doubted; images are {lost_db:.1f} dB worse"
        figure("doubt", case.name, value, "95 % at least" if case.told else "")
        if case.told:
            assert part >= 0.95, case.name


@pytest.mark.campaign
def test_many_fields_that_are_segmented(
    imaged: Callable[[Case, int], dict[str, Any]], figure: Callable[..., None]
) -> None:
    """There is no image of the specimen to be explained: only frames are judged."""
    good = imaged(replace(GOOD[0], protocol="count-nuclei"), 9)["doubts"]
    figure("doubt", f"segmented: {GOOD[0].name}", f"{good['doubted']} of {good['judged']} doubted", "2 %")
    assert good["doubted"] <= 0.02 * good["judged"]
    for case in BAD:
        told = case.name != BAD[-1].name  # objects are found where they are not, and frames tell it of some fields only
        doubts = imaged(replace(case, protocol="count-nuclei"), 6)["doubts"]
        value = f"{doubts['doubted']} of {doubts['judged']} doubted"
        figure("doubt", f"segmented: {case.name}", value, "95 % at least" if told else "")
        if told:
            assert doubts["doubted"] >= 0.95 * doubts["judged"], case.name


@pytest.mark.skipif("DMU_DATA" not in os.environ, reason="DMU_DATA names no folder of images")
@pytest.mark.campaign
def test_real_nuclei(imaged: Callable[[Case, int], dict[str, Any]], figure: Callable[..., None]) -> None:
    """A bundle that has seen synthetic nuclei only: what it makes of real ones, and whether it is sure of it."""
    images = {"kind": "images", "path": str(Path(os.environ["DMU_DATA"]) / "nuclei" / "images"), "pixel_um": 0.65}
    told = imaged(Case("real nuclei", {"specimen": images}), 6)
    doubts = told["doubts"]
    why = ", ".join(f"{count} {reason}" for reason, count in doubts["reasons"].items())
    value = f"{doubts['doubted']} of {doubts['judged']} doubted ({why}); {told['metrics'][PSNR]:.1f} dB"
    figure("doubt", "real nuclei, by a bundle of synthetic ones", value)
    assert doubts["judged"] == 36

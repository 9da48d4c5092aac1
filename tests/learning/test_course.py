"""A training and all that it names: from a file, with a rig or without, and back from plain values anywhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from dmu_hw.course import Course, course_of, open_course
from dmu_hw.errors import InputError
from dmu_hw.files import parse_yaml
from dmu_hw.models.lattice import Settings as Lattice
from dmu_hw.models.unrolled import Settings as Unrolled
from dmu_hw.physics.optics import Optics

BASE: dict[str, Any] = {
    "kind": "train",
    "name": "lesson",
    "data": {"kind": "scenes", "specimen": {"kind": "nuclei", "seed": 3}, "train": 4, "held_back": 2, "side_px": 64},
    "patterns": {"count": 4, "camera_pixel": 4, "slope": [1.0, 4.0]},
    "power_mw": 1.0,
    "exposure_ms": 2.0,
    "schedule": {"updates": 4, "crop_px": 32},
}
CASES: dict[str, dict[str, Any]] = {
    "a rig": {"rig": "rig.yaml"},
    "optics": {"dose_ms": 4.0, "exposure_ms": None},
    "a folder": {"data": {"kind": "folder", "path": "images", "labels": "labels", "split": "split.csv"}},
    "segmentation": {"task": {"kind": "segment", "stages": [0.0, 0.5, 0.5], "network": {"channels": 8}}},
    "a network": {"network": {"model": "unrolled"}},
    "a network with settings": {"network": {"model": "lattice", "channels": 8}},
    "losses": {"loss": {"mse": 1.0, "ssim": 0.25}},
    "a bundle": {"patterns": {"count": 4, "camera_pixel": 4, "start": {"bundle": "other/x.dmu"}}},
    "a cap": {"patterns": {"count": 4, "camera_pixel": 4, "cap": {"sum": 1.0, "peak": 1}}, "total_exposure_ms": 4.0},
}


@pytest.fixture
def opened(tmp_path: Path, small: Any) -> Callable[..., Course]:
    """Opens a protocol that stands in a folder of its own; a rig there has the small optics."""

    def open_it(changes: dict[str, Any]) -> Course:
        given = BASE | changes
        if not {"rig", "optics"} & given.keys():
            given["optics"] = small.optics.model_dump(mode="json")
        if "total_exposure_ms" in given:
            del given["exposure_ms"]
        path = tmp_path / "lab" / "lesson.yaml"
        path.parent.mkdir(exist_ok=True)
        document = parse_yaml(yaml.safe_dump(given), path)

        def optics_of(rig: Path) -> Optics:
            assert rig == tmp_path / "lab" / "rig.yaml"
            optics: Optics = small.optics
            return optics

        return open_course(document, optics_of)

    return open_it


@pytest.mark.parametrize("case", CASES)
def test_plain_values_make_it_again(opened: Callable[..., Course], case: str) -> None:
    """On another computer too: they went through JSON, and need no rig."""
    course = opened(CASES[case])
    again = course_of(json.loads(json.dumps(course.config, allow_nan=False)))
    assert again.config == course.config
    assert again.optics == course.optics
    assert again.network == course.network
    assert again.lesson.rig is None
    assert (
        again.lesson.model_copy(
            update={"rig": course.lesson.rig, "optics": course.lesson.optics, "network": course.lesson.network}
        )
        == course.lesson
    )


def test_paths_are_those_of_the_protocol(opened: Callable[..., Course], tmp_path: Path) -> None:
    config = opened(CASES["a folder"] | CASES["a bundle"]).config
    assert config["data"]["path"] == str(tmp_path / "lab" / "images")
    assert config["patterns"]["start"] == {"bundle": str(tmp_path / "lab" / "other" / "x.dmu")}


def test_the_optics_stand_in_for_the_rig(opened: Callable[..., Course], small: Any) -> None:
    """So that a rig and its optics outright are the same training."""
    by_rig, outright = opened({"rig": "rig.yaml"}), opened({})
    assert by_rig.optics == outright.optics == small.optics
    assert by_rig.config == outright.config
    assert by_rig.config["rig"] is None


def test_models_have_their_own_settings(opened: Callable[..., Course]) -> None:
    assert opened({}).network == Lattice()
    assert opened(CASES["a network with settings"]).network == Lattice(channels=8)
    assert opened(CASES["a network"]).network == Unrolled()
    assert opened({}).config["network"] == {"model": "lattice"} | Lattice().model_dump(mode="json")


def test_a_file_beside_the_protocol(opened: Callable[..., Course], tmp_path: Path) -> None:
    (tmp_path / "lab").mkdir()
    file = tmp_path / "lab" / "own.py"
    file.write_text("from dmu_hw.files import Settings as Base\n\n\nclass Settings(Base):\n    width: int = 3\n")
    course = opened({"network": {"model": "own.py", "width": 5}})
    assert course.config["network"] == {"model": str(file), "width": 5}
    assert course_of(course.config).network == course.network


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"network": {"model": "lattice", "chanels": 3}}, "lesson.yaml.*network.*unknown key 'chanels'"),
        ({"network": {"model": "own.py"}}, "network.model.*there is no file"),
        ({"exposure_ms": None}, "one of exposure_ms, total_exposure_ms, dose_ms, peak_ms is wanted, given none"),
        ({"dose_ms": 1.0}, "one of exposure_ms, .* given exposure_ms and dose_ms"),
        ({"rig": "rig.yaml", "optics": {}}, "one of rig, optics is wanted, given rig and optics"),
        ({"schedule": {"updates": 4, "crop_px": 32, "margin_px": 16}}, "margin_px 16 leaves nothing of 32"),
        ({"schedule": {"updates": 4, "crop_px": 30}}, "crop_px must be a multiple of the tile of 4, given 30"),
        (
            {"patterns": {"count": 4, "camera_pixel": 4, "frozen": True, "cap": {"peak": 1}}},
            "patterns.cap is for binary",
        ),
        ({"task": {"kind": "segment", "stages": [1.0, 0.0, 0.0]}}, "stages must sum to 1 and head or joint be above 0"),
        ({"task": {"kind": "segment", "stages": [0.5, 0.5, 0.5]}}, "stages must sum to 1"),
    ],
)
def test_refused(opened: Callable[..., Course], changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=f"(?s){said}"):
        opened(changes)


def test_camera_pixels_nest(opened: Callable[..., Course], small: Any) -> None:
    coarse = small.optics.model_copy(update={"sensor_pixel_um": 1.5}).model_dump(mode="json")
    with pytest.raises(InputError, match="must be a multiple of 3, an unbinned camera pixel; given 4"):
        opened({"optics": coarse})


def test_a_configuration_without_optics(opened: Callable[..., Course]) -> None:
    config = opened({}).config | {"rig": "/somewhere/rig.yaml", "optics": None}
    with pytest.raises(InputError, match="the optics must stand in the configuration itself"):
        course_of(config)

"""The page of a calibration: what it says, what it shows, and that it stands for itself."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dmu_hw.physics.optics import Dye, GaussianPsf, Optics
from dmu_hw.routine import Curve, Finding
from dmu_hw.store import CheckRecord, Key, Record
from dmu_hw.view.amounts import named
from dmu_hw.view.calibration import Shown, calibration_page, gauge
from dmu_hw.view.pictures import Scale, arrows

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
PSF = GaussianPsf(sigma_um=0.3)
OPTICS = Optics(
    object_pixel_um=0.5, sensor_pixel_um=0.5, excitation=PSF, emission=PSF, dye=Dye(photons_per_um2_mw_ms=1.0)
)


def check(value: float | None = 0.05, **changes: Any) -> CheckRecord:
    given = {"name": "worst_px", "value": value, "warns": 0.1, "refuses": 0.3, "said": "pass", "advice": "<clean> it"}
    return CheckRecord(**{**given, **changes})


def record(day: int = 0, **changes: Any) -> Record:
    given: dict[str, Any] = {
        "key": Key(rig="small", objective="main", channel="red", routine="register"),
        "at": AT + timedelta(days=day),
        "valid_days": 7.0,
        "verdict": "pass",
        "checks": (check(),),
        "figures": {
            "worst_px": 0.05 + 0.01 * day,
            "scale_px_per_mirror": 1.0 + 0.001 * day,
            "chance": 2e-6,
            "odds": 9.98e-5,
        },
        "believed": OPTICS,
        "roles": ("camera",),
        "devices": "0" * 64,
        "sensor_shape": (32, 32),
        "mirrors_shape": (5, 6),
        "dose_mj_cm2": 12.0,
        "named": "register",
        "software": "test",
    }
    return Record(**{**given, **changes})


def finding() -> Finding:
    x = np.linspace(0, 10, 40)
    picture = np.random.default_rng(1).normal(size=(24, 32))
    return Finding(
        {},
        {},
        pictures={"left & over": picture, "all the same": np.ones((8, 8)), "nothing": np.full((4, 4), np.nan)},
        curves={"line": Curve(x, 3 * x, 3 * x + 0.1, "time / ms", "light"), "points": Curve(x, x, None, "x", "y")},
        marks={"left & over": np.array([[4.0, 5.0, 0.01, 0.0], [20.0, 9.0, 0.0, -0.02]]), "alone": np.ones((2, 4))},
    )


def shown(**changes: Any) -> Shown:
    history = tuple(record(day) for day in range(4))
    one = Shown("register", "red", history[-1], "", finding(), history[-2], history, "key: <value>\n")
    return replace(one, **changes)


class Reader(HTMLParser):
    """Text, and every place that something is loaded from."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        self.sources: list[str] = []
        self.tags: list[str] = []

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    return reader


def test_the_page_says_what_was_found_and_loads_nothing() -> None:
    page = read(calibration_page("daily", [shown()], {"recipe.yaml": "kind: calibration\n"}))
    text = " ".join(page.text.split())
    assert "register of red" in text
    assert "✓ Good, until 2026-03-11" in text
    assert "All good" in text
    for part in ("worst", "0.05 px", "≤ 0.1 px", "> 0.3 px", "1.003 px/mirror", "2 × 10⁻⁶", "1 × 10⁻⁴", "12 mJ/cm²"):
        assert part in text, part
    assert "key: <value>" in text
    assert "<clean>" not in text, "advice is for those who need it"
    assert all(source.startswith(("data:image/png;base64,", "#")) for source in page.sources)
    assert "script" not in page.tags
    assert "link" not in page.tags


def test_what_has_changed_since_the_last_good_result_is_told() -> None:
    text = read(calibration_page("daily", [shown()], {})).text
    assert "+0.001 px/mirror (0.1 %)" in text
    assert "since 2026-03-03" in text
    text = read(calibration_page("daily", [shown(before=None, history=(record(),))], {})).text
    assert "There is nothing to compare with yet." in text
    assert "since" not in text


def test_what_failed_is_seen_first() -> None:
    failed = record(verdict="refuse", checks=(check(0.5, said="refuse"), check(None, said="refuse")), figures={})
    lost = Shown("field", "red", None, "needs a good result of register", None, None, (), "")
    page = calibration_page("daily", [shown(record=failed, finding=None), lost, shown(channel="green")], {})
    text = " ".join(read(page).text.split())
    assert text.index("NOT ALL GOOD: register of red, field of red") < text.index("Overview")
    assert "1 of 3" in text
    assert "✗ No result: needs a good result of register" in text
    assert "<clean> it" in text
    assert "no number" in text
    assert "<title>daily, 2026-03-04" in page
    assert "(FAILED)</title>" in page


def test_pictures_curves_marks_and_drift_are_there() -> None:
    page = calibration_page("daily", [shown()], {})
    reader = read(page)
    assert reader.tags.count("img") == 4  # three pictures, and a blank one for marks that have none
    for caption in ("left & over", "all the same", "nothing", "alone", "line", "points"):
        assert caption in reader.text
    assert "arrows × " in reader.text
    drift = re.search(r'aria-label="register of red: drift over 4 results"', page)
    assert drift
    used = set(re.findall(r'(?:xlink:href="|url\()#([^")]+)', page))
    assert used
    assert [name for name in used if page.count(f' id="{name}"') != 1] == [], "plots must not take parts of one another"


def test_the_drift_shows_the_limits_and_every_point() -> None:
    history = (
        record(0),
        record(1, verdict="refuse", checks=(check(0.4, said="refuse"),)),
        record(2, verdict="refuse", checks=(), figures={}, why="dark"),
        record(3, verdict="warn", checks=(check(0.2, said="warn"),)),
    )
    from dmu_hw.view.drift import _courses

    course = next(course for course in _courses(history) if course.name == "worst_px")
    assert [(value, said) for _, value, said in course.points] == [(0.05, "pass"), (0.4, "refuse"), (0.2, "warn")]
    assert course.check is not None
    assert (course.check.warns, course.check.refuses) == (0.1, 0.3)


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({}, 10.0),
        ({"value": 0.1}, 20.0),
        ({"value": 1e9}, 100.0),
        ({"value": -1.0}, 0.0),
        ({"value": 0.9, "warns": 0.9, "refuses": 0.8}, 50.0),
        ({"value": 0.0, "warns": 0.0, "refuses": 10.0}, pytest.approx(4.8, abs=0.1)),
        ({"value": 1.0, "warns": 1.0, "refuses": 1.0}, 50.0),
    ],
)
def test_a_gauge_shows_where_a_value_lies(changes: dict[str, Any], place: float) -> None:
    markup = gauge(check(**{"value": 0.05, **changes}))
    found = re.search(r"--at: ([\d.]+)%", markup)
    assert found
    assert float(found[1]) == place
    one, two = (float(part) for part in re.findall(r"--(?:one|two): ([\d.]+)%", markup))
    assert 0 <= one <= two <= 100


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("worst_error_px", ("worst error", "px")),
        ("gain_adu_per_e", ("gain", "ADU/e⁻")),
        ("scale_px_per_mirror", ("scale", "px/mirror")),
        ("dose_mj_cm2", ("dose", "mJ/cm²")),
        ("part_per_cycle", ("part per cycle", "")),
        ("angle_deg", ("angle", "°")),
        ("e", ("e", "")),
    ],
)
def test_figures_are_named_with_their_units(name: str, told: tuple[str, str]) -> None:
    assert named(name) == told


def test_arrows_are_drawn_as_long_as_they_can_be() -> None:
    marks = np.array([[10.0, 10.0, 0.001, 0.0], [90.0, 10.0, 0.0, 0.002]])
    markup, factor = arrows((100, 100), marks)
    assert factor == 4000
    assert "M10.0 10.0L14.0 10.0" in markup
    assert arrows((100, 100), np.zeros((3, 4)))[1] == 1


def test_signs_have_two_colours_and_other_pictures_one_scale() -> None:
    signed = Scale.of_map(np.linspace(-1, 2, 100).reshape(10, 10))
    assert signed.low == -signed.high
    assert Scale.of_map(np.linspace(5, 9, 100)).low == pytest.approx(5, abs=0.1)
    few = np.zeros((100, 100))
    few[3, 4] = 1
    assert (Scale.of_map(few).low, Scale.of_map(few).high) == (0, 1)


def test_a_large_picture_is_made_small_enough_for_a_page(tmp_path: Path) -> None:
    large = Finding({}, {}, pictures={"chip": np.random.default_rng(2).normal(size=(2048, 2304))})
    page = calibration_page("daily", [shown(finding=large)], {})
    assert 'width="768" height="682"' in page

"""Markup, numbers and pictures that every report is made of."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dmu_hw.view.amounts import difference, digits, duration, size, span
from dmu_hw.view.page import Html, Section, page, tag, verbatim
from dmu_hw.view.pictures import Scale, bar_length_um, bilevel, lattice


def test_only_markup_stays_markup() -> None:
    assert tag("p", "<b>&", tag("b", "x"), None, 3) == "<p>&lt;b&gt;&amp;<b>x</b>3</p>"
    assert tag("img", alt='"><script>') == '<img alt="&quot;&gt;&lt;script&gt;">'
    assert tag("div", class_="a", aria_label="b", hidden=True, id=None) == '<div class="a" aria-label="b" hidden></div>'


def test_a_page_escapes_its_title_and_links_its_sections() -> None:
    text = page("<x>", [tag("h1", "<y>")], [Section("one", "One & all", (Html("<i>in</i>"),))])
    assert "<title>&lt;x&gt;</title>" in text
    assert "<h1>&lt;y&gt;</h1>" in text
    assert '<a href="#one">One &amp; all</a>' in text
    assert "<i>in</i>" in text
    assert "<x>" not in text


def test_a_huge_text_is_cut_and_says_so() -> None:
    assert "… and 90 more characters" in verbatim("file", "x" * 100, limit=10)
    assert "more characters" not in verbatim("file", "x" * 100, limit=100)


@pytest.mark.parametrize(
    ("shown", "wanted"),
    [
        (digits(27.639), "27.6"),
        (digits(12345.6), "12,346"),
        (digits(0.000123456), "0.000123"),
        (digits(5), "5"),
        (digits(100.0), "100"),
        (digits(0.0), "0"),
        (digits(-3.456), "-3.46"),
        (digits(float("nan")), "–"),
        (duration(0.11568), "116 ms"),
        (duration(5.98), "5.98 s"),
        (duration(83.4), "1 min 23 s"),
        (duration(11_520), "3 h 12 min"),
        (size(2_655_040), "2.66 MB"),
        (size(12), "12 bytes"),
        (difference(-2.13), "−2.1 dB"),
        (difference(0.46), "+0.5 dB"),
        (difference(-0.01), "0.0 dB"),
        (span([0, 1, 2, 3]), "0 to 3"),
        (span([0, 2]), "0, 2"),
        (span(list(range(0, 20, 2))), "0, 2, 4, 6, 8, 10 …"),
    ],
)
def test_numbers_for_people(shown: str, wanted: str) -> None:
    assert shown == wanted


@pytest.mark.parametrize(("width_um", "bar_um"), [(83.2, 20.0), (5.2, 1.0), (300.0, 100.0), (60.0, 20.0), (0.9, 0.2)])
def test_a_scale_bar_is_round_and_fits(width_um: float, bar_um: float) -> None:
    assert bar_length_um(width_um) == pytest.approx(bar_um)


def _decoded(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,"))))


def test_grey_runs_from_low_to_high_and_what_is_no_number_is_black() -> None:
    image = np.array([[100.0, 150.0, 200.0], [50.0, 900.0, np.nan]])
    assert np.asarray(_decoded(Scale(100.0, 200.0, "ADU").png(image))).tolist() == [[0, 128, 255], [0, 255, 0]]


def test_colours_get_brighter_all_the_way() -> None:
    scale = Scale(0.0, 255.0, "").coloured()
    grey = np.asarray(_decoded(scale.png(np.arange(256.0)[None])).convert("RGB").convert("L")).astype(int)
    assert (np.diff(grey) >= 0).all()
    assert np.ptp(grey) > 180


@pytest.mark.parametrize(
    ("images", "high"),
    [([np.array([103.0, 147.2])], 148.0), ([np.array([100.0])], 100.0), ([], 100.0)],
    ids=["round", "all black", "no image"],
)
def test_white_is_a_round_value_above_all(images: list[np.ndarray[Any, Any]], high: float) -> None:
    scale = Scale.over(images, 100.0, "ADU", percent=100)
    assert scale.high == pytest.approx(high, abs=1e-3)
    assert scale.high > scale.low


def test_patterns_stay_black_and_white() -> None:
    mask = np.eye(5, dtype=bool)
    picture = _decoded(bilevel(mask))
    assert picture.mode == "1"
    assert (np.asarray(picture) == mask).all()


def test_the_lattice_has_a_line_at_every_inner_border() -> None:
    assert 'd="M4 0V8M8 0V8M0 4H12"' in lattice((8, 12), 4)

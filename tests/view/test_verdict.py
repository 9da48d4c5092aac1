"""Sentences that say no more than the numbers."""

from __future__ import annotations

import pytest

from dmu_hw.view.verdict import BICUBIC, RECONSTRUCTION, SAME_INVERSE, verdict, verdict_section

PLAIN = "the plain camera's frame of the same compression and dose, enlarged bicubically,"
UNKNOWN = (None, "with a network of its own, trained as long, is not seen here")
SAME = "the same inverse on the plain camera's frame gives"
Said = list[tuple[bool | None, str]]
CASES: dict[str, tuple[dict[str, float], Said]] = {
    "better than both": (
        {RECONSTRUCTION: 30.0, BICUBIC: 27.0, SAME_INVERSE: 28.5},
        [
            (True, f"The reconstruction beats {PLAIN} by 3.0 dB (30.0 dB against 27.0 dB)."),
            (True, f"The patterns earn their place: {SAME} 28.5 dB, 1.5 dB less."),
        ],
    ),
    "a plain camera is better": (
        {RECONSTRUCTION: 27.75, BICUBIC: 25.62, SAME_INVERSE: 28.21},
        [
            (True, f"The reconstruction beats {PLAIN} by 2.1 dB"),
            (False, f"A plain camera is as good here: {SAME} 28.2 dB, 0.5 dB more."),
        ],
    ),
    "a plain camera is as good": (
        {RECONSTRUCTION: 28.0, BICUBIC: 26.0, SAME_INVERSE: 27.98},
        [(True, "by 2.0 dB"), (False, f"A plain camera is as good here: {SAME} 28.0 dB, just as much.")],
    ),
    "hardly better": (
        {RECONSTRUCTION: 26.4, BICUBIC: 26.0, SAME_INVERSE: 26.1},
        [(False, "by only 0.4 dB (26.4 dB against 26.0 dB): less than 1 dB."), (None, "only 0.3 dB less")],
    ),
    "exactly 1 dB": ({RECONSTRUCTION: 27.0, BICUBIC: 26.0}, [(True, "by 1.0 dB"), UNKNOWN]),
    "the same": ({RECONSTRUCTION: 26.0, BICUBIC: 26.01}, [(False, "is no better than"), UNKNOWN]),
    "worse": (
        {RECONSTRUCTION: 25.0, BICUBIC: 26.3},
        [(False, f"The reconstruction is worse than {PLAIN} by 1.3 dB (25.0 dB against 26.3 dB)."), UNKNOWN],
    ),
    "nothing to compare with": ({RECONSTRUCTION: 25.0}, [(None, "25.0 dB; no plain camera's frame was taken")]),
    "no complete burst": ({}, [(False, "No burst of which the truth is known is complete")]),
}


@pytest.mark.parametrize(("metrics", "expected"), CASES.values(), ids=CASES.keys())
def test_verdict(metrics: dict[str, float], expected: list[tuple[bool | None, str]]) -> None:
    judged = verdict(metrics, reconstructed=True, truth_known=True)
    assert [one.good for one in judged] == [good for good, _ in expected]
    for one, (_, text) in zip(judged, expected, strict=True):
        assert text in one.text
    assert all(
        one.text in verdict_section(judged, metrics, complete=True).html.replace("&#x27;", "'") for one in judged
    )


def test_what_cannot_be_judged_is_said() -> None:
    metrics = {RECONSTRUCTION: 30.0}
    (recorded,) = verdict(metrics, reconstructed=False, truth_known=True)
    (real,) = verdict(metrics, reconstructed=True, truth_known=False)
    assert "recorded only" in recorded.text
    assert "not judged" in real.text
    assert recorded.good is real.good is None


def test_missing_bursts_are_said_beside_the_numbers() -> None:
    metrics = {RECONSTRUCTION: 30.0}
    judged = verdict(metrics, reconstructed=True, truth_known=True)
    assert "left out" in verdict_section(judged, metrics, complete=False).html
    assert "left out" not in verdict_section(judged, metrics, complete=True).html


def test_objects_are_judged_as_objects() -> None:
    metrics = {"Dice": 0.912, "AP@0.5": 0.634, "count error": 0.081}
    (judged,) = verdict(metrics, reconstructed=True, truth_known=True, segmented=True)
    assert judged.good is None
    for number in ("91% of their area", "63% are found", "8% off"):
        assert number in judged.text
    html = verdict_section([judged], metrics, complete=False).html
    assert "0.634" in html
    assert "left out" in html
    assert "PSNR" not in html
    (real,) = verdict({}, reconstructed=True, truth_known=False, segmented=True)
    assert "objects that were found are shown, not judged" in real.text
    (gaps,) = verdict({}, reconstructed=True, truth_known=True, segmented=True)
    assert gaps.good is False

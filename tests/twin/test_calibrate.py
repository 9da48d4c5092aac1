"""Measure → fit → judge → store → believe, with a routine that is as small as can be."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dmu_hw.belief import believe
from dmu_hw.calibrate import Outcome, fit_again
from dmu_hw.errors import InputError
from dmu_hw.recipe import load_recipe
from dmu_hw.rig import Rig, load_rig
from tests.twin.rigs import Drawn, draw_rig, measured, store_of

ROUTINE = """
import numpy as np
from dmu_hw.files import Positive, Settings
from dmu_hw.routine import Check, Evidence, Finding, FitError


class LevelSettings(Settings):
    most_adu: Positive = 1000.0
    fail: bool = False


class Routine:
    Settings = LevelSettings
    sample, needs, devices, per_channel, valid_days = "dark", (), ("camera",), False, 7.0

    def __init__(self, settings):
        self.settings = settings

    def measure(self, instrument):
        instrument.progress(1, 1)
        return Evidence({"frames": instrument.dark(1.0, 4)}, {"exposure_ms": 1.0})

    def fit(self, evidence, optics):
        if self.settings.fail:
            raise FitError("nothing fits")
        level = float(np.median(evidence.arrays["frames"]))
        return Finding({"sensor": {"offset_adu": level}}, {"offset_adu": level}, {"map": evidence.arrays["frames"][0]})

    def judge(self, finding):
        return (Check("offset_adu", finding.figures["offset_adu"], self.settings.most_adu, 2 * self.settings.most_adu),)
"""


@pytest.fixture(name="drawn")
def _drawn(tmp_path: Path) -> Drawn:
    (tmp_path / "sensor.py").write_text(ROUTINE)
    return draw_rig(3, tmp_path, calibration={"results": "results", "demand": ["sensor"]})


def calibrated(drawn: Drawn, **settings: Any) -> Outcome:
    (outcome,) = measured(drawn, {"routine": "sensor.py", **settings})
    return outcome


def again(drawn: Drawn) -> Rig:
    return Rig(load_rig(drawn.path))


def test_what_was_measured_is_believed(drawn: Drawn) -> None:
    with pytest.raises(InputError, match=r"there is no sensor in .*run `dmu calibrate` with a recipe"):
        believe(again(drawn))
    outcome = calibrated(drawn)
    assert outcome.good
    rig = again(drawn)
    beliefs = believe(rig)
    truth = drawn.world.truth.sensor.offset_adu
    assert abs(rig.optics.sensor.offset_adu - truth) <= 1
    assert rig.channels[""].optics == rig.optics == beliefs[""].optics
    assert beliefs[""].hashes == {"sensor": outcome.result.hash if outcome.result else ""}


def test_the_evidence_can_be_fitted_again(drawn: Drawn) -> None:
    outcome = calibrated(drawn)
    assert outcome.result is not None
    finding, record = fit_again(load_recipe(drawn.path.with_name("recipe.yaml")).measures[0], outcome.result)
    assert finding is not None
    assert dict(finding.figures) == record.figures == outcome.result.record.figures
    assert (record.verdict, record.why, record.again_of) == ("pass", "", outcome.result.hash)
    calibrated(drawn, fail=True)
    finding, record = fit_again(load_recipe(drawn.path.with_name("recipe.yaml")).measures[0], outcome.result)
    assert finding is None
    assert (record.verdict, record.why) == ("refuse", "nothing fits")


def test_results_are_never_overwritten(drawn: Drawn) -> None:
    first, second = calibrated(drawn), calibrated(drawn)
    assert first.result is not None
    assert second.result is not None
    assert second.before is not None
    assert second.before.folder == first.result.folder
    assert [result.folder for result in store_of(drawn).results(first.result.record.key)] == [
        first.result.folder,
        second.result.folder,
    ]


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"fail": True}, r"sensor failed: nothing fits; run `dmu calibrate`"),
        ({"most_adu": 1.0}, r"sensor failed: offset_adu is .* should be at most 1"),
    ],
)
def test_what_failed_is_kept_and_not_believed(drawn: Drawn, settings: dict[str, Any], match: str) -> None:
    assert calibrated(drawn).good
    failed = calibrated(drawn, **settings)
    assert not failed.good
    with pytest.raises(InputError, match=match):
        believe(again(drawn))


def test_what_is_stale_is_not_believed(drawn: Drawn) -> None:
    calibrated(drawn, valid_days=2)
    now = datetime.now(UTC)
    believe(again(drawn), now + timedelta(days=1.9))
    with pytest.raises(InputError, match="sensor was good until"):
        believe(again(drawn), now + timedelta(days=2.1))


def test_what_is_of_another_instrument_is_not_believed(drawn: Drawn) -> None:
    calibrated(drawn)
    text = drawn.path.read_text()
    camera = "  camera:\n    driver: simulated\n    connection: world\n"
    assert camera in text
    drawn.path.write_text(text.replace(camera, f"{camera}    flip_x: true\n"))
    believe(again(drawn))  # turned frames are of the same chip
    drawn.path.write_text(text.replace(camera, f"{camera}    readout_ms: 3.0\n"))
    with pytest.raises(InputError, match=r"sensor was measured when .* said otherwise of camera"):
        believe(again(drawn))


def test_what_was_tampered_with_is_not_read(drawn: Drawn) -> None:
    outcome = calibrated(drawn)
    assert outcome.result is not None
    facts = outcome.result.folder / "evidence.json"
    facts.write_text(json.dumps({"exposure_ms": 2.0}))
    with pytest.raises(InputError, match="is not what was stored"):
        outcome.result.evidence()

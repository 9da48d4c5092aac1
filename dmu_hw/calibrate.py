"""Measure → fit → judge → store, one routine after the other. What fails is kept too, and nothing builds upon it."""

from __future__ import annotations

import json
import math
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dmu_hw import __version__
from dmu_hw.belief import Belief, Beliefs, devices_hash, key_of, laid_over
from dmu_hw.data import Progress
from dmu_hw.dump import dump_yaml
from dmu_hw.errors import DeviceError, InputError
from dmu_hw.files import parse_yaml
from dmu_hw.guard import Guard
from dmu_hw.instrument import Instrument
from dmu_hw.physics.optics import Optics
from dmu_hw.ports import Holder
from dmu_hw.recipe import Measure
from dmu_hw.rig import Rig
from dmu_hw.routine import Check, Evidence, Finding, FitError, Sample, verdict
from dmu_hw.store import CheckRecord, Record, Result, Store
from dmu_hw.wheels import Wheels

Ask = Callable[[Sample], None]
"""Called before a routine needs another sample; returns when it lies there."""


@dataclass(frozen=True)
class Outcome:
    """What came of one step."""

    routine: str
    channel: str
    """`all` where it makes no difference."""
    result: Result | None
    """None: it was not tried, or nothing was measured."""
    finding: Finding | None
    """None: nothing could be fitted."""
    before: Result | None
    """The last good result, to compare with."""
    skipped: str = ""
    """Why there is no result."""

    @property
    def good(self) -> bool:
        return self.result is not None and self.result.record.verdict != "refuse"


class Calibration:
    """Takes an opened rig through measures."""

    def __init__(self, rig: Rig, store: Store, guard: Guard, ask: Ask) -> None:
        self._rig = rig
        self._store = store
        self._guard = guard
        self._ask = ask
        self._sample: Sample | None = None
        self.light_on_ms = 0.0
        """So far, on the rig's clock."""

    def run(self, measure: Measure, channel: str, progress: Progress) -> Outcome:
        """One routine in one channel: `channel` is where the light comes from even if it makes no difference."""
        routine = measure.routine
        beliefs = Beliefs(self._rig, self._store, datetime.now(UTC))
        belief = beliefs.of_chip(channel)
        key = key_of(self._rig.file, channel, measure.name, per_channel=routine.per_channel)
        before = self._store.last_good(key)
        lacking = [name for name in routine.needs if name not in belief.results]
        if lacking:
            why = f"needs a good result of {' and '.join(lacking)}"
            return Outcome(measure.name, key.channel, None, None, before, why)
        self._put(routine.sample)
        at = datetime.now(UTC)
        instrument = self._instrument(channel, belief, progress)
        try:
            evidence = routine.measure(instrument)
        except DeviceError as error:
            if self._guard.fault:
                raise  # no light is lit again
            return Outcome(measure.name, key.channel, None, None, before, str(error))
        finally:
            self.light_on_ms += instrument.light_on_ms
        finding, judged = _judged(measure, evidence, belief.optics)
        record = Record(
            **judged,
            key=key,
            at=at,
            believed=belief.optics,
            roles=routine.devices,
            devices=devices_hash(self._rig.file, routine.devices),
            sensor_shape=self._rig.camera.sensor_shape,
            mirrors_shape=self._rig.dmd.shape,
            stands_on={name: belief.results[name].hash for name in routine.needs},
            dose_mj_cm2=instrument.dose_mj_cm2,
            software=f"dmu-hw {__version__}",
        )
        result = self._store.add(record, evidence, {} if finding is None else finding.arrays)
        return Outcome(measure.name, key.channel, result, finding, before)

    def _instrument(self, channel: str, belief: Belief, progress: Progress) -> Instrument:
        chosen = self._rig.channels[channel]
        Wheels(self._rig).select(chosen)
        self._rig.mechanics = belief.mechanics  # so that waits are long enough; the devices keep to what they are told
        self._rig.curves = {} if belief.curve is None else {chosen.light: belief.curve}
        return Instrument(self._rig, chosen, belief.optics, self._guard, progress)

    def _put(self, sample: Sample) -> None:
        """Under the objective, by the instrument itself or by somebody's hands; the light is off meanwhile."""
        if sample in ("any", self._sample):
            return
        self._guard.off()
        holder = next((link for link in self._rig.connections if isinstance(link, Holder)), None)
        if holder is not None and (sample == "specimen" or sample in holder.holds):
            holder.hold(None if sample == "specimen" else sample)
        else:
            self._ask(sample)
        self._sample = sample


@contextmanager
def sample_put_back(rig: Rig) -> Iterator[None]:
    """A rig that changes samples by itself is left with the one that runs image."""
    try:
        yield
    finally:
        for link in rig.connections:
            if isinstance(link, Holder):
                link.hold(None)


def fit_again(measure: Measure, result: Result) -> tuple[Finding | None, Record]:
    """Fit and judge what was measured then, without the instrument: what was found, and what would be stored now."""
    finding, judged = _judged(measure, result.evidence(), result.record.believed)
    update = {**judged, "software": f"dmu-hw {__version__}", "again_of": result.hash, "hashes": {}, "seal": ""}
    return finding, result.record.model_copy(update=update)


def _judged(measure: Measure, evidence: Evidence, optics: Optics) -> tuple[Finding | None, dict[str, Any]]:
    """What was found, and what a record says of it."""
    finding, why, checks = _fitted(measure, evidence, optics)
    return finding, {
        "verdict": "refuse" if finding is None else verdict(checks),
        "why": why,
        "checks": tuple(_recorded(check) for check in checks),
        "figures": {} if finding is None else {name: float(value) for name, value in finding.figures.items()},
        "optics": {} if finding is None else json.loads(json.dumps(dict(finding.optics))),
        "named": measure.named,
        "settings": measure.settings.model_dump(mode="json"),
        "valid_days": measure.valid_days,
    }


def _fitted(measure: Measure, evidence: Evidence, optics: Optics) -> tuple[Finding | None, str, tuple[Check, ...]]:
    """What was found and how it was judged; without a finding, why there is none."""
    try:
        finding = measure.routine.fit(evidence, optics)
        odd = [name for name, value in finding.figures.items() if not math.isfinite(value)]
        if odd:
            return None, f"the fit gave no number for {', '.join(odd)}", ()
        laid_over(optics, _as_stored(finding.optics, measure), optics.sensor_pixel_um, Path(measure.named))
        return finding, "", measure.routine.judge(finding)
    except FitError as error:
        return None, str(error), ()
    except InputError as error:
        return None, f"what was found is no optics: {'; '.join(map(str, error.problems))}", ()
    except Exception as error:  # noqa: BLE001 - a routine may come from anybody, and what was measured can be fitted again
        frame = traceback.extract_tb(error.__traceback__)[-1]
        return None, f"the fit broke off at {frame.filename}:{frame.lineno}: {type(error).__name__}: {error}", ()


def _as_stored(found: Mapping[str, Any], measure: Measure) -> dict[str, Any]:
    """What whoever reads a result is told of its optics."""
    text = dump_yaml({"optics": json.loads(json.dumps(dict(found)))})
    given: dict[str, Any] = parse_yaml(text, Path(measure.named)).value["optics"]
    return given


def _recorded(check: Check) -> CheckRecord:
    kept: dict[str, Any] = asdict(check)
    kept["value"] = float(check.value) if math.isfinite(check.value) else None
    return CheckRecord(**kept, said=check.said)

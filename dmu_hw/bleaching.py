"""How the dye of a run faded with its light, from one frame with the same pattern every so many bursts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dmu_hw.journal import read_journal
from dmu_hw.ledger import as_lit
from dmu_hw.omezarr import Store
from dmu_hw.plan import Plan, Take
from dmu_hw.runfolder import RunFolder

_SURE = 2.0
"""Standard errors that a decay must have to be called one."""


@dataclass(frozen=True)
class Bleaching:
    """What is left of the dye after a dose D is exp(-loss·D); both where the references look."""

    references: int
    """Frames that tell of it."""
    loss_per_mj_cm2: float
    standard_error: float | None
    """None where two frames fit any decay, so that nothing tells how sure it is."""
    left: float
    """Of the signal, after the dose of the whole run; of the field that got most."""

    @property
    def dose_mj_cm2(self) -> float | None:
        """Dose after which 1/e is left; None where the run does not tell that anything faded."""
        error = self.standard_error
        return None if error is None or self.loss_per_mj_cm2 <= _SURE * error else 1 / self.loss_per_mj_cm2

    def as_json(self) -> dict[str, float | int | None]:
        return {
            "references": self.references,
            "loss_per_mj_cm2": self.loss_per_mj_cm2,
            "standard_error": self.standard_error,
            "dose_to_1_e_mj_cm2": self.dose_mj_cm2,
            "left": self.left,
        }


def bleaching_of(run: RunFolder, plan: Plan) -> Bleaching | None:
    """The decay that all fields of a channel together tell; None without two references of a field that give light.
    Light of other channels is taken to leave its dye as it is."""
    take = plan.takes["bleaching"]
    store = Store(run.frames_of("bleaching", take.channel))
    parts = _parts_seen(plan, take)
    doses: dict[int, float] = {}
    before: dict[int, float] = {}
    for line in as_lit(read_journal(run.journal)):
        if line.get("channel", "") != take.channel:
            continue
        dose = line["dose_mj_cm2"] * parts.get(line["dose_mj_cm2"], 1.0)
        if plan.shots[line["shot"]].role == "bleaching":
            before[line["shot"]] = doses.get(line["field"], 0.0) + dose / 2
        doses[line["field"]] = doses.get(line["field"], 0.0) + dose
    background = _dark_adu(plan, take)
    fields: dict[int, list[tuple[float, float]]] = {}
    for index, dose in before.items():
        shot = plan.shots[index]
        if np.isfinite(np.asarray(store.times(shot.position)[shot.time, :, shot.z])).all():
            signal = float(store.burst(shot.position, shot.time, shot.z).mean()) - background
            fields.setdefault(shot.position, []).append((dose, signal))
    return fitted(list(fields.values()), max(doses.values(), default=0.0))


def fitted(fields: Sequence[Sequence[tuple[float, float]]], dose_mj_cm2: float) -> Bleaching | None:
    """One rate for all fields, a brightness of its own for each: least squares on the logarithms of (dose, signal)."""
    doses: list[float] = []
    logs: list[float] = []
    free = -1
    for field in fields:
        lit = [(dose, math.log(signal)) for dose, signal in field if signal > 0]
        if len(lit) > 1:
            centred = np.array(lit) - np.mean(lit, axis=0)
            doses += list(centred[:, 0])
            logs += list(centred[:, 1])
            free += len(lit) - 1
    spread = float(np.dot(doses, doses))
    if not spread > 0:
        return None
    loss = -float(np.dot(doses, logs)) / spread
    rest = np.array(logs) + loss * np.array(doses)
    error = math.sqrt(float(np.dot(rest, rest)) / free / spread) if free > 0 else None
    return Bleaching(len(doses), loss, error, math.exp(-loss * dose_mj_cm2))


def _parts_seen(plan: Plan, reference: Take) -> dict[float, float]:
    """For each dose that is booked, how much more of it falls where the reference looks than on the mean of the field:
    its pattern lights the same places every time, and no other frame tells of those that it does not light."""
    leakage = plan.optics.mirrors.leakage
    looks = reference.stack.masks[0] + (1 - reference.stack.masks[0]) * leakage
    takes = [*plan.takes.values(), *([] if plan.focus_take is None else [plan.focus_take])]
    parts: dict[float, float] = {}
    for take in takes:
        lit = (take.stack.masks + (1 - take.stack.masks) * leakage).sum(axis=0)
        parts[take.dose_mj_cm2] = float(np.mean(lit * looks) / (np.mean(lit) * np.mean(looks)))
    return parts


def _dark_adu(plan: Plan, take: Take) -> float:
    """What a camera pixel says in light without dye: the converter's offset, and light that no dye gives."""
    sensor, side_um = plan.optics.sensor, take.mode.binning * plan.optics.sensor_pixel_um
    per_um2 = plan.optics.dye.background_photons_per_um2_mw_ms * take.power_mw * take.mode.exposure_ms
    return sensor.offset_adu + sensor.gain_adu_per_e * sensor.quantum_efficiency * per_um2 * side_um**2

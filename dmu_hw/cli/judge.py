"""How good a run's images are where the truth is known, and what a plain camera would have given for the same."""

from __future__ import annotations

import numpy as np

from dmu_hw.cli.session import Session
from dmu_hw.cli.truth import Truth
from dmu_hw.metrics import mse
from dmu_hw.omezarr import Store
from dmu_hw.plan import Plan, Role
from dmu_hw.reconstruct import Calibrated, Reconstructor, Window, enlarged
from dmu_hw.runfolder import RunFolder


def judge(run: RunFolder, session: Session, truth: Truth) -> dict[str, float]:
    """PSNR in dB over all fields whose truth was kept: the run's images, and its plain-camera references if any."""
    reconstructed = Store(run.reconstruction)
    errors: dict[str, list[float]] = {"reconstruction": []}
    for (field, time, plane), image in truth.images.items():
        errors["reconstruction"].append(mse(reconstructed.burst(field, time, plane)[0], image))
    if "plain" in session.plan.takes:
        errors |= _plain_errors(run, session, truth)
    return {f"PSNR {name} / dB": _db(values) for name, values in errors.items() if np.isfinite(values).any()}


def window_of(plan: Plan, role: Role) -> Window:
    """How a plan looks at the sample in one of its roles."""
    take = plan.takes[role]
    field_px = plan.protocol.field_px
    return Window(plan.optics, field_px, plan.centre_um, take.power_mw, take.mode.exposure_ms)


def _plain_errors(run: RunFolder, session: Session, truth: Truth) -> dict[str, list[float]]:
    """The plain camera's frames, enlarged, and decoded by the same inverse model."""
    plan, take = session.plan, session.plan.takes["plain"]
    side = take.mode.binning * plan.optics.sensor_ratio
    window = window_of(plan, "plain")
    calibrated = Calibrated(window, side)
    errors: dict[str, list[float]] = {"plain camera, bicubic": []}
    decoder = None
    if session.protocol.inverse is not None:
        decoder = Reconstructor(session.fitted(take.stack_on(side), take.mode.exposure_ms), window)
        errors["plain camera, same inverse"] = []
    store = Store(run.frames_of("plain"))
    for (field, time, plane), image in truth.images.items():
        frame = store.burst(field, time, plane)
        errors["plain camera, bicubic"].append(mse(enlarged(calibrated, frame[0]), image))
        if decoder is not None:
            errors["plain camera, same inverse"].append(mse(decoder.estimate(frame).image, image))
    return errors


def _db(errors: list[float]) -> float:
    return float(-10 * np.log10(np.nanmean(errors)))

"""How good a run's images are where the truth is known, and what a plain camera would have given for the same."""

from __future__ import annotations

import math

import numpy as np

from dmu_hw.cli.session import Session
from dmu_hw.cli.truth import Place, Truth
from dmu_hw.data import Float32Array, Uint16Array
from dmu_hw.metrics import average_precision, count_error, dice, mse
from dmu_hw.omezarr import Labels, Store
from dmu_hw.plan import Take
from dmu_hw.reconstruct import Calibrated, Reconstructor, enlarged
from dmu_hw.runfolder import RunFolder
from dmu_hw.view.window import window_of


def judge(run: RunFolder, session: Session, truth: Truth) -> dict[str, float]:
    """Of the only channel of a session: means over all places whose truth was kept and of which no frame is missing."""
    if Store(run.reconstruction).labelled:
        return _judge_objects(run, session, truth)
    return _judge_images(run, session, truth)


def _judge_objects(run: RunFolder, session: Session, truth: Truth) -> dict[str, float]:
    """How near the objects are to the true ones. The image that they were found in is not judged: what a segmenter
    looks at has been trained for it, not for people."""
    name = session.plan.takes["patterns"].channel
    objects, frames = Labels(run.reconstruction), Store(run.frames_of("patterns", name))
    scores: dict[str, list[float]] = {}
    for place, true in truth.labels.items():
        if not (_whole(frames, place) and _whole(objects, place)):
            continue
        found = objects.burst(*place)[0]
        scores.setdefault("Dice", []).append(dice(found > 0, true > 0))
        scores.setdefault("AP@0.5", []).append(average_precision(found, true))
        scores.setdefault("count error", []).append(count_error(found, true))
    return {name: float(np.mean(values)) for name, values in scores.items()}


def _judge_images(run: RunFolder, session: Session, truth: Truth) -> dict[str, float]:
    """PSNR in dB of the run's images, and of its plain-camera references if any."""
    take, name = session.plan.takes.get("plain"), session.plan.takes["patterns"].channel
    images, frames = Store(run.reconstruction), Store(run.frames_of("patterns", name))
    channel = images.channel(name)
    plain = Store(run.frames_of("plain", name)) if take is not None else None
    rival = _PlainCamera(session, take) if take is not None else None
    errors: dict[str, list[float]] = {}
    for place, true in truth.images.items():
        if not all(_whole(store, place) for store in (frames, images, plain) if store is not None):
            continue
        made = {"reconstruction": images.burst(*place)[channel]}
        if plain is not None and rival is not None:
            made |= rival.images(plain.burst(*place))
        for name, image in made.items():
            errors.setdefault(name, []).append(mse(image, true))
    means = {name: float(np.mean(values)) for name, values in errors.items()}
    return {f"PSNR {name} / dB": -10 * math.log10(mean) for name, mean in means.items() if mean > 0}


def _whole(store: Store, place: Place) -> bool:
    field, time, plane = place
    return not np.isnan(np.asarray(store.times(field)[time, :, plane])).any()


class _PlainCamera:
    """Uniform light on smaller pixels, enlarged, and decoded by the same inverse model."""

    def __init__(self, session: Session, take: Take) -> None:
        kit, window = session.kit, window_of(session.plan, "plain")
        side = take.mode.binning * kit.channel.optics.sensor_ratio
        self.calibrated = Calibrated(window, side)
        self.decoder: Reconstructor | None = None
        if kit.protocol.inverse is not None:
            fitted = kit.fitted(session.path, take.stack_on(side), take.mode.exposure_ms)
            self.decoder = Reconstructor(fitted, window)

    def images(self, frame: Uint16Array) -> dict[str, Float32Array]:
        """What it makes of one (pattern, y, x) burst of a single frame."""
        found = {"plain camera, bicubic": enlarged(self.calibrated, frame[0])}
        if self.decoder is not None:
            found["plain camera, same inverse"] = self.decoder.estimate(frame).image
        return found

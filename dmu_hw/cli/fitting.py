"""From a protocol's `inverse` to a bundle, for models that are computed rather than trained."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from dmu_hw.bundle import Bundle, Header
from dmu_hw.data import PatternStack
from dmu_hw.errors import InputError
from dmu_hw.files import Settings, content_hash
from dmu_hw.physics.optics import Optics
from dmu_hw.reconstruct import Fitted, model_class


def fitted_bundle(
    model: str, settings: Settings, stack: PatternStack, optics: Optics, power_mw: float, exposure_ms: float
) -> Bundle:
    """Compute the weights and put them with what they assume."""
    found = model_class(model, where="inverse.model", folder=Path())
    if not hasattr(found, "fit"):
        raise InputError(f"inverse.model: {model!r} must be trained, not computed: use a bundle")
    weights = cast("type[Fitted]", found).fit(settings, stack, optics, power_mw, exposure_ms)
    header = Header(
        name=f"{Path(model).stem}-{stack.name}-{stack.count}x{stack.camera_pixel}",
        model=model,
        model_settings=settings.model_dump(mode="json"),
        patterns_name=stack.name,
        pattern_hashes=stack.hashes,
        tile_px=stack.tile_px,
        camera_pixel=stack.camera_pixel,
        optics=optics,
        power_mw=power_mw,
        exposure_ms=exposure_ms,
        dose_mj_cm2=optics.dose_mj_cm2(power_mw, exposure_ms) * float(stack.masks.mean(axis=(1, 2)).sum()),
        trained_on=f"scenes of settings {content_hash(settings)[:16]}",
    )
    return Bundle(header, stack, weights)

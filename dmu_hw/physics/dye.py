"""How dye answers light: saturation and bleaching."""

from __future__ import annotations

import torch
from torch import Tensor

from dmu_hw.physics.optics import Dye


def saturated(illumination: Tensor, power_mw: float, dye: Dye) -> Tensor:
    """Emission for a relative illumination: linear while the power is low, levelling off above `saturation_mw`."""
    if dye.saturation_mw is None:
        return illumination
    return illumination / (1 + illumination * (power_mw / dye.saturation_mw))


def bleached(specimen: Tensor, dose_mj_cm2: Tensor, dye: Dye) -> Tensor:
    """What is left of the dye after a dose."""
    if dye.bleach_dose_mj_cm2 is None:
        return specimen
    return specimen * torch.exp(-dose_mj_cm2 / dye.bleach_dose_mj_cm2)

"""The light that each field has been given. Booked on the disk before the light goes on: after a crash one burst too
many may be counted, never one too few."""

from __future__ import annotations

from dmu_hw.journal import Journal
from dmu_hw.patience import patiently
from dmu_hw.physics.optics import Optics
from dmu_hw.plan import Plan, Shot, Take
from dmu_hw.rig import RigSettings

_ROUNDING = 1e-9
"""Sums of equal doses are not exact: a cap of exactly what the plan takes is none."""
_PHOTONS_PER_MJ_CM2_NM = 1e-3 / 1e8 * 1e-9 / (6.62607015e-34 * 299_792_458.0)
"""Photons per µm² in 1 mJ/cm² of light of 1 nm: energy per area by h·c/λ."""


class Ledger:
    """Books bursts, and refuses those that would exceed what protocol or rig allow a field."""

    def __init__(self, journal: Journal, plan: Plan, rig: RigSettings, dose_mj_cm2: dict[int, float]) -> None:
        """`dose_mj_cm2` is what each field was given so far; it is kept up to date."""
        self.journal = journal
        self.dose_mj_cm2 = dose_mj_cm2
        self._optics = plan.optics
        caps = {"the protocol": plan.protocol.budget.dose_mj_cm2, f"rig {rig.name}": rig.limits.dose_mj_cm2}
        self._caps = {who: cap for who, cap in caps.items() if cap is not None}

    def refusal(self, shot: Shot, take: Take) -> str:
        """Why this burst must not be taken; empty if it may."""
        after = self.dose_mj_cm2.get(shot.position, 0.0) + take.dose_mj_cm2
        for who, cap in self._caps.items():
            if after > cap * (1 + _ROUNDING):
                return f"the dose of its field would be {after:.6g} mJ/cm², {who} allows {cap:g}"
        return ""

    def book(self, shot: Shot, attempt: int, take: Take) -> None:
        """Returns when the dose of a burst is on the disk; only then may its light go on."""
        dose = take.dose_mj_cm2
        self.dose_mj_cm2[shot.position] = self.dose_mj_cm2.get(shot.position, 0.0) + dose
        line = {
            "shot": shot.index,
            "attempt": attempt,
            "field": shot.position,
            "dose_mj_cm2": dose,
            "photons_per_um2": photons_per_um2(self._optics, dose),
            "light_ms": take.burst_ms,
        }

        def write() -> None:
            self.journal.add("light", **line)
            self.journal.sync()

        patiently(write, self.journal.path)


def photons_per_um2(optics: Optics, dose_mj_cm2: float) -> float | None:
    """A dose as photons at the sample; None where the excitation is a plain blur of no known wavelength."""
    wavelength_nm: float | None = getattr(optics.excitation, "wavelength_nm", None)
    return None if wavelength_nm is None else dose_mj_cm2 * wavelength_nm * _PHOTONS_PER_MJ_CM2_NM

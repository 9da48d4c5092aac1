"""The light that each field has been given. Booked on the disk before the light goes on: after a crash one burst too
many may be counted, never one too few.

While the light of a burst is on, the next one is booked already, so that it need not wait for the disk in the dark.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from dmu_hw.errors import RunError
from dmu_hw.journal import Journal, Line
from dmu_hw.patience import awaited, in_the_background, patiently
from dmu_hw.physics.optics import Optics
from dmu_hw.plan import Plan, Shot, Take
from dmu_hw.rig import RigSettings

_ROUNDING = 1e-9
"""Sums of equal doses are not exact: a cap of exactly what the plan takes is none."""
_PHOTONS_PER_MJ_CM2_NM = 1e-3 / 1e8 * 1e-9 / (6.62607015e-34 * 299_792_458.0)
"""Photons per µm² in 1 mJ/cm² of light of 1 nm: energy per area by h·c/λ."""
_RETURN_S = 1.0
"""So long a booking may take whose burst was not taken; then it stays."""
log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class _Ahead:
    """A burst that was booked before its turn; the future ends when that is on the disk."""

    shot: Shot
    take: Take
    done: Future[None]

    def is_for(self, shot: Shot, take: Take) -> bool:
        return self.shot.index == shot.index and self.take is take


class Ledger:
    """Books bursts, and refuses those that would exceed what protocol or rig allow a field."""

    def __init__(
        self,
        journal: Journal,
        plan: Plan,
        rig: RigSettings,
        dose_mj_cm2: dict[int, float],
        given: dict[tuple[str, float], dict[int, int]] | None = None,
    ) -> None:
        """`dose_mj_cm2` is what each field was given so far, `given` how many bursts of each channel and dose; both are
        kept up to date."""
        self.given = {} if given is None else given
        self.journal = journal
        self.dose_mj_cm2 = dose_mj_cm2
        self._optics = {name: part.channel.optics for name, part in plan.parts.items()}
        caps = {"the protocol": plan.protocol.budget.dose_mj_cm2, f"rig {rig.name}": rig.limits.dose_mj_cm2}
        self._caps = {who: cap for who, cap in caps.items() if cap is not None}
        self._next: tuple[Shot, Take, float] | None = None
        self._ahead: _Ahead | None = None

    def refusal(self, shot: Shot, take: Take) -> str:
        """Why this burst must not be taken; empty if it may."""
        after = self.dose_mj_cm2.get(shot.position, 0.0) + take.dose_mj_cm2
        ahead = self._ahead
        if ahead is not None and ahead.shot.position == shot.position and not ahead.is_for(shot, take):
            after += ahead.take.dose_mj_cm2
        for who, cap in self._caps.items():
            if after > cap * (1 + _ROUNDING):
                return f"the dose of its field would be {after:.6g} mJ/cm², {who} allows {cap:g}"
        return ""

    def book(self, shot: Shot, attempt: int, take: Take) -> None:
        """Returns when the dose of a burst is on the disk; only then may its light go on."""
        ahead = self._ahead
        if ahead is not None and attempt == 0 and ahead.is_for(shot, take):
            self._ahead = None
            awaited(ahead.done, self.journal.path)
        else:
            patiently(self._writing(shot, attempt, take), self.journal.path)
        self.dose_mj_cm2[shot.position] = self.dose_mj_cm2.get(shot.position, 0.0) + take.dose_mj_cm2
        bursts = self.given.setdefault((take.channel, take.dose_mj_cm2), {})
        bursts[shot.position] = bursts.get(shot.position, 0) + 1

    # ---------------------------------------------------------------- one burst ahead

    def expect(self, shot: Shot, take: Take, kept_mj_cm2: float) -> None:
        """What comes next, to be booked by `book_next`; so much of what its field may have is kept for others."""
        self.give_back()
        self._next = (shot, take, kept_mj_cm2)

    def book_next(self) -> None:
        """To be called when the light of the burst before is on, for whose sake one too many could be counted until
        then. Waits for nothing."""
        if self._next is None:
            return
        (shot, take, kept_mj_cm2), self._next = self._next, None
        after = self.dose_mj_cm2.get(shot.position, 0.0) + kept_mj_cm2 + take.dose_mj_cm2
        if all(after <= cap for cap in self._caps.values()):
            done = in_the_background(self._writing(shot, 0, take, ahead=True), "disk")
            self._ahead = _Ahead(shot, take, done)

    def give_back(self) -> None:
        """No light comes of what is booked ahead: the journal says so. If it cannot, the dose stays booked."""
        ahead, self._ahead, self._next = self._ahead, None, None
        if ahead is None:
            return
        try:
            ahead.done.result(_RETURN_S)
            self.journal.add("unlit", **self._entry(ahead.shot, 0, ahead.take))
        except (RunError, TimeoutError) as error:
            what = f"{ahead.take.dose_mj_cm2:.4g} mJ/cm² that were not given"
            log.warning(
                "field %d: %s stay booked: %s", ahead.shot.position, what, str(error) or "the disk takes too long"
            )

    def _writing(self, shot: Shot, attempt: int, take: Take, **more: Any) -> Callable[[], None]:
        line = self._entry(shot, attempt, take) | more

        def write() -> None:
            self.journal.add("light", **line)
            self.journal.sync()

        return write

    def _entry(self, shot: Shot, attempt: int, take: Take) -> dict[str, Any]:
        dose = take.dose_mj_cm2
        return {
            "shot": shot.index,
            "attempt": attempt,
            "field": shot.position,
            "dose_mj_cm2": dose,
            "photons_per_um2": photons_per_um2(self._optics[take.channel], dose),
            "light_ms": take.burst_ms,
            **({"channel": take.channel} if take.channel else {}),
        }


def as_lit(lines: Iterable[Line]) -> Iterator[Line]:
    """Of a journal the lines of light in the order in which there was light, without what is known to be unlit."""
    ahead: Line | None = None
    for line in lines:
        kind = line["kind"]
        if ahead is not None and line.get("shot") == ahead["shot"] and kind in ("taken", "unlit"):
            if kind == "taken":
                yield ahead
            ahead = None
        if kind == "light":
            if not line.get("ahead"):
                yield line
                continue
            if ahead is not None:  # the end of a life of the run: nobody knows
                yield ahead
            ahead = line
    if ahead is not None:
        yield ahead


def photons_per_um2(optics: Optics, dose_mj_cm2: float) -> float | None:
    """A dose as photons at the sample; None where the excitation is a plain blur of no known wavelength."""
    wavelength_nm: float | None = getattr(optics.excitation, "wavelength_nm", None)
    return None if wavelength_nm is None else dose_mj_cm2 * wavelength_nm * _PHOTONS_PER_MJ_CM2_NM

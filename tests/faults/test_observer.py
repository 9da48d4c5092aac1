"""How much more the light of a burst tells than the judge finds: the same faults for an oracle that knows the specimen,
and for an observer that knows what specimens of its kind are like."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest
from lightbench import MARKER, LightBench
from observer import Observer, energy_of, oracle
from test_proof import CAMPAIGN_SEED, CASES, LIGHT, Taken, bursts, verdict

from dmu_hw.proof import REFUTED

Found = Counter[tuple[str, str, str, bool]]
"""Bursts by who looked at them, brightness, kind of fault, and whether a fault was found."""
WHO = {
    "judge": "the judge, who knows no specimen",
    "observer": "one who knows what specimens of its kind are like, and what may be wrong",
    "oracle": "one who knows the specimen itself",
}
SEEN = 8
"""Other specimens that the observer has seen."""


@dataclass
class Looked:
    found: Found = field(default_factory=Counter)
    margins: dict[tuple[str, str, bool], list[float]] = field(default_factory=dict)
    """Log-likelihood ratios by who, brightness, and whether the burst was faulty."""

    def add(self, who: str, taken: Taken, faulty: bool, worse: float) -> None:
        light = taken.row[-1]
        self.found[who, light, taken.row[0] if faulty else "good", worse > REFUTED] += 1
        self.margins.setdefault((who, light, faulty), []).append(worse)

    def told(self, who: str, light: str) -> str:
        kinds = dict.fromkeys(kind for _, _, kind, _ in self.found if kind != "good")
        counts = {kind: (self.found[who, light, kind, True], self.found[who, light, kind, False]) for kind in kinds}
        found, missed = (sum(count[i] for count in counts.values()) for i in (0, 1))
        parts = ", ".join(f"{kind} {yes}/{yes + no}" for kind, (yes, no) in counts.items())
        alarms = self.found[who, light, "good", True]
        good = alarms + self.found[who, light, "good", False]
        return f"{found / (found + missed):.2%}: {parts}; {alarms} of {good} good ones"


def look(count: int, cases: list[tuple[int, int, int]], scenes: range, rounds: int, seed: int) -> Looked:
    looked = Looked()
    for taken, observer in _observed(count, bursts(cases, scenes, rounds, seed)):
        right, energy = [*range(count), MARKER], energy_of(taken.bench, taken.electrons)
        for burst, faulty in ((taken.faulty, True), (taken.good, False)):
            refuted = verdict(taken.bench, burst, taken.electrons) in ("refuted", "doubted")
            looked.add("judge", taken, faulty, np.inf if refuted else 0.0)
            better = observer.fit(burst, taken.shown, energy) - observer.fit(burst, right, energy)
            looked.add("observer", taken, faulty, better)
            looked.add("oracle", taken, faulty, oracle(taken.bench, burst, taken.electrons))
    return looked


def _observed(count: int, taken: Iterator[Taken]) -> Iterator[tuple[Taken, Observer]]:
    """Where there is a specimen; a new observer for each bench, who never saw its specimen."""
    bench, observer = None, None
    for each in taken:
        if each.specimen is None or each.bench.count != count:
            continue
        if bench is not each.bench or observer is None:
            bench = each.bench
            others = [LightBench(bench.marker, bench.old, each.specimen, 10_000 + seed) for seed in range(SEEN)]
            observer = Observer(others)
        yield each, observer


def check(looked: Looked) -> None:
    for light in LIGHT:
        for who in ("observer", "oracle"):
            assert min(looked.margins[who, light, True]) > REFUTED, looked.told(who, light)
            assert max(looked.margins[who, light, False]) < 0, looked.told(who, light)


def test_who_knows_more_finds_all() -> None:
    check(look(4, [(4, 64, 24)], scenes=range(2, 3), rounds=1, seed=0))


@pytest.mark.campaign
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("count", [1, 4, 16])
def test_who_knows_more_finds_all_of_two_thousand(count: int, figure: Callable[..., None]) -> None:
    cases = [case for case in CASES if case[0] == count]
    looked = look(count, cases, scenes=range(7), rounds=2, seed=CAMPAIGN_SEED)
    for light in LIGHT:
        for who, words in WHO.items():
            value = looked.told(who, light)
            if who != "judge":
                least, most = min(looked.margins[who, light, True]), max(looked.margins[who, light, False])
                value += (
                    f"; log-likelihood of a fault against none {least:.0f} or more, of good ones {most:.0f} or less"
                )
            figure("R9", f"wrong patterns found, T = {count}, {light}, by {words}", value)
    check(looked)

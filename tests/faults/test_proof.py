"""Wrong patterns injected by the thousand: found by the light, or said to be unproven; good bursts pass.

The table is printed by `pytest -m campaign -s --figures tests/faults/test_proof.py`, its sums go into figures.md.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from fakes import lines_of, plan_of, run_plan
from hypothesis import assume, given
from hypothesis import strategies as st
from lightbench import BELIEF, DARK, MARKER, STALE, LightBench, marker_of, stack_of

from dmu_hw.bundle import Bundle
from dmu_hw.data import PatternStack, Uint16Array
from dmu_hw.marker import Marker, drawn_codes, exchanged
from dmu_hw.physics.patterns import PatternSet
from dmu_hw.physics.projection import onto_mirrors
from dmu_hw.proof import judge
from dmu_hw.rig import Rig

LIGHT = {"bright": 20_000.0, "dim": 400.0}
"""Electrons in the brightest pixels of a frame."""
DOSES_E = (400, 1600, 6400)
CASES = [
    *((1, compression, pixels) for compression, pixels in ((16, 64), (64, 64), (256, 48), (1024, 32))),
    *((4, compression, pixels) for compression, pixels in ((16, 64), (64, 64), (256, 48), (1024, 32))),
    *((16, compression, pixels) for compression, pixels in ((16, 64), (64, 48), (256, 32), (1024, 32))),
]
"""T, compression, camera pixels along a side."""
LEARNED = Path(__file__).parents[2] / "protocols" / "bundles" / "nuclei.dmu"
FILAMENTS = {"connections.world.specimen": {"kind": "filaments", "seed": 3}}
BRIGHT = {"power_mw": 20.0}
"""A field of the small rig in which light can tell all patterns."""
SPECIMENS = ("nuclei", "filaments", "beads", "nuclei", "filaments", "beads", None)
"""None: an empty field."""
TELLABLE = 8.0
"""Sigmas: who decides at five, with a false alarm in a million bursts, misses one fault of a thousand."""
CAMPAIGN_SEED = 101
"""What the judge is made of was chosen with other seeds."""


def faults(count: int, rng: np.random.Generator) -> Iterator[tuple[str, list[int]]]:
    """What was shown in a burst in which one thing went wrong."""
    right = [*range(count), MARKER]
    place = int(rng.integers(count))
    missing = right.copy()
    missing[place] = DARK
    yield "missing", missing
    yield "stale", [*(STALE - 1 - pattern for pattern in range(count)), STALE]
    yield "one ahead", [*right[1:], right[0]]
    yield "lost step", [*right[: place + 1], *right[place:-1]]
    yield "extra step", [*right[:place], *right[place + 1 :], DARK]
    if count == 1:
        return
    shift = int(rng.integers(1, count))
    yield "shifted", [*((pattern + shift) % count for pattern in range(count)), MARKER]
    one, other = (int(value) for value in rng.choice(count, 2, replace=False))
    swapped = right.copy()
    swapped[one], swapped[other] = other, one
    yield "swapped", swapped
    repeated = right.copy()
    repeated[one] = other
    yield "repeated", repeated


Row = tuple[str, int, str, str]
"""Kind of fault, T, compression, brightness."""


@dataclass
class Tally:
    """What the judge said, of all bursts and of the faulty ones that light can tell."""

    said: dict[Row, Counter[str]] = field(default_factory=dict)
    tellable: dict[Row, Counter[str]] = field(default_factory=dict)
    light: dict[tuple[int, str], float] = field(default_factory=dict)
    """Of the marker, as a part of the patterns' own, by T and kind of patterns."""

    def add(self, row: Row, said: str, sigmas: float = 0.0) -> None:
        self.said.setdefault(row, Counter())[said] += 1
        if sigmas > TELLABLE:
            self.tellable.setdefault(row, Counter())[said] += 1

    def sum(self, *, good: bool, light: str = "", count: int = 0, tellable: bool = False) -> Counter[str]:
        total: Counter[str] = Counter()
        for (kind, patterns, _, bright), said in (self.tellable if tellable else self.said).items():
            if (kind == "good") == good and light in ("", bright) and count in (0, patterns):
                total += said
        return total

    def table(self) -> str:
        head = [
            "what",
            "T",
            "compression",
            "light",
            "bursts",
            "refuted",
            "doubted",
            "undecided",
            "proven",
            "light could tell",
        ]
        lines = ["| " + " | ".join([*head, "found"]) + " |", "|---" * 11 + "|"]
        for row, said in sorted(self.said.items()):
            told = self.tellable.get(row, Counter())
            numbers = [said.total(), *(said[what] for what in ("refuted", "doubted", "undecided", "proven"))]
            cells = [*row, *numbers, told.total(), found(told)]
            lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
        return "\n".join(lines)


def judged(bench: LightBench, shown: list[int], electrons: float) -> str:
    return verdict(bench, bench.burst(shown, electrons), electrons)


def verdict(bench: LightBench, burst: list[Uint16Array], electrons: float) -> str:
    *frames, last = burst
    marker = marker_of(bench.marker.stack, bench.pixels, bench.power_mw(electrons))
    return judge(marker, dict(enumerate(frames)), last).said


def benches(
    cases: list[tuple[int, int, int]], scenes: range, seed: int
) -> Iterator[tuple[str, str | None, LightBench]]:
    """Compression, specimen and bench of each scene of each case; the learned patterns after them."""
    stacks = [
        (f"×{compression}", pixels, scene, stack_of(count, compression, _kind(count, scene)))
        for count, compression, pixels in cases
        for scene in scenes
    ]
    if len(cases) > 3:
        learned = Bundle.load(LEARNED).patterns
        stacks += [("learned ×64", 48, scene, learned) for scene in scenes]
    for name, pixels, scene, stack in stacks:
        marker = marker_of(stack, pixels)
        side = stack.camera_pixel
        keys = {"set": "random", "count": stack.count, "camera_pixel": side, "superpixel": max(1, side // 8)}
        old = marker_of(PatternSet.model_validate({**keys, "seed": scene + 1}).make(), pixels)
        chance = np.random.default_rng([seed, int(stack.hash[:8], 16), scene])
        specimen = SPECIMENS[scene % len(SPECIMENS)]
        yield name, specimen, LightBench(marker, old, specimen, seed=int(chance.integers(2**31)))


def _kind(count: int, scene: int) -> str:
    return "uniform" if count == 1 else ("hadamard", "random", "blocks")[scene % 3]


@dataclass(frozen=True, eq=False)
class Taken:
    """A burst in which something went wrong, and a good one of the same scene."""

    bench: LightBench
    specimen: str | None
    row: Row
    electrons: float
    shown: list[int]
    faulty: list[Uint16Array]
    good: list[Uint16Array]


def bursts(
    cases: list[tuple[int, int, int]],
    scenes: range,
    rounds: int,
    seed: int = 0,
    lights: Mapping[str, float] = MappingProxyType(LIGHT),
) -> Iterator[Taken]:
    """As many good bursts as faulty ones."""
    for compression, specimen, bench in benches(cases, scenes, seed):
        stack = bench.marker.stack
        chance = np.random.default_rng([seed, stack.count, stack.camera_pixel])
        shone = lights if specimen else {"empty": 400.0}  # then all light is of the background
        for light, electrons in shone.items():
            for fault, shown in (each for _ in range(rounds) for each in faults(stack.count, chance)):
                row = (fault, stack.count, compression, light)
                both = [bench.burst(order, electrons) for order in (shown, [*range(stack.count), MARKER])]
                yield Taken(bench, specimen, row, electrons, shown, *both)


def campaign(cases: list[tuple[int, int, int]], scenes: range, rounds: int, seed: int = 0) -> Tally:
    tally = Tally()
    for taken in bursts(cases, scenes, rounds, seed):
        bench, electrons, stack = taken.bench, taken.electrons, taken.bench.marker.stack
        tally.light[stack.count, stack.name] = bench.marker.light(0.0) / float(stack.masks.mean(axis=(1, 2)).sum())
        tally.add(taken.row, verdict(bench, taken.faulty, electrons), bench.told(taken.shown, electrons))
        tally.add(("good", *taken.row[1:]), verdict(bench, taken.good, electrons))
    return tally


# ---------------------------------------------------------------- what the marker is


@given(st.integers(1, 16), st.integers(4, 40), st.integers(4, 40), st.integers(1, 3), st.integers(0, 99))
def test_every_pattern_has_its_part_of_the_marker(count: int, rows: int, columns: int, cell: int, seed: int) -> None:
    stack = stack_of(count, 16, "random", seed)
    cells = -(-rows // cell) * -(-columns // cell)
    assume(cells > 2 * count)
    codes = drawn_codes(stack, (rows, columns), cell)
    assert codes.shape == (rows, columns)
    shown = range(count) if count > 1 else range(2)
    assert set(np.unique(codes)) == set(shown), "each pattern is there; the dark, where there is but one"
    whole = codes[: rows // cell * cell : cell, : columns // cell * cell : cell]
    assert (codes[: rows // cell * cell, : columns // cell * cell] == whole.repeat(cell, 0).repeat(cell, 1)).all()
    assert (codes == drawn_codes(stack, (rows, columns), cell)).all(), "the same patterns, the same marker"


def test_other_patterns_have_another_marker() -> None:
    one, other = (drawn_codes(stack_of(4, 16, "random", seed), (32, 32)) for seed in (1, 2))
    assert (one == other).mean() < 0.4


def test_the_mask_shows_in_each_pixel_its_pattern() -> None:
    marker = marker_of(stack_of(4, 16), 12)
    mask, side = marker.mask(), marker.stack.camera_pixel
    for (row, column), code in np.ndenumerate(marker.codes):
        seen = mask[row * side : (row + 1) * side, column * side : (column + 1) * side]
        assert (seen == (marker.stack.masks[code] if code < 4 else False)).all()
    assert marker.light(0.01) == pytest.approx(mask.mean() + 0.01 * (1 - mask.mean()))


def test_lit_is_the_part_of_pixels_that_show_a_pattern() -> None:
    for lit in (0.1, 0.5, 0.9):
        assert (marker_of(stack_of(4, 64), 32, lit=lit).codes < 4).mean() == pytest.approx(lit, abs=0.01)


def test_blur_crosses_the_borders_of_small_pixels_more() -> None:
    parts = [exchanged(side_um, BELIEF) for side_um in (1.0, 2.0, 4.0, 16.0)]
    assert parts == sorted(parts, reverse=True)
    assert 0.2 > parts[0] > 4 * parts[-1] > 0


# ---------------------------------------------------------------- what is judged


@pytest.fixture(scope="module")
def bench() -> LightBench:
    return LightBench(marker_of(stack_of(4, 64), 16), marker_of(stack_of(4, 64, "random", 5), 16), "filaments", 1)


@pytest.fixture(scope="module")
def empty() -> LightBench:
    marker = marker_of(stack_of(4, 64), 16)
    return LightBench(marker, marker_of(stack_of(4, 64, "random", 5), 16), None, 1)


def test_good_bursts_are_proven(bench: LightBench) -> None:
    assert {judged(bench, [0, 1, 2, 3, MARKER], 20_000.0) for _ in range(20)} == {"proven"}


@pytest.mark.parametrize("shift", [1, 2, 3])
def test_every_shift_is_refuted(bench: LightBench, shift: int) -> None:
    shown = [*((pattern + shift) % 4 for pattern in range(4)), MARKER]
    assert judged(bench, shown, 20_000.0) == "refuted"


def test_every_swap_and_every_step_that_is_lost_is_refuted(bench: LightBench) -> None:
    for one, other in combinations(range(4), 2):
        swapped = [0, 1, 2, 3, MARKER]
        swapped[one], swapped[other] = other, one
        assert judged(bench, swapped, 20_000.0) == "refuted"
    right = [0, 1, 2, 3, MARKER]
    for place in range(4):
        assert judged(bench, [*right[: place + 1], *right[place:-1]], 20_000.0) == "refuted"


@pytest.mark.parametrize("shown", [[0, 1, 2, 3, DARK], [0, 1, 2, 3, 3], [-4, -5, -6, -7, STALE], [DARK] * 5])
def test_a_marker_that_is_none_proves_nothing(bench: LightBench, shown: list[int]) -> None:
    assert judged(bench, shown, 20_000.0) != "proven"


@pytest.mark.parametrize("background", [0.0, 3.0, 50.0, 300.0])
def test_in_an_empty_field_nothing_is_proven_and_nothing_refuted(empty: LightBench, background: float) -> None:
    """Whatever is believed of its background."""
    marker = marker_of(empty.marker.stack, 16)
    rng = np.random.default_rng(2)
    for _ in range(20):
        frames = [rng.normal(100.0 + background, 1.5, (16, 16)).round().astype(np.uint16) for _ in range(5)]
        assert judge(marker, dict(enumerate(frames[:4])), frames[4]).said == "undecided"


def test_what_frames_are_left_are_judged(bench: LightBench) -> None:
    """A frame that the camera dropped says nothing about the others."""
    marker = marker_of(bench.marker.stack, 16, bench.power_mw(20_000.0))
    for shown, said in (([0, 1, 2, 3, MARKER], "proven"), ([1, 0, 2, 3, MARKER], "refuted")):
        *frames, last = bench.burst(shown, 20_000.0)
        kept = {pattern: frame for pattern, frame in enumerate(frames) if pattern != 2}
        assert judge(marker, kept, last).said == said
    assert judge(marker, {}, last).said == "undecided"


def test_blur_into_the_dark_is_no_fault() -> None:
    """Where a marker is to be lit in parts, what it shows loses light to the dark beside it."""
    marker = marker_of(stack_of(4, 16), 48, lit=0.3)
    bench = LightBench(marker, marker_of(stack_of(4, 16, "random", 5), 48), "beads", 4)
    judging = marker_of(marker.stack, 48, bench.power_mw(20_000.0), lit=0.3)
    for shown, said in (([0, 1, 2, 3, MARKER], "proven"), ([0, 2, 1, 3, MARKER], "refuted")):
        *frames, last = bench.burst(shown, 20_000.0)
        assert judge(judging, dict(enumerate(frames)), last).said == said


@pytest.mark.parametrize(
    ("stack", "pixels", "specimen", "seed", "electrons", "shown"),
    [
        (stack_of(4, 16), 48, "nuclei", 2, LIGHT["bright"], [0, 1, 1, 3, MARKER]),
        (stack_of(4, 16), 48, "nuclei", 2, LIGHT["bright"], [0, 1, 2, 1, MARKER]),
        (stack_of(16, 256, "blocks"), 32, "beads", 4, LIGHT["dim"], [*range(15), 3, MARKER]),
        (stack_of(16, 64, "blocks"), 48, "beads", 1, LIGHT["dim"], [*range(9), *range(10, 16), MARKER, DARK]),
        (stack_of(1, 1024, "uniform"), 32, "filaments", 2, LIGHT["dim"], [STALE - 1, STALE]),
    ],
    ids=["one of likes", "another of likes", "one of few spots", "no marker", "stale light"],
)
def test_frames_tell_where_the_marker_says_little(
    stack: PatternStack, pixels: int, specimen: str, seed: int, electrons: float, shown: list[int]
) -> None:
    """Frames that are too like each other, and light where the marker shows none."""
    old = stack_of(stack.count, stack.camera_pixel**2 // stack.count, "random", 5)
    bench = LightBench(marker_of(stack, pixels), marker_of(old, pixels), specimen, seed)
    assert {judged(bench, shown, electrons) for _ in range(4)} == {"refuted"}
    assert "refuted" not in {judged(bench, [*range(stack.count), MARKER], electrons) for _ in range(4)}


@pytest.mark.parametrize("electrons", LIGHT.values())
def test_frames_may_be_alike(electrons: float) -> None:
    """On stripes, patterns that differ only along the stripes give the same light: that is no fault."""
    bench = LightBench(marker_of(stack_of(4, 64), 32), marker_of(stack_of(4, 64, "random", 5), 32), "filaments", 3)
    stripes = 4 * bench.first.mean(dim=0, keepdim=True).expand_as(bench.first)
    bench.first = bench.last = stripes
    bench._pictures.clear()
    pictures = [bench._picture(pattern)[0] for pattern in range(4)]
    unlike = sorted(np.abs(one - other).max() / one.max() for one, other in combinations(pictures, 2))
    assert unlike[0] < 0.1 < unlike[-1]
    said = Counter(judged(bench, [0, 1, 2, 3, MARKER], electrons) for _ in range(50))
    assert not said["refuted"]


def test_a_marker_too_small_for_its_patterns_proves_nothing() -> None:
    marker = marker_of(stack_of(16, 16), 3)
    frames = np.random.default_rng(1).integers(100, 9000, (17, 3, 3), dtype=np.uint16)
    assert judge(marker, dict(enumerate(frames[:16])), frames[16]).said == "undecided"


# ---------------------------------------------------------------- through the engine


@pytest.mark.parametrize("lying", [False, True])
@pytest.mark.parametrize("stepping", ["dmd", "camera"])
@pytest.mark.parametrize("kind", ["shifted_sequence", "swapped_patterns", "repeated_pattern", "dark_pattern"])
def test_the_engine_takes_a_refuted_burst_again(
    small_rig: Callable[..., Rig], tmp_path: Path, kind: str, stepping: str, lying: bool
) -> None:
    """Whether the DMD cannot tell what it showed or tells a lie: light wins."""
    dmd = {"devices.dmd.read_back": lying, "devices.dmd.read_back_lies": lying, "stepping": stepping}
    rig = small_rig({**dmd, "connections.world.faults": [{"kind": kind, "by": 2}]})
    plan = plan_of(rig, side=64, proof={"marker": "always"}, retries=1)
    run, counts = run_plan(tmp_path / "run", rig, plan)
    assert (counts.saved, counts.missing, counts.retaken_bursts) == (4, 0, 1)
    first, second = lines_of(run, "taken")
    assert (first["proof"]["said"], first["received"]) == ("refuted", 0)
    assert (second["proof"]["said"] != "refuted", second["received"]) == (True, 4)
    assert [line["pattern"] for line in lines_of(run, "frame")] == [0, 1, 2, 3], "the marker is none of the data"


@pytest.mark.parametrize("read_back", [False, True])
def test_memory_that_was_not_written_anew_is_found(
    small_rig: Callable[..., Rig], tmp_path: Path, read_back: bool
) -> None:
    """What is read back are places in the memory: only the light knows what lies there."""
    faults = [{"kind": "stale_memory"}]
    rig = small_rig({**FILAMENTS, "devices.dmd.read_back": read_back, "connections.world.faults": faults})
    plan = plan_of(rig, side=64, proof={"marker": "always"}, light=BRIGHT, retries=1)
    stack = stack_of(4, 4, "random", seed=7)
    marker = Marker.of(stack, (64, 64), rig.optics, plan.takes["patterns"].mode, 1.0)
    before = [onto_mirrors(shown, rig.optics, plan.corner_um) for shown in (stack, marker.as_stack())]
    rig.dmd.load(np.concatenate(before))
    run, counts = run_plan(tmp_path / "run", rig, plan)
    first, second = lines_of(run, "taken")
    assert (first["proof"]["said"], first["received"]) == ("refuted", 0)
    assert (second["rests_on"], second["received"]) == ("light", 4)
    assert (counts.saved, counts.retaken_bursts, counts.unproven_bursts) == (4, 1, 0)


@pytest.mark.parametrize("place", [0, 2, 4])
@pytest.mark.parametrize("kind", ["dropped_frame", "repeated_frame"])
def test_a_frame_that_the_camera_loses_makes_no_other_wrong(
    small_rig: Callable[..., Rig], tmp_path: Path, kind: str, place: int
) -> None:
    """One that it gives twice is one lost; without the marker, place 4, nothing speaks for the others."""
    faults = [{"kind": kind, "at": place}]
    rig = small_rig({"devices.dmd.read_back": False, "connections.world.faults": faults})
    run, counts = run_plan(tmp_path / "run", rig, plan_of(rig, side=64, proof={"marker": "auto"}, retries=0))
    lost = {"dropped_frame": "skipped", "repeated_frame": "once more"}[kind]
    reasons = [line["reason"] for line in lines_of(run, "missing")]
    gone = list(range(4)) if place == 4 else [place]
    assert [line["pattern"] for line in lines_of(run, "missing")] == gone
    # what the camera gives once more before any other is its empty buffer; and the last frame may not come at all
    assert place in (0, 4) or all(lost in reason for reason in reasons)
    assert (counts.saved, counts.missing) == (4 - len(gone), len(gone))
    assert [line["pattern"] for line in lines_of(run, "frame")] == [p for p in range(4) if p not in gone]


@pytest.mark.parametrize(
    ("power_mw", "stepping", "read_back", "rests_on"),
    [
        (BRIGHT["power_mw"], "dmd", True, "light"),
        (BRIGHT["power_mw"], "camera", False, "light"),
        (1e-6, "dmd", True, "dmd"),
        (1e-6, "camera", False, "counts"),
        (1e-6, "software", False, "program"),
    ],
)
def test_a_run_says_what_its_proof_rests_on(
    small_rig: Callable[..., Rig], tmp_path: Path, power_mw: float, stepping: str, read_back: bool, rests_on: str
) -> None:
    rig = small_rig({**FILAMENTS, "devices.dmd.read_back": read_back, "stepping": stepping})
    plan = plan_of(rig, side=64, proof={"marker": "always"}, light={"power_mw": power_mw})
    run, counts = run_plan(tmp_path / "run", rig, plan)
    (taken,) = lines_of(run, "taken")
    assert taken["rests_on"] == rests_on
    assert counts.unproven_bursts == (rests_on == "counts")


def test_in_the_dark_a_lie_of_the_dmd_is_believed_but_not_called_proof_by_light(
    small_rig: Callable[..., Rig], tmp_path: Path
) -> None:
    lies = {"devices.dmd.read_back_lies": True, "connections.world.faults": [{"kind": "swapped_patterns"}]}
    rig = small_rig(lies)
    plan = plan_of(rig, side=64, proof={"marker": "always"}, light={"power_mw": 1e-6})
    run, _ = run_plan(tmp_path / "run", rig, plan)
    (taken,) = lines_of(run, "taken")
    assert (taken["proof"]["said"], taken["rests_on"]) == ("undecided", "dmd")


def test_what_stays_refuted_is_missing_with_that_reason(small_rig: Callable[..., Rig], tmp_path: Path) -> None:
    rig = small_rig({"devices.dmd.read_back": False, "connections.world.faults": [{"kind": "shifted_sequence"}]})
    run, counts = run_plan(tmp_path / "run", rig, plan_of(rig, side=64, proof={"marker": "auto"}, retries=0))
    assert (counts.saved, counts.missing, counts.unproven_bursts) == (0, 4, 0)
    assert all("the light of" in line["reason"] for line in lines_of(run, "missing"))


def test_the_price_of_a_marker_is_told(small_rig: Callable[..., Rig]) -> None:
    rig = small_rig({"devices.dmd.read_back": False})
    bare, marked = (plan_of(rig, side=64, proof={"marker": marker}) for marker in ("never", "auto"))
    cost = marked.proof()
    assert bare.proof() is None
    assert cost is not None
    assert marked.takes["patterns"].burst_ms == pytest.approx(bare.takes["patterns"].burst_ms * (1 + cost["time"]))
    ratio = marked.price.dose_per_field_mj_cm2 / bare.price.dose_per_field_mj_cm2
    assert ratio == pytest.approx(1 + cost["light"])
    assert marked.price.frames == bare.price.frames
    assert not marked.cautions
    few = plan_of(rig, side=64, count=16, camera_pixel=8, proof={"marker": "always"})
    assert any("proven by 4 camera pixels" in caution for caution in few.cautions)
    assert plan_of(small_rig(), side=64, proof={"marker": "auto"}).proof() is None, "this DMD tells what it showed"


# ---------------------------------------------------------------- by the thousand


def found(said: Counter[str]) -> int:
    """Taken again: what is surely wrong, and what is likely to be."""
    return said["refuted"] + said["doubted"]


def check(tally: Tally, dim: float = 0.999) -> None:
    """`dim` is the part of the faults in dim fields that must be found."""
    faulty, good = tally.sum(good=False), tally.sum(good=True)
    assert faulty["proven"] <= 1e-3 * faulty.total(), tally.table()
    assert found(good) <= 1e-3 * good.total(), tally.table()
    for wrong in (faulty, good):
        assert wrong.total()
    assert set(tally.sum(good=True, light="empty")) <= {"undecided"}, tally.table()
    for light, least in (("bright", 0.999), ("dim", dim)):
        told = tally.sum(good=False, light=light)
        assert found(told) >= least * told.total() > 0, tally.table()
    assert tally.sum(good=True, light="bright")["proven"] >= 0.85 * tally.sum(good=True, light="bright").total()


def test_a_few_faults_of_every_kind() -> None:
    """In fields of a quarter of the pixels, where the dim tells less."""
    check(campaign([(1, 16, 32), (4, 64, 32), (4, 16, 32)], scenes=range(2, 7), rounds=1), dim=0.95)


@pytest.mark.campaign
@pytest.mark.timeout(7200)
def test_two_thousand_faults_and_as_many_good_bursts(figure: Callable[..., None]) -> None:
    tally = campaign(CASES, scenes=range(7), rounds=2, seed=CAMPAIGN_SEED)
    print(tally.table())  # noqa: T201 - what the campaign is for
    for light in (*LIGHT, "empty"):
        for count in (1, 4, 16):
            said = tally.sum(good=False, light=light, count=count)
            good = tally.sum(good=True, light=light, count=count)
            what = f"wrong patterns, T = {count}, {light}"
            value = f"{found(said)} of {said.total()} found ({said['doubted']} by frames alone)"
            value += f", {said['undecided']} undecided, {said['proven']} proven"
            figure("R9", what, value, "0 proven" if light == "empty" else "99.9% found")
            figure("R9", f"good bursts, T = {count}, {light}", _said(good), "0.1% found wrong")
    for (count, kind), light_part in sorted(tally.light.items()):
        figure("R9", f"price of the marker, T = {count}, {kind}", f"+{light_part:.0%} light, +{1 / count:.0%} time")
    assert tally.sum(good=False).total() >= 2000
    check(tally)


@pytest.mark.campaign
@pytest.mark.timeout(7200)
def test_what_more_light_finds(figure: Callable[..., None]) -> None:
    """What the judge does not find in the dim it finds where there is more light."""
    said: dict[tuple[str, bool], Counter[str]] = {}
    good: dict[str, Counter[str]] = {}
    lights = {f"{electrons:,} electrons": float(electrons) for electrons in DOSES_E}
    for taken in bursts(CASES, range(6), 1, CAMPAIGN_SEED, lights):
        light, alone = taken.row[-1], taken.row[1] == 1
        said.setdefault((light, alone), Counter())[verdict(taken.bench, taken.faulty, taken.electrons)] += 1
        good.setdefault(light, Counter())[verdict(taken.bench, taken.good, taken.electrons)] += 1
    for light in lights:
        one, many = said[light, True], said[light, False]
        value = ", ".join(
            f"{found(count) / count.total():.1%} of {count.total()} with {patterns}"
            for count, patterns in ((one, "one pattern"), (many, "4 or 16"))
        )
        figure("R9", f"wrong patterns found, {light} in the brightest pixels", value)
        assert not one["proven"] + many["proven"]
        assert not found(good[light])
    most = said[list(lights)[-1], False]
    assert found(most) >= 0.999 * most.total()


@pytest.mark.bench
@pytest.mark.parametrize(("count", "allowed"), [(4, 30.0), (16, 8.0)])
def test_judging_is_little_work(count: int, allowed: float, figure: Callable[..., None]) -> None:
    """64×64 camera pixels; in Fourier transforms of the burst, which tell how fast this computer is at present."""
    rng, marker = np.random.default_rng(3), marker_of(stack_of(count, 64), 64)
    burst = rng.poisson(1000.0 * rng.random((count + 1, 1, 1)) + 500, (count + 1, 64, 64)).astype(np.uint16)
    frames = dict(enumerate(burst[:-1]))
    judging = _least_ms(lambda: judge(marker, frames, burst[-1]))
    transform = _least_ms(lambda: np.fft.fft2(burst))
    value = f"{judging:.2f} ms, {judging / transform:.1f} Fourier transforms of its frames"
    figure("speed", f"judging a burst of {count} frames by its light", value, f"{allowed:g} transforms")
    assert judging <= allowed * transform


def _least_ms(work: Callable[[], object]) -> float:
    def once() -> float:
        began = time.perf_counter()
        work()
        return (time.perf_counter() - began) * 1e3

    return min(once() for _ in range(200))


def _said(good: Counter[str]) -> str:
    return f"{good['proven']} proven, {good['undecided']} undecided, {found(good)} found wrong"

"""Live reconstruction beside a run with the quickstart's bundle on fields of 512×512 object pixels.

To render a field of that size takes the simulated microscope longer than to reconstruct it, so the frames of a few
fields are rendered before, and come again and again; of each, the first number is changed, or the engine would take it
for one that the camera gave twice. All else is as in any run: patterns step in the DMD, bursts are checked, booked and
saved.
"""

from __future__ import annotations

import gc
import itertools
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from figures import load

sys.path.insert(0, str(Path(__file__).parents[1] / "inversion"))
from lanes import Shot, burst
from lanes import lane as small_lane

from dmu_hw.cli import imaging
from dmu_hw.cli.acquire import _write_settings, bundles_of
from dmu_hw.cli.living import live_of
from dmu_hw.cli.output import Output
from dmu_hw.cli.session import open_session
from dmu_hw.drivers.simulated.world import World
from dmu_hw.engine import Engine
from dmu_hw.lane import least_s
from dmu_hw.latency import Latencies
from dmu_hw.live import Live
from dmu_hw.past import Past
from dmu_hw.pursuit import Pursuit
from dmu_hw.reconstruct import Reconstructor
from dmu_hw.runfolder import new_run
from dmu_hw.view.window import window_of

ROOT = Path(__file__).parents[2]
FIELDS, FRAMES = 4, 4
FIELDS_PER_S, P99_MS = 30.0, 100.0
QUIET = 1.5
LEAST = 0.8
"""Of what is asked for, on any day: two shared cores are not always the same."""


@dataclass
class Ran:
    """What came of a run."""

    fields_per_s: float
    saved: int
    live: dict[str, Any] | None


@contextmanager
def rendered_before(patch: pytest.MonkeyPatch, per_s: float | None) -> Iterator[None]:
    """The world shows a few fields over and over, one every so often."""
    rendered: dict[int, Any] = {}
    expose, due_s = World.expose, itertools.count()
    began_s = 0.0

    def again(self: World, start_ms: float, stop_ms: float, mode: Any) -> Any:
        nonlocal began_s
        number = self.exposures
        if number < FIELDS * FRAMES:
            rendered[number] = expose(self, start_ms, stop_ms, mode)
            began_s = time.monotonic()
            return rendered[number]
        self.exposures += 1
        self._seen_until_ms = stop_ms
        self.history.forget_before(stop_ms)
        if per_s is not None and number % FRAMES == 0:
            time.sleep(max(0.0, began_s + next(due_s) / per_s - time.monotonic()))
        pixels = rendered[number % (FIELDS * FRAMES)].copy()
        pixels[0, 0] = number % 65536
        return pixels

    patch.setattr(World, "expose", again)
    yield


def ran(folder: Path, fields: int, live: dict[str, Any] | None, per_s: float | None = None) -> Ran:
    """Image that many fields."""
    protocol = {
        "kind": "run",
        "name": "bench",
        "rig": str(ROOT / "devices" / "simulated.yaml"),
        "field_px": [512, 512],
        "patterns": {"bundle": str(ROOT / "protocols" / "bundles" / "nuclei.dmu")},
        "light": {"power_mw": 0.5},
        "exposure_ms": 15.0,
        "time": {"loops": fields + FIELDS},
        "live": live,
    }
    path = folder / "bench.yaml"
    path.write_text(yaml.safe_dump(protocol))
    output = Output(as_json=True)
    session = open_session(path)
    bundles = bundles_of(session, output)
    ends_s: list[float] = []
    put = Live.put if live is not None else None
    with pytest.MonkeyPatch.context() as patch, rendered_before(patch, per_s), session.rig.opened():
        run = new_run(folder, "bench")
        _write_settings(run, session, bundles)
        patch.setattr("dmu_hw.cli.truth.truths_of", lambda *_, **__: {})
        whole = Engine.run

        def timed(engine: Engine) -> Any:
            watch = engine.watch
            assert watch is not None

            def told(shot: Any, burst_: Any) -> None:
                watch(shot, burst_)
                ends_s.append(time.perf_counter())

            engine.watch = told
            return whole(engine)

        patch.setattr(Engine, "run", timed)
        taken = imaging.image(
            run, session, Past(), output, bundles=bundles, disk_bytes=10**9, live=live_of(session, bundles)
        )
    assert (put is None) == (taken.live is None)
    return Ran(fields / (ends_s[-1] - ends_s[FIELDS - 1]), taken.counts.saved, taken.live)


def alone_per_s() -> float:
    """Fields that the inverse makes in full precision one after another, while nobody else does anything."""
    session = open_session(ROOT / "protocols" / "quickstart.yaml")
    bundle = session.kit.bundle
    assert bundle is not None
    window = window_of(session.plan, "patterns")
    window = type(window)(window.optics, (512, 512), window.centre_um, window.power_mw, window.exposure_ms)
    reconstructor = Reconstructor(bundle, window)
    frames = np.random.default_rng(0).integers(100, 3000, (4, 32, 32)).astype(np.uint16)
    return 1 / least_s(lambda: reconstructor.estimate(frames))[0]


@pytest.mark.bench
def test_every_field_is_reconstructed_as_fast_as_they_come(tmp_path: Path, figure: Callable[..., None]) -> None:
    """With an engine that goes as fast as it can: what the inverse does alone, it does beside a run too."""
    alone = alone_per_s()
    found = ran(tmp_path, 300, {"policy": "every"})
    assert found.live is not None
    assert found.saved == 304 * FRAMES
    assert (found.live["made"], found.live["dropped"]) == (304, 0)
    what = "fields of 512×512 object pixels reconstructed while imaging, all frames saved"
    figure("speed", what, f"{found.fields_per_s:.0f} /s (alone, full precision: {alone:.0f} /s)", "30 /s")
    assert found.fields_per_s >= 0.7 * alone
    if load() <= QUIET:
        assert found.fields_per_s >= LEAST * FIELDS_PER_S


@pytest.mark.bench
def test_a_field_is_there_soon_after_its_light(tmp_path: Path, figure: Callable[..., None]) -> None:
    found = ran(tmp_path, 200, {"policy": "newest", "budget_ms": P99_MS}, per_s=20.0)
    assert found.live is not None
    assert found.saved == 204 * FRAMES
    told = found.live["latency_ms"]
    figure(
        "speed",
        "from the last frame of a field of 512×512 object pixels to its reconstruction, at 20 fields a second",
        f"{told['p50']:.0f} ms, 99 of 100 within {told['p99']:.0f} ms; {found.live['dropped']} of 204 dropped",
        f"{P99_MS:g} ms",
    )
    if load() > QUIET:
        pytest.skip(f"the machine does other things: {load():.1f} processes want a core")
    assert found.live["budget_kept"]
    assert found.live["dropped"] == 0


@pytest.mark.bench
def test_it_is_not_in_the_way_of_those_who_save(tmp_path: Path, figure: Callable[..., None]) -> None:
    """Of frames that come at a pace that the engine can keep, all are saved at that pace, whatever live does."""
    found = [ran(tmp_path, 100, live, per_s=25.0) for live in (None, {"policy": "newest"})]
    assert [one.saved for one in found] == [104 * FRAMES] * 2
    ratio = found[1].fields_per_s / found[0].fields_per_s
    figure("speed", "rate of a run at 25 fields a second with live reconstruction, to that without", f"{ratio:.3f}")
    if load() > QUIET:
        pytest.skip(f"the machine does other things: {load():.1f} processes want a core")
    assert ratio > 0.97


# ---------------------------------------------------------------- memory


def resident_mb() -> float:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="tells its memory otherwise")
@pytest.mark.parametrize("policy", ["newest", "every"])
def test_memory_does_not_grow_with_bursts(policy: str) -> None:
    """In short; the long form is a campaign."""
    bursts = [burst(index) for index in range(20)]
    live = Live(
        Pursuit.model_validate({"policy": policy}), lambda: {("", "patterns"): small_lane()}, [("", "patterns")]
    )
    with live:
        for index in range(300):
            live.put(Shot(index), bursts[index % 20])
        before_mb = resident_mb()
        for index in range(1500):
            live.put(Shot(index), bursts[index % 20])
        after_mb = resident_mb()
    assert live.counts.made + live.counts.dropped == 1800
    assert after_mb - before_mb < 20


@pytest.mark.campaign
@pytest.mark.timeout(3600)
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="tells its memory otherwise")
def test_memory_is_flat_over_ten_thousand_bursts(
    tmp_path: Path, figure: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Engine, spool, journal and live together."""
    seen: list[float] = []
    add = Latencies.add

    def looked(self: Latencies, duration_ms: float) -> None:
        add(self, duration_ms)
        if self.count % 1000 == 0:
            seen.append(resident_mb())

    monkeypatch.setattr(Latencies, "add", looked)
    found = ran(tmp_path, 10_000, {"policy": "every"})
    assert found.saved == 10_004 * FRAMES
    assert found.live is not None
    assert found.live["made"] == 10_004
    figure(
        "speed",
        "memory from the 1,000th to the 10,000th burst that is reconstructed live",
        f"{seen[0]:.0f} → {seen[-1]:.0f} MB, at {found.fields_per_s:.0f} fields/s",
        "+20 MB",
    )
    assert seen[-1] - seen[0] < 20

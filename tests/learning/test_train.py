"""Learning: it begins at the linear estimate, gets better, goes on after a kill, and ends in a bundle."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dmu_hw.checkpoint import load_state, save_state
from dmu_hw.dataset import ScenesData
from dmu_hw.errors import InputError
from dmu_hw.exposure import shifted
from dmu_hw.images import Images
from dmu_hw.judging import bundled
from dmu_hw.lesson import Learned, Lesson, Network, Schedule, Variation
from dmu_hw.models.lattice import Settings as Lattice
from dmu_hw.models.ridge import Model as Ridge
from dmu_hw.physics.optics import Dye, GaussianPsf, Mirrors, Optics
from dmu_hw.physics.specimens import Nuclei
from dmu_hw.reconstruct import Reconstructor, Window
from dmu_hw.train import Learner, learn

OPTICS = Optics(
    object_pixel_um=0.325,
    sensor_pixel_um=0.325,
    excitation=GaussianPsf(sigma_um=0.3),
    emission=GaussianPsf(sigma_um=0.3),
    mirrors=Mirrors(leakage=0.01),
    dye=Dye(photons_per_um2_mw_ms=500.0, background_photons_per_um2_mw_ms=5.0),
)
DATA = ScenesData(kind="scenes", specimen=Nuclei(kind="nuclei", seed=3), train=24, held_back=4, side_px=128)
IMAGES = Images.load(DATA, OPTICS.object_pixel_um)


def lesson(updates: int = 30, variation: Variation | None = None, **patterns: Any) -> Lesson:
    learned = {"count": 4, "camera_pixel": 8, "start": "hadamard"} | patterns
    return Lesson(
        kind="train",
        name="test",
        rig=Path("rig.yaml"),
        data=DATA,
        patterns=Learned.model_validate(learned),
        power_mw=1.0,
        exposure_ms=1.0,
        variation=variation or Variation(),
        schedule=Schedule(updates=updates, batch=4, crop_px=64, validate_every=10, warmup=5),
    )


def learner(what: Lesson) -> Learner:
    return Learner(what, Lattice(channels=16, blocks=1), OPTICS, IMAGES)


@pytest.mark.parametrize("tile", [1, 2])
def test_it_begins_exactly_at_the_linear_estimate(tile: int) -> None:
    started = learner(lesson(tile=tile))
    weights = started.model.weights()  # type: ignore[operator]
    linear = Ridge({key: weights[key] for key in ("mean", "mean_signal", "estimators")}, started.layout)
    signal = torch.rand(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)) * 20
    started.model.eval()
    assert torch.equal(started.model(signal), linear(signal))


@pytest.mark.parametrize("patterns", [{}, {"frozen": True}, {"superpixel": 2, "start": "noise"}])
def test_it_gets_better_than_where_it_began(patterns: dict[str, Any]) -> None:
    started = learner(lesson(80, **patterns))
    before, masks = started.error("val"), started.patterns.masks()
    lines = list(learn(started))
    assert [line.update for line in lines] == list(range(0, 81, 10))
    bundle = bundled(started)
    assert lines[0].val_error == before
    assert started.progress.best_error == started.error("val") < before
    if patterns.get("frozen"):
        assert np.array_equal(masks, bundle.patterns.masks)


@pytest.mark.parametrize("patterns", [{"parametrisation": "fourier"}, {"binarisation": "soft"}])
def test_it_never_ends_behind_where_it_began(patterns: dict[str, Any]) -> None:
    """Whatever the steps in between do, the best set of patterns that was seen on `val` is kept."""
    started = learner(lesson(20, **patterns))
    before = started.error("val")
    list(learn(started))
    assert started.error("val") <= before


def test_patterns_do_learn() -> None:
    started = learner(lesson(60, start="noise"))
    masks = started.patterns.masks()
    list(learn(started))
    assert (masks != started.patterns.masks()).any()


def test_a_training_that_was_killed_goes_on_bit_for_bit(tmp_path: Path) -> None:
    what = lesson(30, Variation(photons=0.2, offset_adu=1.0, shift_px=0.3))
    whole, cut = learner(what), learner(what)
    list(learn(whole))
    list(itertools.islice(learn(cut), 2))
    save_state(tmp_path / "state", cut.state())
    resumed = learner(what)
    resumed.restore(load_state(tmp_path / "state"))
    list(learn(resumed))
    assert bundled(resumed).hash == bundled(whole).hash


def test_a_checkpoint_of_something_else_is_refused() -> None:
    with pytest.raises(InputError, match="another protocol"):
        learner(lesson(30)).restore(learner(lesson(31)).state())


def test_a_checkpoint_of_another_version_is_refused() -> None:
    with pytest.raises(InputError, match="another protocol"):
        learner(lesson(30)).restore({"lesson": "as it was called before"})


def test_a_bundle_gives_what_the_learner_gave(tmp_path: Path) -> None:
    started = learner(lesson(20))
    list(learn(started))
    bundle = bundled(started)
    bundle.save(tmp_path / "x.dmu")
    loaded = type(bundle).load(tmp_path / "x.dmu")
    window = Window(OPTICS, (64, 64), (0.0, 0.0), 1.0, 1.0)
    frames = np.random.default_rng(0).integers(100, 400, (4, 8, 8)).astype(np.uint16)
    reconstructor = Reconstructor(loaded, window)
    started.model.eval()
    expected = started.model(reconstructor.calibrated.signal(frames)[None])[0].detach()
    np.testing.assert_array_equal(reconstructor.estimate(frames).image, expected.clamp(min=0).numpy())
    dark = reconstructor.estimate(np.zeros_like(frames)).image
    assert (dark == 0).any()
    assert (dark >= 0).all(), "no light is darker than none"


def test_patience_ends_a_training_that_gets_no_better() -> None:
    what = lesson(1000)
    schedule = what.schedule.model_copy(update={"patience": 2, "learning_rate": 1e-12, "patterns_rate": 1e-12})
    lines = list(learn(learner(what.model_copy(update={"schedule": schedule}))))
    assert 2 <= len(lines) < 20


def test_a_computed_model_cannot_be_trained() -> None:
    what = lesson().model_copy(update={"network": Network(model="ridge")})
    with pytest.raises(InputError, match="computed, not trained"):
        learner(what)


def test_shifting_a_tile() -> None:
    tile = torch.rand(2, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(shifted(tile, 1.0, -2.0), tile.roll((1, -2), (-1, -2)))
    torch.testing.assert_close(shifted(shifted(tile, 0.3, 0.2), -0.3, -0.2).mean(), tile.mean())

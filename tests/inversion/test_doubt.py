"""When not to believe an image: what is looked at, how it is judged, and how far pixels may be off."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dmu_hw.bundle import Bundle
from dmu_hw.data import Layout, Uint16Array
from dmu_hw.doubt import PREFIX, REASONS, Camera, Eye, Teaching, doubt_of, looks, residuals
from dmu_hw.doubtful import rounded
from dmu_hw.physics.forward import Forward
from dmu_hw.physics.specimens import Nuclei
from dmu_hw.reconstruct import Parts, Reconstructor, Window
from dmu_hw.spread import Spread
from dmu_hw.traits import Looks, traits, ways

SHIPPED = Path(__file__).parents[2] / "protocols" / "bundles" / "nuclei.dmu"
SIDE_PX = 256


@pytest.fixture(scope="module", name="bundle")
def _bundle() -> Bundle:
    return Bundle.load(SHIPPED)


@pytest.fixture(scope="module", name="window")
def _window(bundle: Bundle) -> Window:
    header = bundle.header
    return Window(header.optics, (SIDE_PX, SIDE_PX), (0.0, 0.0), header.power_mw, header.exposure_ms)


@pytest.fixture(scope="module", name="reconstructor")
def _reconstructor(bundle: Bundle, window: Window) -> Reconstructor:
    return Reconstructor(bundle, window)


def seen(reconstructor: Reconstructor, bundle: Bundle, *, defocus_um: float = 0.0, gain: float = 1.0) -> Uint16Array:
    """Frames of a field of nuclei, (pattern, y, x)."""
    header, forward = bundle.header, reconstructor.calibrated.forward
    lens = Forward(header.optics, (SIDE_PX, SIDE_PX), header.camera_pixel, defocus_um=defocus_um)
    scene = Nuclei(kind="nuclei", seed=90).scene((300.0, 40.0), (SIDE_PX, SIDE_PX), header.optics.object_pixel_um)
    patterns = torch.from_numpy(bundle.patterns.over((SIDE_PX, SIDE_PX))).to(torch.float32)
    signal = gain * lens.image(torch.from_numpy(scene.image)[None], lens.illuminate(patterns, header.power_mw))
    photons = forward.photons(signal[0], header.power_mw, header.exposure_ms)
    generator = torch.Generator().manual_seed(4)
    return reconstructor.calibrated.sensor.draw(photons, generator).numpy().astype(np.uint16)


def test_a_good_field_and_one_out_of_focus(reconstructor: Reconstructor, bundle: Bundle) -> None:
    good = reconstructor.estimate(seen(reconstructor, bundle))
    blurred = reconstructor.estimate(seen(reconstructor, bundle, defocus_um=3.0))
    assert good.doubt is not None
    assert not good.doubt.doubted
    assert good.residual is not None
    assert 0.5 < good.residual < 5
    assert blurred.doubt is not None
    assert REASONS["focus"] in blurred.doubt.reasons
    assert blurred.doubt.score > 1 > good.doubt.score


def test_a_pattern_that_is_missing(reconstructor: Reconstructor, bundle: Bundle) -> None:
    frames = seen(reconstructor, bundle)
    frames[2] = frames[0]
    found = reconstructor.estimate(frames)
    assert found.doubt is not None
    assert found.doubt.doubted


def test_light_of_another_strength_is_no_reason(reconstructor: Reconstructor, bundle: Bundle) -> None:
    """Nobody knows how bright a specimen is."""
    found = reconstructor.estimate(seen(reconstructor, bundle, gain=0.85))
    assert found.doubt is not None
    assert not found.doubt.doubted


def test_several_at_once_are_judged_as_one_by_one(reconstructor: Reconstructor, bundle: Bundle) -> None:
    bursts = [seen(reconstructor, bundle, defocus_um=z_um) for z_um in (0.0, 3.0)]
    for alone, together in zip(map(reconstructor.estimate, bursts), reconstructor.estimates(bursts), strict=True):
        assert alone.doubt is not None
        assert together.doubt is not None
        assert alone.doubt.reasons == together.doubt.reasons
        assert alone.doubt.score == pytest.approx(together.doubt.score, rel=1e-3)
        assert alone.spread is not None
        assert together.spread is not None
        assert np.allclose(alone.spread, together.spread, atol=1e-5)


def test_a_bundle_that_was_made_before_doubts_nothing(bundle: Bundle, window: Window) -> None:
    inverse = Parts.of(bundle.weights).inverse
    old = Reconstructor(Bundle(bundle.header, bundle.patterns, inverse), window)
    found = old.estimate(seen(old, bundle))
    assert (found.spread, found.residual, found.doubt) == (None, None, None)


def test_a_field_that_is_too_small_is_not_judged(bundle: Bundle, window: Window) -> None:
    small = Reconstructor(bundle, replace(window, field_px=(96, 96)))
    found = small.estimate(np.full((4, 6, 6), 200, dtype=np.uint16))
    assert found.doubt is None
    assert found.spread is not None


def test_parts_go_back_together(bundle: Bundle) -> None:
    again = Parts.of(bundle.weights).together()
    assert again.keys() == bundle.weights.keys()
    assert all(np.array_equal(again[key], part) for key, part in bundle.weights.items())
    teaching = Teaching.of(Parts.of(bundle.weights).doubt)
    assert teaching is not None
    assert all(np.allclose(part, bundle.weights[f"{PREFIX}{key}"]) for key, part in teaching.weights().items())


def test_what_was_learned_of_other_traits_says_nothing(bundle: Bundle) -> None:
    other = {f"{PREFIX}version": np.asarray(99, dtype=np.int32)}
    found = Bundle(bundle.header, bundle.patterns, {**bundle.weights, **other})
    assert Teaching.of(Parts.of(found.weights).doubt) is None
    light = (bundle.header.optics, bundle.header.power_mw, bundle.header.exposure_ms)
    assert bundle.cautions(*light) == []
    (caution,) = found.cautions(*light)
    assert "dmu doubt" in caution


def test_the_residual_of_the_truth_is_that_of_noise(reconstructor: Reconstructor, bundle: Bundle) -> None:
    """Sent through the optics, the specimen itself explains its frames but for the noise."""
    header, forward = bundle.header, reconstructor.calibrated.forward
    eye = Eye(header.optics, bundle.patterns, (SIDE_PX, SIDE_PX), header.power_mw)
    camera = Camera.of(forward, reconstructor.calibrated.sensor, header.power_mw, header.exposure_ms)
    scene = Nuclei(kind="nuclei", seed=90).scene((300.0, 40.0), (SIDE_PX, SIDE_PX), header.optics.object_pixel_um)
    signal = reconstructor.calibrated.signal(torch.from_numpy(seen(reconstructor, bundle))[None])
    found = looks(eye, camera, signal, torch.from_numpy(scene.image)[None], 14, None)
    assert found.misfit is not None
    assert float(residuals(found.misfit)[0]) == pytest.approx(1.0, abs=0.2)


def test_large_fields_are_looked_at_part_by_part(bundle: Bundle) -> None:
    header = bundle.header
    eye = Eye(header.optics, bundle.patterns, (512, 768), header.power_mw)
    window = Window(header.optics, (512, 768), (0.0, 0.0), header.power_mw, header.exposure_ms)
    calibrated = Reconstructor(bundle, window).calibrated
    camera = Camera.of(calibrated.forward, calibrated.sensor, header.power_mw, header.exposure_ms)
    signal = torch.rand(2, 4, 32, 48)
    found = looks(eye, camera, signal, torch.rand(2, 512, 768), 14, None)
    assert found.frames.shape == (2 * 2 * 3, 4, 15, 15)
    assert torch.equal(found.frames[0], (signal / eye.gains)[0, :, 1:16, 1:16])
    assert torch.equal(found.frames[6], (signal / eye.gains)[1, :, 1:16, 1:16])


def test_traits_are_finite_of_whatever_comes() -> None:
    dark, even = torch.zeros(1, 4, 12, 12), torch.ones(1, 4, 12, 12)
    directions = ways(torch.rand(8, 4, 12, 12))
    assert directions.shape == (3, 4)
    assert torch.allclose(directions.sum(dim=1), torch.zeros(3), atol=1e-5), "none of them is brightness"
    for frames in (dark, even, -even):
        assert traits(Looks(frames, None, None, None), directions).isfinite().all()


def test_what_cannot_be_told_is_doubted() -> None:
    assert doubt_of({"focus": 0.5, "unlike": float("nan")}).doubted
    assert not doubt_of({"focus": 0.5, "unlike": 0.9}).doubted
    assert doubt_of({"focus": 2.0, "registration": 1.9}).reasons == (REASONS["focus"],)
    assert doubt_of({"focus": 1.1, "unlike": 40.0}).reasons == (REASONS["unlike"],)


@pytest.mark.parametrize("layout", [Layout(1, (4, 4), 4), Layout(3, (12, 12), 6), Layout(2, (8, 8), 2)])
def test_spreads_of_any_layout(layout: Layout) -> None:
    found = Spread(layout)
    again = Spread.of(found.weights(), layout)
    rows, columns = 24 // layout.camera_pixel, 48 // layout.camera_pixel
    signal, image = torch.rand(2, layout.count, rows, columns), torch.rand(2, 24, 48)
    spread = again(signal, image)
    assert spread.shape == image.shape
    assert (spread > 0).all()
    assert torch.equal(spread, found(signal, image))


def test_spreads_are_kept_to_three_digits() -> None:
    spread = np.random.default_rng(1).uniform(1e-4, 0.3, (64, 64)).astype(np.float32)
    assert np.abs(rounded(spread) / spread - 1).max() < 0.002

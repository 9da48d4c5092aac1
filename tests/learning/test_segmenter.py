"""The network that finds objects: any field, the same from its weights, and better than guessing after a moment."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.numpy import load, save
from scipy import ndimage

from dmu_hw.losses import segment_loss
from dmu_hw.metrics import average_precision, dice
from dmu_hw.physics.specimens import Nuclei, Scene
from dmu_hw.segmenter.model import Segmenter
from dmu_hw.segmenter.settings import SegmenterSettings
from dmu_hw.segments import instances, targets

SMALL = SegmenterSettings(channels=8, blocks=1, levels=2, fine_channels=4)
LEVELS = np.linspace(0.05, 0.5, 19)


def images(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def stirred(settings: SegmenterSettings) -> Segmenter:
    """With every layer at work, those too that begin at zero."""
    segmenter = Segmenter.start(settings, 1).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in segmenter.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return segmenter


@pytest.mark.parametrize("shape", [(64, 64), (50, 37), (5, 3), (16, 130)])
def test_any_field_will_do(shape: tuple[int, int]) -> None:
    assert Segmenter.start(SMALL, 0)(images(2, *shape)).shape == (2, 2, *shape)


def test_a_small_field_is_a_cut_of_a_large_one() -> None:
    segmenter, image = stirred(SMALL), images(1, 256, 256)
    with torch.no_grad():
        whole, cut = segmenter(image), segmenter(image[:, 32:224, 64:256])
    torch.testing.assert_close(cut[:, :, 64:-64, 64:-64], whole[:, :, 96:160, 128:192], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "settings",
    [SMALL, SegmenterSettings(), SegmenterSettings(channels=24, blocks=3, levels=1, fine_channels=5)],
)
def test_weights_alone_make_it_again(settings: SegmenterSettings) -> None:
    segmenter = stirred(settings)
    weights = load(save(segmenter.weights()))
    image = images(1, 40, 40)
    assert torch.equal(Segmenter.of(weights)(image), segmenter(image))


def test_weights_are_a_copy() -> None:
    segmenter = Segmenter.start(SMALL, 0)
    weights = segmenter.weights()
    kept = weights["entry.weight"].copy()
    with torch.no_grad():
        segmenter.entry.weight += 1
    assert np.array_equal(weights["entry.weight"], kept)


def test_the_seed_decides() -> None:
    one, same, other = (Segmenter.start(SMALL, seed).weights() for seed in (3, 3, 4))
    assert all(np.array_equal(one[key], same[key]) for key in one)
    assert any(not np.array_equal(one[key], other[key]) for key in one)


def test_the_image_gets_a_gradient() -> None:
    """Trained jointly, what the segmenter wants must reach the patterns."""
    image = images(1, 32, 32).requires_grad_()
    stirred(SMALL)(image)[0, :, 16, 16].sum().backward()
    assert image.grad is not None
    assert (image.grad[0, 8:24, 8:24] != 0).all()


def scene(number: int) -> Scene:
    kind = Nuclei(seed=11, per_mm2=3000, touching=0.6, haze=0.1, brightness=0.4)
    return kind.scene((1000.0 * number, 0.0), (96, 96), 0.65)


def blurred(scenes: list[Scene]) -> np.ndarray:
    """As a microscope might give them."""
    rng = np.random.default_rng(0)
    return np.stack(
        [ndimage.gaussian_filter(one.image, 1.5) + 0.05 * rng.standard_normal(one.image.shape) for one in scenes]
    ).astype(np.float32)


def test_a_moment_of_training_beats_a_threshold() -> None:
    train, held_back = [scene(k) for k in range(32)], [scene(1000 + k) for k in range(8)]
    seen, truth = torch.from_numpy(blurred(train)), torch.from_numpy(targets(np.stack([s.labels for s in train])))
    segmenter = Segmenter.start(SegmenterSettings(), 0)
    optimiser = torch.optim.Adam(segmenter.parameters(), lr=4e-3)
    for update in range(100):
        batch = torch.arange(4 * update, 4 * update + 4) % len(train)
        optimiser.zero_grad()
        torch.autograd.backward(segment_loss(segmenter(seen[batch]), truth[batch]))
        optimiser.step()

    labels, images_seen = [one.labels for one in held_back], blurred(held_back)
    with torch.no_grad():
        maps = torch.sigmoid(segmenter(torch.from_numpy(images_seen))).numpy()
    found = mean_scores([instances(some) for some in maps], labels)
    # the best threshold there is, chosen with the truth in hand, on images freed from noise
    smooth = [ndimage.gaussian_filter(image, 1.0) for image in images_seen]
    guessed = [mean_scores([ndimage.label(image > level)[0] for image in smooth], labels) for level in LEVELS]
    assert found[0] > max(dice_of for dice_of, _ in guessed)
    assert found[1] > max(precision for _, precision in guessed) + 0.1


def mean_scores(found: list[np.ndarray], truths: list[np.ndarray]) -> tuple[float, float]:
    pairs = list(zip(found, truths, strict=True))
    return (
        float(np.mean([dice(labels > 0, truth > 0) for labels, truth in pairs])),
        float(np.mean([average_precision(labels, truth) for labels, truth in pairs])),
    )

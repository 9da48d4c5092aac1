"""The promise of a model that can be trained: for every one there is, and for a user's own beside a YAML."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load, save
from torch import nn

from dmu_hw import lmmse, plugin
from dmu_hw.data import Layout, PatternStack
from dmu_hw.lmmse import Design, Statistics
from dmu_hw.models.locality import Settings as Locality
from dmu_hw.models.unrolled import Settings as Unrolled
from dmu_hw.models.unrolled.optics import adjoint, image
from dmu_hw.physics.aligned import Aligned
from dmu_hw.physics.forward import Forward
from dmu_hw.physics.optics import Dye, GaussianPsf, Mirrors, Optics
from dmu_hw.physics.patterns import PatternSet
from dmu_hw.physics.specimens import Nuclei

PACKAGE = "dmu_hw.models"
SIDE, COUNT, REACH = 8, 4, 1
POWER_MW, EXPOSURE_MS = 1.0, 1.0
OPTICS = Optics(
    object_pixel_um=0.325,
    sensor_pixel_um=0.325,
    excitation=GaussianPsf(sigma_um=0.3),
    emission=GaussianPsf(sigma_um=0.3),
    mirrors=Mirrors(leakage=0.01),
    dye=Dye(photons_per_um2_mw_ms=500.0, background_photons_per_um2_mw_ms=5.0),
)

OWN = '''
"""The linear estimate, and one layer behind it."""

import torch
from torch import nn

from dmu_hw import lmmse
from dmu_hw.files import Settings as Base


class Settings(Base):
    size: int = 3


class Model(nn.Module):
    def __init__(self, weights, layout, device="cpu"):
        super().__init__()
        self.side = layout.camera_pixel
        for key in ("mean", "mean_signal", "estimators"):
            self.register_buffer(key, torch.from_numpy(weights[key]))
        size = weights["layer.weight"].shape[-1]
        self.layer = nn.Conv2d(1, 1, size, padding=size // 2)
        self.load_state_dict({key: torch.from_numpy(value) for key, value in weights.items()})
        self.to(device).eval()

    @classmethod
    def start(cls, settings, design, statistics, seed):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            layer = nn.Conv2d(1, 1, settings.size)
        own = {f"layer.{key}": value.numpy() for key, value in layer.state_dict().items()}
        return lmmse.compute(design, statistics).weights() | own

    def weights(self):
        return {key: value.cpu().numpy().copy() for key, value in self.state_dict().items()}

    def forward(self, signal):
        first = lmmse.apply(signal, dict(self.named_buffers()), self.side)
        image = first + self.layer(first[:, None])[:, 0]
        return image
'''


def is_trainable(name: str) -> bool:
    found = plugin.load_class(PACKAGE, name, "Model", where="", folder=Path())
    return issubclass(found, nn.Module) and hasattr(found, "start")


NAMES = [*filter(is_trainable, plugin.names(PACKAGE)), "own.py"]


@dataclass(frozen=True, eq=False)
class Case:
    """One kind of model on one pattern set."""

    model: Any
    settings: Any
    tile: int

    @property
    def stack(self) -> PatternStack:
        if self.tile == 1:
            return PatternSet(set="hadamard", count=COUNT, camera_pixel=SIDE).make()
        return PatternSet(set="random", count=COUNT, camera_pixel=SIDE, tile=self.tile, superpixel=2).make()

    @property
    def layout(self) -> Layout:
        return self.stack.layout

    @property
    def design(self) -> Design:
        return Design.of(self.stack, OPTICS, POWER_MW, EXPOSURE_MS, REACH)

    def weights(self, seed: int = 0) -> dict[str, np.ndarray]:
        return self.model.start(self.settings, self.design, statistics(self.design.torus_px()), seed)  # type: ignore[no-any-return]

    def begun(self, seed: int = 0) -> Any:
        return self.model(self.weights(seed), self.layout)

    def signal(self, specimen: torch.Tensor) -> torch.Tensor:
        """Without noise, so that what is learned shows soon."""
        masks = torch.from_numpy(self.stack.masks).float()
        rows, columns = specimen.shape[-2:]
        return Aligned(Forward(OPTICS, (rows, columns), SIDE), masks, POWER_MW).image(specimen)

    def descend(self, model: Any, updates: int) -> list[float]:
        """The loss before every update, on the same specimens."""
        truth = specimens()
        signal = self.signal(truth)
        optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
        losses = []
        model.train()
        for _ in range(updates):
            loss = nn.functional.mse_loss(model(signal), truth)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(float(loss.detach()))
        return losses


def of(name: str, settings: Any, tile: int, folder: Path = Path()) -> Case:
    model, default = (plugin.load_class(PACKAGE, name, what, where="", folder=folder) for what in ("Model", "Settings"))
    return Case(model, settings or default(), tile)


def specimens(count: int = 2, side_px: int = 64) -> torch.Tensor:
    nuclei = Nuclei(kind="nuclei", seed=5)
    scenes = [nuclei.scene((200.0 * k, 0.0), (side_px, side_px), OPTICS.object_pixel_um).image for k in range(count)]
    return torch.from_numpy(np.stack(scenes))


_STATISTICS: dict[int, Statistics] = {}


def statistics(size: int) -> Statistics:
    if size not in _STATISTICS:
        _STATISTICS[size] = Statistics.of(image.numpy() for image in specimens(12, size))
    return _STATISTICS[size]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Such small tensors gain nothing by more, and lose much where cores are busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=[(name, tile) for name in NAMES for tile in (1, 2)], ids=lambda param: f"{param[0]}-{param[1]}")
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    name, tile = request.param
    folder = tmp_path_factory.getbasetemp()
    (folder / "own.py").write_text(OWN)
    model, settings = (
        plugin.load_class(PACKAGE, name, what, where="", folder=folder) for what in ("Model", "Settings")
    )
    return Case(model, settings(), tile)


def signals(rows: int, columns: int, batch: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(batch, COUNT, rows, columns, generator=generator) * 20


def test_there_are_models() -> None:
    assert {"lattice", "locality", "unrolled"} <= set(NAMES)


def test_any_field_of_whole_tiles(case: Case) -> None:
    model = case.begun()
    for rows, columns in ((case.tile, case.tile), (4, 4), (6, 10)):
        estimate = model(signals(rows, columns))
        assert estimate.shape == (2, rows * SIDE, columns * SIDE)
        assert estimate.isfinite().all()


def test_learning_reaches_everything_and_helps(case: Case) -> None:
    model = case.begun()
    losses = case.descend(model, 15)
    assert losses[-1] < 0.99 * losses[0]
    signal = case.signal(specimens()).requires_grad_()
    nn.functional.mse_loss(model(signal), specimens()).backward()
    assert signal.grad is not None
    assert signal.grad.abs().sum() > 0
    unmoved = [name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()]
    assert unmoved == []


def test_weights_come_back_exactly(case: Case) -> None:
    """After some updates, so that whatever a model counts or averages has changed too."""
    model = case.begun()
    case.descend(model, 3)
    kept = model.weights()
    for weights in (kept, load(save({key: np.asarray(value, order="C") for key, value in kept.items()}))):
        again = case.model(weights, case.layout)
        model.eval()
        assert torch.equal(again(signals(4, 6)), model(signals(4, 6)))
        assert all(np.array_equal(again.weights()[key], kept[key]) for key in kept)


def test_weights_are_copies(case: Case) -> None:
    """Learning changes neither those that a model was made from nor those that it gave."""
    began = case.weights()
    model = case.model(began, case.layout)
    given = model.weights()
    case.descend(model, 1)
    assert any(not np.array_equal(value, given[key]) for key, value in model.weights().items())
    for key, value in case.weights().items():
        assert np.array_equal(began[key], value)
        assert np.array_equal(given[key], value)


def test_a_seed_is_a_seed(case: Case) -> None:
    one, same, other = case.begun(1), case.begun(1), case.begun(2)
    assert case.descend(one, 3) == case.descend(same, 3)
    assert all(np.array_equal(one.weights()[key], same.weights()[key]) for key in one.weights())
    assert any(not np.array_equal(value, other.weights()[key]) for key, value in case.weights(1).items())


def test_a_start_leaves_the_caller_its_dice(case: Case) -> None:
    before = torch.get_rng_state()
    case.weights(3)
    assert torch.equal(torch.get_rng_state(), before)


# ---------------------------------------------------------------- where they begin


def linear(case: Case, reach: int, signal: torch.Tensor) -> torch.Tensor:
    design = Design.of(case.stack, OPTICS, POWER_MW, EXPOSURE_MS, reach)
    found = lmmse.compute(design, statistics(case.design.torus_px())).weights()
    return lmmse.apply(signal, {key: torch.from_numpy(value) for key, value in found.items()}, SIDE)


@pytest.mark.parametrize("tile", [1, 2])
def test_unrolled_begins_exactly_at_the_linear_estimate(tile: int) -> None:
    case = of("unrolled", Unrolled(), tile)
    signal = signals(4, 6)
    assert torch.equal(case.begun()(signal), linear(case, REACH, signal))


@pytest.mark.parametrize("tile", [1, 2])
def test_locality_can_begin_at_the_linear_estimate_of_a_camera_pixel(tile: int) -> None:
    case = of("locality", Locality(start="linear", residual=True), tile)
    signal = signals(4, 6)
    torch.testing.assert_close(case.begun()(signal), linear(case, 0, signal), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tile", [1, 2])
def test_a_transposed_start_gives_even_light_back_evenly(tile: int) -> None:
    case = of("locality", Locality(start="transposed", residual=True), tile)
    even = torch.full((1, 64, 64), 0.3)
    inner = case.begun()(case.signal(even))[:, 16:-16, 16:-16]
    torch.testing.assert_close(inner, even[:, 16:-16, 16:-16], rtol=0.02, atol=0)


def test_the_published_model_knows_places() -> None:
    """With a tile as large as the field, every camera pixel has a map of its own."""
    case = of("locality", Locality(start="random"), 4)
    estimate = case.begun()(torch.ones(1, COUNT, 4, 4) * 10)[0].unflatten(0, (4, SIDE)).unflatten(2, (4, SIDE))
    blocks = estimate.permute(0, 2, 1, 3).flatten(0, 1)
    assert len({block.detach().numpy().tobytes() for block in blocks}) == 16


# ---------------------------------------------------------------- what unrolled sees


@pytest.mark.parametrize("tile_px", [(8, 8), (16, 8), (16, 24)])
def test_its_optics_are_those_of_the_microscope(tile_px: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    tile = torch.rand(3, *tile_px, generator=generator, dtype=torch.float64)
    aligned = Aligned(Forward(OPTICS, (32, 48), SIDE, dtype=torch.float64), tile)
    specimen = torch.rand(2, 32, 48, generator=generator, dtype=torch.float64)
    frames = torch.rand(2, 3, 4, 6, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(image(specimen, aligned.kernels, SIDE), aligned.image(specimen))
    torch.testing.assert_close(adjoint(frames, aligned.kernels, SIDE), aligned.adjoint(frames))


def test_it_learns_through_what_it_sees_and_keeps_it() -> None:
    case = of("unrolled", Unrolled(), 1)
    model = case.begun()
    case.descend(model, 2)
    masks = torch.from_numpy(case.stack.masks).float().roll(2, -1).requires_grad_()
    seen = Aligned(Forward(OPTICS, (64, 64), SIDE), masks, POWER_MW).kernels
    before = model(signals(8, 8)).detach()
    model.see(seen)
    after = model(signals(8, 8))
    after.square().sum().backward()
    assert not torch.equal(before, after)
    assert masks.grad is not None
    assert masks.grad.abs().sum() > 0
    assert np.array_equal(model.weights()["kernels"], seen.detach().numpy())
    model(signals(8, 8)).sum().backward()  # a second pass does not hang on the graph of the first

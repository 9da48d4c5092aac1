"""Every kind of specimen: the same for a seed, without edge or seam, between 0 and 1, and labelled."""

from __future__ import annotations

import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from dmu_hw.errors import InputError
from dmu_hw.physics.specimens import Beads, Filaments, Images, Layer, Nuclei, Scene, Specimen
from dmu_hw.physics.specimens.base import object_number

PIXEL_UM = 0.16
SEEDED = {"nuclei": Nuclei, "filaments": Filaments, "beads": Beads}
PLACES_UM = [(0.0, 0.0), (-37.3, 12.8), (1e6, -1e6), (-1e6, 1e6), (-123_456.7, -1e6)]


PICTURES = ((1, (60, 80)), (2, (48, 64)), (3, (33, 41)))
"""Seed and shape of the images of the test folder."""


def picture(seed: int, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Smooth discs, 8 bit, and their labels."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    image, labels = np.full(shape, 10.0), np.zeros(shape, dtype=np.uint16)
    for number in range(1, 6):
        distance = np.hypot(y - rng.uniform(0, shape[0]), x - rng.uniform(0, shape[1])) / 7
        image = np.maximum(image, 10 + 40 * number * np.exp(-(distance**4)))
        labels[distance < 0.9] = 3 * number
    return image.astype(np.uint8), labels


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images of different sizes, TIFF and PNG, with label images."""
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    for name, (seed, shape) in zip(("a.tif", "b.png", "c.tiff"), PICTURES, strict=True):
        image, labels = picture(seed, shape)
        write(tmp_path / "images" / name, image)
        tifffile.imwrite(tmp_path / "labels" / f"{name[0]}.tif", labels)
    return tmp_path


def write(path: Path, image: np.ndarray) -> None:
    if path.suffix == ".png":
        Image.fromarray(image).save(path)
    else:
        tifffile.imwrite(path, image)


@pytest.fixture(params=["nuclei", "filaments", "beads", "layer", "images", "one image"])
def specimen(request: pytest.FixtureRequest, folder: Path) -> Specimen:
    makers: dict[str, Callable[[], Specimen]] = {
        **{name: lambda kind=kind: kind(seed=7) for name, kind in SEEDED.items()},
        "layer": lambda: Layer(brightness=0.4),
        "images": lambda: Images(path=folder / "images", labels=folder / "labels", pixel_um=0.5),
        "one image": lambda: Images(path=folder / "images/a.tif", labels=folder / "labels/a.tif", pixel_um=0.5),
    }
    return makers[request.param]()


def same(one: Scene, other: Scene, *, flipped: int = 0) -> None:
    np.testing.assert_allclose(one.image, other.image, atol=1e-6)
    # A pixel whose centre is on an outline to the last digit may fall on either side.
    assert np.count_nonzero(one.labels != other.labels) <= flipped


# ---------------------------------------------------------------- all kinds


def test_scene_is_deterministic_and_in_range(specimen: Specimen) -> None:
    shape = (120, 150)
    for place in PLACES_UM:
        scene = specimen.scene(place, shape, PIXEL_UM)
        assert scene.image.shape == scene.labels.shape == shape
        assert (scene.image.dtype, scene.labels.dtype) == (np.float32, np.int32)
        assert 0 <= scene.image.min() <= scene.image.max() <= 1
        assert scene.labels.min() >= 0
        again = type(specimen).model_validate(specimen.model_dump()).scene(place, shape, PIXEL_UM)
        np.testing.assert_array_equal(scene.image, again.image)
        np.testing.assert_array_equal(scene.labels, again.labels)


@pytest.mark.parametrize("place", PLACES_UM)
@pytest.mark.parametrize("shift_px", [(0, 1), (17, -30), (-80, -60)])
def test_overlapping_windows_agree(specimen: Specimen, place: tuple[float, float], shift_px: tuple[int, int]) -> None:
    rows, columns = shape = (200, 180)
    down, right = shift_px
    one = specimen.scene(place, shape, PIXEL_UM)
    other = specimen.scene((place[0] + right * PIXEL_UM, place[1] + down * PIXEL_UM), shape, PIXEL_UM)

    def part(scene: Scene, down: int, right: int) -> Scene:
        box = slice(max(down, 0), rows + min(down, 0)), slice(max(right, 0), columns + min(right, 0))
        return Scene(scene.image[box], scene.labels[box])

    same(part(one, down, right), part(other, -down, -right), flipped=2)


def test_a_part_of_a_large_window_is_the_small_window(specimen: Specimen) -> None:
    large = specimen.scene((5.0, -9.0), (700, 600), PIXEL_UM)
    small = specimen.scene((5.0, -9.0), (60, 100), PIXEL_UM)
    same(Scene(large.image[320:380, 250:350], large.labels[320:380, 250:350]), small, flipped=2)


@pytest.mark.parametrize("place", [(0.0, 0.0), (-1e6, 1e6)])
def test_finer_pixels_show_the_same(specimen: Specimen, place: tuple[float, float]) -> None:
    coarse = specimen.scene(place, (300, 300), 0.1)
    fine = specimen.scene(place, (600, 600), 0.05)
    binned = fine.image.reshape(300, 2, 300, 2).mean(axis=(1, 3))
    assert np.sqrt(np.mean((binned - coarse.image) ** 2)) < 0.03 * np.sqrt(np.mean(coarse.image**2))
    # Away from outlines all four small pixels belong to what the large one belongs to.
    quads = fine.labels.reshape(300, 2, 300, 2).transpose(0, 2, 1, 3).reshape(300, 300, 4)
    alike = (quads == quads[..., :1]).all(axis=-1)
    assert alike.mean() > 0.9
    agree = quads[..., 0][alike] == coarse.labels[alike]
    assert agree.mean() > 0.9999


def test_no_edge(specimen: Specimen) -> None:
    for place in PLACES_UM:
        image = specimen.scene(place, (600, 600), PIXEL_UM).image
        assert image.max() > 0.3
        quarters = [image[:300, :300], image[:300, 300:], image[300:, :300], image[300:, 300:]]
        assert min(quarter.max() for quarter in quarters) > 0.1


@pytest.mark.parametrize("kind", SEEDED.values(), ids=SEEDED)
def test_labels_cover_the_objects(kind: type[Nuclei | Filaments | Beads]) -> None:
    scene = kind(seed=3).scene((40.0, 40.0), (500, 500), PIXEL_UM)
    inside = scene.labels > 0
    assert 0.002 < inside.mean() < 0.5
    assert scene.image[inside].mean() > 8 * scene.image[~inside].mean()
    assert len(np.unique(scene.labels)) > 15
    # Bright light always belongs to somebody.
    assert inside[scene.image > 0.6].all()


@pytest.mark.parametrize("kind", SEEDED.values(), ids=SEEDED)
def test_seeds_and_places_differ(kind: type[Nuclei | Filaments | Beads]) -> None:
    def image(seed: int, x_um: float) -> np.ndarray:
        return kind(seed=seed).scene((x_um, 0.0), (300, 300), PIXEL_UM).image.ravel()

    base = image(1, 0.0)
    for other in (image(2, 0.0), image(2**32 - 1, 0.0), image(1, 480.0), image(1, -480.0)):
        assert np.corrcoef(base, other)[0, 1] < 0.3


@pytest.mark.parametrize("name", ["nuclei", "filaments", "beads"])
def test_a_kind_and_a_seed_are_a_whole_entry(name: str) -> None:
    made = TypeAdapter(Specimen).validate_python({"kind": name, "seed": 1})
    assert made == SEEDED[name](seed=1)


def test_specimens_load_only_what_they_need() -> None:
    code = "import sys, dmu_hw.physics.specimens; print(*{'torch', 'scipy', 'tifffile', 'PIL'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == []


# ---------------------------------------------------------------- one kind each


@pytest.mark.parametrize("per_mm2", [300.0, 1000.0, 2000.0, 3000.0])
def test_nuclei_are_as_many_as_asked(per_mm2: float) -> None:
    pixel_um, side = 0.5, 2000
    labels = Nuclei(seed=5, per_mm2=per_mm2).scene((0.0, 0.0), (side, side), pixel_um).labels
    # Nuclei that the border cuts count half.
    border = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    count = len(np.unique(labels)) - 1 - (len(border) - 1) / 2
    assert count == pytest.approx(per_mm2 * (side * pixel_um * 1e-3) ** 2, rel=0.12)


def test_nuclei_look_like_nuclei() -> None:
    scene = Nuclei(seed=2).scene((0.0, 0.0), (1000, 1000), 0.325)
    assert 0.08 < scene.image.mean() < 0.3
    assert scene.image.max() > 0.9
    numbers, areas_px = np.unique(scene.labels[scene.labels > 0], return_counts=True)
    radii_um = np.sqrt(areas_px * 0.325**2 / np.pi)
    assert np.median(radii_um) == pytest.approx(6, rel=0.1)
    brightness = np.array([scene.image[scene.labels == number].mean() for number in numbers[:60]])
    assert brightness.std() > 0.15 * brightness.mean()
    across = (scene.labels[:, 1:] != scene.labels[:, :-1]) & (scene.labels[:, 1:] > 0) & (scene.labels[:, :-1] > 0)
    assert np.count_nonzero(across) > 50, "no nuclei touch"


def test_more_nuclei_than_there_is_room_for_are_refused() -> None:
    with pytest.raises(ValidationError, match="there is room for 45%"):
        Nuclei(seed=1, per_mm2=5000)


def test_bead_is_as_wide_as_asked() -> None:
    beads = Beads(seed=4, per_mm2=500, diameter_um=1.0, diameter_spread=0, brightness_spread=0)
    labels = beads.scene((0.0, 0.0), (1000, 1000), 0.1).labels
    areas_px = np.unique(labels[labels > 0], return_counts=True)[1]
    assert np.median(areas_px) * 0.01 == pytest.approx(np.pi / 4, rel=0.03)


def test_straight_fibre_is_as_long_and_wide_as_asked() -> None:
    fibres = Filaments(seed=4, per_mm2=100, persistence_um=1e9, width_um=1.0, length_um=40)
    labels = fibres.scene((0.0, 0.0), (3000, 3000), 0.2).labels
    areas_um2 = np.unique(labels[labels > 0], return_counts=True)[1] * 0.04
    assert areas_um2.mean() == pytest.approx(40.0, rel=0.15)


def test_persistence_bends_fibres() -> None:
    """A worm-like chain in the plane: the cosine of the angle between its ends decays over twice the persistence."""
    fibres = Filaments(seed=1, length_um=40, persistence_um=40)
    cosines = []
    for column in range(200):
        for fibre in fibres._fibres((column, 0)):
            angle = np.arctan2(np.diff(fibre.y_um), np.diff(fibre.x_um))
            length_um = np.hypot(np.diff(fibre.y_um), np.diff(fibre.x_um)).sum()
            cosines.append(np.cos(angle[-1] - angle[0]) - np.exp(-length_um / (2 * 40)))
    assert abs(np.mean(cosines)) < 4 * np.std(cosines) / np.sqrt(len(cosines)) + 0.02


def test_layer_is_uniform_and_has_no_objects() -> None:
    scene = Layer(brightness=0.25).scene((3.0, 4.0), (5, 6), 1.0)
    assert np.all(scene.image == np.float32(0.25))
    assert not scene.labels.any()


def test_numbers_of_objects_are_distinct() -> None:
    cells = [(column, row) for column in range(-30, 30) for row in range(-30, 30)]
    numbers = [object_number(cell, index) for cell in cells for index in range(0, 127, 9)]
    assert len(set(numbers)) == len(numbers)
    assert 0 < min(numbers) <= max(numbers) < 2**31


@pytest.mark.parametrize(("shape", "pixel_um"), [((0, 5), 0.1), ((5, 5), 0.0), ((5, 5), float("nan"))])
def test_windows_that_are_none(shape: tuple[int, int], pixel_um: float) -> None:
    with pytest.raises(ValueError, match="no window"):
        Beads(seed=1).scene((0.0, 0.0), shape, pixel_um)


# ---------------------------------------------------------------- images


@pytest.mark.parametrize("ending", ["tif", "png"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_image_itself_is_at_the_origin(tmp_path: Path, ending: str, dtype: type) -> None:
    image, labels = picture(1, (60, 80))
    write(tmp_path / f"a.{ending}", image.astype(dtype) * dtype(1))
    tifffile.imwrite(tmp_path / "what-it-shows.tif", labels)
    images = Images(
        path=tmp_path / f"a.{ending}", labels=tmp_path / "what-it-shows.tif", pixel_um=0.5, black=10, white=210
    )
    scene = images.scene((0.0, 0.0), (60, 80), 0.5)
    np.testing.assert_allclose(scene.image, np.clip((image - 10.0) / 200, 0, 1), atol=1e-6)
    np.testing.assert_array_equal(scene.labels > 0, labels > 0)
    for number in np.unique(labels[labels > 0]):
        assert len(np.unique(scene.labels[labels == number])) == 1
    assert len(np.unique(scene.labels)) == len(np.unique(labels))


def test_one_image_goes_on_as_in_a_mirror(tmp_path: Path) -> None:
    image, _ = picture(1, (60, 80))
    write(tmp_path / "a.tif", image)
    images = Images(path=tmp_path / "a.tif", pixel_um=0.5)
    three = images.scene((0.0, 0.0), (180, 240), 0.5)
    middle = three.image[60:120, 80:160]
    np.testing.assert_allclose(three.image, np.pad(middle, ((60, 60), (80, 80)), mode="symmetric"), atol=1e-6)
    assert not three.labels.any()


def test_images_lie_side_by_side_by_name(folder: Path) -> None:
    images = Images(path=folder / "images", pixel_um=1.0, black=0, white=255)
    a, b = (picture(seed, shape)[0] / 255 for seed, shape in PICTURES[:2])
    scene = images.scene((0.0, 0.0), (60, 80), 1.0)
    np.testing.assert_allclose(scene.image[8:-8, 8:-8], a[8:-8, 8:-8], atol=1e-6)
    right = images.scene((80.0, 0.0), (60, 80), 1.0)
    np.testing.assert_allclose(right.image[8:48, 16:72], b[8:, 8:64][:, ::-1], atol=1e-6)


def test_no_seam_between_images(folder: Path) -> None:
    """Nowhere does the brightness jump more from pixel to pixel than the images themselves do."""
    images = Images(path=folder / "images", pixel_um=1.0, black=0, white=255)
    steepest = max(
        np.abs(np.diff(picture(*given)[0] / 255.0, axis=axis)).max() for given in PICTURES for axis in (0, 1)
    )
    image = images.scene((0.0, 0.0), (4000, 500), 0.1).image
    for axis in (0, 1):
        assert np.abs(np.diff(image, axis=axis)).max() < 0.1 * steepest + 0.02


def test_levels_come_from_each_image(folder: Path) -> None:
    scene = Images(path=folder / "images", pixel_um=1.0).scene((0.0, 0.0), (400, 400), 0.5)
    assert scene.image.min() == 0
    assert scene.image.max() == 1


def test_few_bright_pixels_are_not_a_constant_image(tmp_path: Path) -> None:
    image = np.zeros((100, 100), dtype=np.uint16)
    image[50, 50] = 4000
    write(tmp_path / "a.tif", image)
    assert Images(path=tmp_path / "a.tif", pixel_um=1.0).scene((0.0, 0.0), (100, 100), 1.0).image[50, 50] == 1


def grey(shape: tuple[int, ...] = (40, 50)) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def nan_image() -> np.ndarray:
    image = grey()
    image[3, 4] = np.nan
    return image


def huge_png(path: Path) -> None:
    """A header that promises 10¹⁰ pixels."""
    Image.new("L", (40, 50)).save(path)
    whole = bytearray(path.read_bytes())
    whole[16:24] = (100_000).to_bytes(4, "big") * 2
    whole[29:33] = zlib.crc32(whole[12:29]).to_bytes(4, "big")
    path.write_bytes(whole)


REFUSED: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "missing": ("a.tif", lambda _: None, "no such file"),
    "not finite": ("a.tif", lambda path: tifffile.imwrite(path, nan_image()), "not finite"),
    "constant": ("a.tif", lambda path: tifffile.imwrite(path, np.full((40, 40), 7, np.uint8)), "same grey level"),
    "complex": ("a.tif", lambda path: tifffile.imwrite(path, grey().astype(np.complex64)), "complex64"),
    "too small": ("a.tif", lambda path: tifffile.imwrite(path, grey((40, 15))), "40×15"),
    "colour tiff": (
        "a.tif",
        lambda path: tifffile.imwrite(path, np.zeros((40, 50, 3), np.uint8), photometric="rgb"),
        "colour",
    ),
    "inverted tiff": ("a.tif", lambda path: tifffile.imwrite(path, grey(), photometric="miniswhite"), "inverted"),
    "stack": ("a.tif", lambda path: tifffile.imwrite(path, grey((4, 40, 50)), photometric="minisblack"), "4 pages"),
    "colour png": ("a.png", lambda path: Image.new("RGB", (40, 50)).save(path), "colour"),
    "palette png": ("a.png", lambda path: Image.new("P", (40, 50)).save(path), "colour"),
    "huge png": ("a.png", huge_png, "more than"),
    "png that is text": ("a.png", lambda path: path.write_text("no picture"), "cannot be read"),
    "tiff that is text": ("a.tif", lambda path: path.write_text("no picture"), "cannot be read"),
    "empty file": ("a.tif", lambda path: path.write_bytes(b""), "cannot be read"),
    "other ending": ("a.txt", lambda path: path.write_text("no picture"), "not a picture"),
    "empty folder": ("a", lambda path: path.mkdir(), "holds no picture"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_images_that_are_refused(tmp_path: Path, case: str) -> None:
    name, make, why = REFUSED[case]
    make(tmp_path / name)
    images = Images(path=tmp_path / name, pixel_um=0.5)
    with pytest.raises(InputError, match=why) as caught:
        images.scene((0.0, 0.0), (10, 10), 0.5)
    assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize("ending", ["tif", "png"])
def test_files_cut_short_are_refused_wherever_they_are_cut(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    write(path, picture(1, (60, 80))[0])
    whole = path.read_bytes()
    for length in range(0, len(whole) - 20, max(len(whole) // 60, 1)):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match="cannot be read"):
            _ = Images(path=path, pixel_um=0.5).mosaic


def refusals(path: Path) -> list[str]:
    try:
        _ = Images(path=path, pixel_um=0.5).mosaic
    except InputError as error:
        return [str(problem) for problem in error.problems]
    return []


@pytest.mark.parametrize("ending", ["tif", "png"])
def test_damaged_files_are_read_or_refused(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    write(path, picture(1, (60, 80))[0])
    whole = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        damaged = whole.copy()
        damaged[rng.integers(0, min(len(whole), 300), 3)] = rng.integers(0, 256, 3)
        path.write_bytes(damaged.tobytes())
        problems = refusals(path)
        assert all(problem.startswith(str(path)) for problem in problems)
        refused += bool(problems)
    assert 50 < refused < 300


def test_all_bad_images_are_named_at_once(folder: Path) -> None:
    tifffile.imwrite(folder / "images/d.tif", np.zeros((40, 40), np.uint8))
    (folder / "images/e.png").write_text("no picture")
    (folder / "images/notes.txt").write_text("not looked at")
    with pytest.raises(InputError) as caught:
        _ = Images(path=folder / "images", pixel_um=0.5).mosaic
    assert [Path(problem.where).name for problem in caught.value.problems] == ["d.tif", "e.png"]


LABELS_REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (Path.unlink, "no label image of the same name"),
    "other size": (lambda path: tifffile.imwrite(path, np.zeros((60, 81), np.uint8)), "60×81 pixels, its image 60×80"),
    "not whole": (lambda path: tifffile.imwrite(path, np.zeros((60, 80), np.float32)), "whole numbers"),
    "negative": (lambda path: tifffile.imwrite(path, np.full((60, 80), -1, np.int16)), "from 0 up"),
}


@pytest.mark.parametrize("case", LABELS_REFUSED)
def test_label_images_that_are_refused(folder: Path, case: str) -> None:
    spoil, why = LABELS_REFUSED[case]
    spoil(folder / "labels/a.tif")
    with pytest.raises(InputError, match=why) as caught:
        _ = Images(path=folder / "images", labels=folder / "labels", pixel_um=0.5).mosaic
    assert "a.tif" in caught.value.problems[0].where


@pytest.mark.parametrize(("black", "white"), [(300.0, None), (None, 5.0)])
def test_levels_outside_the_image_are_refused(folder: Path, black: float | None, white: float | None) -> None:
    with pytest.raises(InputError, match="grey levels are"):
        _ = Images(path=folder / "images/a.tif", pixel_um=0.5, black=black, white=white).mosaic


def test_white_below_black_is_refused_at_once() -> None:
    with pytest.raises(ValidationError, match="white 5 must be above black 9"):
        Images(path=Path("any.tif"), pixel_um=0.5, black=9, white=5)

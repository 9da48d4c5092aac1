"""Folders as people have them: any mix of files is learned from, or refused with the name of every bad one."""

from __future__ import annotations

import csv
import importlib.util
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from dmu_hw.dataset import SPLITS, FolderData, ScenesData
from dmu_hw.errors import InputError
from dmu_hw.images import Images
from dmu_hw.physics.specimens import Nuclei

PIXEL_UM = 0.5
Write = Callable[[Path, np.ndarray], object]


def grey(side: int = 32, dtype: Any = np.uint8) -> np.ndarray:
    """Not square, with whole numbers from 0 up."""
    values = np.random.default_rng(side).integers(0, 200, (side, side + 3))
    values[0, :2] = 0, 199
    return values.astype(dtype)


def write_tiff(path: Path, pixels: np.ndarray, **more: Any) -> None:
    tifffile.imwrite(path, pixels, photometric=more.pop("photometric", "minisblack"), **more)


def write_png(path: Path, pixels: np.ndarray, *, colour_type: int = 0) -> None:
    """16 bits, which Pillow writes for grey alone."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, colour_type, 0, 0, 0)
    blocks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
            for name, data in blocks
        )
    )


def copies(pixels: np.ndarray, count: int, axis: int) -> np.ndarray:
    """Channels that differ."""
    return np.stack([np.roll(pixels, channel, 0) for channel in range(count)], axis)


def spoilt(value: float) -> Write:
    def write(path: Path, pixels: np.ndarray) -> None:
        pixels = pixels.astype(np.float32)
        pixels[3, 4] = value
        write_tiff(path, pixels)

    return write


def cut_short(path: Path, pixels: np.ndarray) -> None:
    write_tiff(path, pixels)
    path.write_bytes(path.read_bytes()[: pixels.size // 2])


def two_sizes(path: Path, pixels: np.ndarray) -> None:
    with tifffile.TiffWriter(path) as file:
        file.write(pixels)
        file.write(pixels[:-4])


PLACE = (
    '<TiffData IFD="{ifd}" FirstC="{channel}" PlaneCount="1">'
    '<UUID FileName="{name}">urn:uuid:00000000-0000-0000-0000-00000000000{channel}</UUID></TiffData>'
)


def part_of_several_files(pages: int) -> Write:
    """A first OME-TIFF that names another, which is gone."""

    def write(path: Path, pixels: np.ndarray) -> None:
        height, width = pixels.shape
        own = [PLACE.format(ifd=page, channel=page, name=path.name) for page in range(pages)]
        places = "".join([*own, PLACE.format(ifd=0, channel=pages, name="gone.ome.tif")])
        text = (
            '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"'
            ' UUID="urn:uuid:00000000-0000-0000-0000-000000000000"><Image ID="Image:0"><Pixels ID="Pixels:0"'
            f' DimensionOrder="XYCZT" Type="uint8" SizeX="{width}" SizeY="{height}" SizeC="{pages + 1}" SizeZ="1"'
            f' SizeT="1">{places}</Pixels></Image></OME>'
        )
        with tifffile.TiffWriter(path) as file:
            for page in range(pages):
                file.write(np.roll(pixels, page, 0), description=text if page == 0 else None, metadata=None)

    return write


def palette(path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).convert("P").save(path)


def moving(path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(path, save_all=True, append_images=[Image.fromarray(255 - pixels)])


LZW_IS_READ = importlib.util.find_spec("imagecodecs") is not None

KINDS: dict[str, tuple[str, int, Write]] = {
    "8 bits": ("tif", 1, write_tiff),
    "8 bits, ending in capitals": ("TIFF", 1, write_tiff),
    "16 bits": ("tif", 1, lambda path, pixels: write_tiff(path, pixels.astype(np.uint16) * 300)),
    "signed": ("tif", 1, lambda path, pixels: write_tiff(path, pixels.astype(np.int16) - 100)),
    "64 bits": ("tif", 1, lambda path, pixels: write_tiff(path, pixels.astype(np.uint64) << np.uint64(54))),
    "real": ("tif", 1, lambda path, pixels: write_tiff(path, pixels.astype(np.float32) / 7)),
    "half": ("tif", 1, lambda path, pixels: write_tiff(path, pixels.astype(np.float16))),
    "very large": ("tif", 1, lambda path, pixels: write_tiff(path, pixels * 1e305)),
    "very small": ("tif", 1, lambda path, pixels: write_tiff(path, pixels * 1e-320)),
    "truth": ("tif", 1, lambda path, pixels: write_tiff(path, pixels > 100)),
    "deflated": ("tif", 1, lambda path, pixels: write_tiff(path, pixels, compression="zlib", predictor=True)),
    "8-bit png": ("png", 1, lambda path, pixels: Image.fromarray(pixels).save(path)),
    "16-bit png": ("png", 1, lambda path, pixels: Image.fromarray(pixels.astype(np.uint16) * 300).save(path)),
    "1-bit png": ("png", 1, lambda path, pixels: Image.fromarray(pixels > 100).save(path)),
    "grey png with alpha": ("png", 1, lambda path, pixels: Image.fromarray(pixels).convert("LA").save(path)),
    "colour png, all alike": ("png", 3, lambda path, pixels: Image.fromarray(pixels).convert("RGB").save(path)),
    "colour png with alpha": ("png", 3, lambda path, pixels: Image.fromarray(pixels).convert("RGBA").save(path)),
    "colour tiff": ("tif", 3, lambda path, pixels: write_tiff(path, copies(pixels, 3, 2), photometric="rgb")),
    "colour tiff with alpha": (
        "tif",
        3,
        lambda path, pixels: write_tiff(path, copies(pixels, 4, 2), photometric="rgb", extrasamples=["unassalpha"]),
    ),
    "colour planes": (
        "tif",
        3,
        lambda path, pixels: write_tiff(path, copies(pixels, 3, 0), photometric="rgb", planarconfig="separate"),
    ),
    "pages": ("tif", 4, lambda path, pixels: write_tiff(path, copies(pixels, 4, 0))),
    "channels last": ("tif", 2, lambda path, pixels: write_tiff(path, copies(pixels, 2, 2))),
    "samples": ("tif", 5, lambda path, pixels: write_tiff(path, copies(pixels, 5, 2), planarconfig="contig")),
    "imagej": ("tif", 2, lambda path, pixels: write_tiff(path, copies(pixels, 2, 0), imagej=True)),
    "ome channels": (
        "ome.tif",
        3,
        lambda path, pixels: write_tiff(path, copies(pixels, 3, 0), ome=True, metadata={"axes": "CYX"}),
    ),
    "ome stack": (
        "ome.tif",
        0,
        lambda path, pixels: write_tiff(path, copies(pixels, 3, 0), ome=True, metadata={"axes": "ZYX"}),
    ),
    "ome of one page among several": ("ome.tif", 1, part_of_several_files(1)),
    "ome of two pages among several": ("ome.tif", 0, part_of_several_files(2)),
    "four axes": (
        "tif",
        0,
        lambda path, pixels: write_tiff(path, copies(copies(pixels, 3, 0), 2, 0), metadata={"axes": "CQYX"}),
    ),
    "16-bit colour png": ("png", 0, lambda path, pixels: write_png(path, copies(pixels, 3, 2), colour_type=2)),
    "16-bit png with alpha": ("png", 0, lambda path, pixels: write_png(path, copies(pixels, 2, 2), colour_type=4)),
    "palette": ("png", 0, palette),
    "moving": ("png", 0, moving),
    "inverted": ("tif", 0, lambda path, pixels: write_tiff(path, pixels, photometric="miniswhite")),
    "two sizes": ("tif", 0, two_sizes),
    "complex": ("tif", 0, lambda path, pixels: write_tiff(path, pixels.astype(np.complex64))),
    "nan": ("tif", 0, spoilt(np.nan)),
    "infinite": ("tif", 0, spoilt(np.inf)),
    "too far apart": ("tif", 0, lambda path, pixels: write_tiff(path, (pixels - 100.0) * 1.7e306)),
    "constant": ("tif", 0, lambda path, pixels: write_tiff(path, np.full_like(pixels, 7))),
    "narrow": ("tif", 0, lambda path, pixels: write_tiff(path, pixels[:, :15])),
    "one row": ("tif", 0, lambda path, pixels: write_tiff(path, pixels[:1])),
    "lzw": ("tif", int(LZW_IS_READ), lambda path, pixels: Image.fromarray(pixels).save(path, compression="tiff_lzw")),
    "cut short": ("tif", 0, cut_short),
    "empty": ("png", 0, lambda path, _: path.write_bytes(b"")),
    "text": ("tif", 0, lambda path, _: path.write_text("no picture")),
    "folder": ("tif", 0, lambda path, _: path.mkdir()),
}
"""Ending, channels that can be learned from, and how to make one."""

LABELS: dict[str, Write | None] = {
    "sound": write_tiff,
    "png": lambda path, labels: Image.fromarray(labels).save(path.with_suffix(".png")),
    "none": None,
    "other size": lambda path, labels: write_tiff(path, labels[1:]),
    "real": lambda path, labels: write_tiff(path, labels.astype(np.float32)),
    "colour": lambda path, labels: write_tiff(path, copies(labels, 3, 2), photometric="rgb"),
    "negative": lambda path, labels: write_tiff(path, labels.astype(np.int16) - 1),
}
SOUND_LABELS = ("sound", "png")


def lay_out(folder: Path, pictures: list[tuple[str, str, int]]) -> FolderData:
    """One sound image a split, and these: kind, labels, side."""
    (folder / "images").mkdir()
    (folder / "labels").mkdir()
    rows = []
    for index, (kind, labels, side) in enumerate([("8 bits", "sound", 32)] * 3 + pictures):
        ending, _, write = KINDS[kind]
        path = folder / "images" / f"{index:02}.{ending}"
        write(path, grey(side))
        if (write_labels := LABELS[labels]) is not None:
            write_labels(folder / "labels" / f"{path.stem}.tif", (grey(side) // 67).astype(np.uint8))
        rows.append((path.stem, SPLITS[index % 3]))
    with open(folder / "split.csv", "w", newline="") as file:
        csv.writer(file).writerows([("id", "split"), *rows])
    return FolderData(kind="folder", path=folder / "images", split=folder / "split.csv", labels=folder / "labels")


def is_sound(kind: str, channel: int | None, labels: str) -> bool:
    count = KINDS[kind][1]
    return labels in SOUND_LABELS and (count == 1 if channel is None else channel < count)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channel", [None, 0, 2])
def test_every_kind_is_used_or_refused_by_name(tmp_path: Path, kind: str, channel: int | None) -> None:
    data = lay_out(tmp_path, [(kind, "sound", 40)]).model_copy(update={"channel": channel, "unusable": "leave out"})
    if channel == 2:
        with pytest.raises(InputError, match="no image is left for val") as caught:  # of grey ones it is the only one
            Images.load(data, PIXEL_UM)
        named = [problem.where for problem in caught.value.problems]
    else:
        images = Images.load(data, PIXEL_UM)
        named = [problem.where for problem in images.left_out]
        assert sum(map(len, images.by_split.values())) == (4 if is_sound(kind, channel, "sound") else 3)
    assert any(f"{os.sep}03." in where for where in named) != is_sound(kind, channel, "sound")


@settings(max_examples=25, deadline=None)
@given(
    pictures=st.lists(
        st.tuples(st.sampled_from(sorted(KINDS)), st.sampled_from(sorted(LABELS)), st.integers(16, 64)), max_size=5
    ),
    channel=st.sampled_from([None, 0]),
    labelled=st.booleans(),
    ratio=st.sampled_from([None, 1.0, 1.7]),
)
def test_any_mix_is_learned_from_or_every_bad_image_is_named(
    pictures: list[tuple[str, str, int]], channel: int | None, labelled: bool, ratio: float | None
) -> None:
    with TemporaryDirectory() as folder:
        data = lay_out(Path(folder), pictures).model_copy(
            update={"channel": channel, "pixel_um": ratio and ratio * PIXEL_UM}
        )
        bad = {
            f"{index:02}"
            for index, (kind, labels, _) in enumerate(pictures, start=3)
            if not is_sound(kind, channel, labels if labelled else "sound")
        }
        images = Images.load(data.model_copy(update={"unusable": "leave out"}), PIXEL_UM, labelled)
        assert {Path(problem.where).name[:2] for problem in images.left_out} == bad
        samples = [sample for split in images.by_split.values() for sample in split]
        assert len(samples) == 3 + len(pictures) - len(bad)
        for sample in samples:
            assert sample.image.dtype == np.float32
            assert 0 <= sample.image.min() < sample.image.max() <= 1
            assert (sample.labels is not None) == labelled
            assert sample.labels is None or sample.labels.shape == sample.image.shape
        if bad:
            with pytest.raises(InputError) as caught:
                Images.load(data, PIXEL_UM, labelled)
            assert caught.value.problems == images.left_out
        else:
            assert Images.load(data, PIXEL_UM, labelled).hash == images.hash


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(sorted(KINDS.keys() - {"folder", "empty"})),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6),
    channel=st.sampled_from([None, 0]),
)
def test_damaged_files_are_read_or_named(kind: str, changes: list[tuple[float, int]], channel: int | None) -> None:
    with TemporaryDirectory() as folder:
        data = lay_out(Path(folder), [(kind, "sound", 20)])
        path = next(data.path.glob("03.*"))
        damaged = bytearray(path.read_bytes())
        for place, value in changes:
            damaged[int(place**3 * len(damaged))] = value  # more of them in the header
        path.write_bytes(damaged)
        images = Images.load(data.model_copy(update={"channel": channel, "unusable": "leave out"}), PIXEL_UM)
        assert {problem.where for problem in images.left_out} <= {str(path)}
        assert sum(map(len, images.by_split.values())) == 4 - len(images.left_out)


# ---------------------------------------------------------------- channels, levels, other pixels


@pytest.mark.parametrize("kind", ["colour tiff", "colour planes", "pages", "samples", "ome channels"])
def test_the_channel_that_was_asked_for(tmp_path: Path, kind: str) -> None:
    data = lay_out(tmp_path, [(kind, "sound", 40)])
    for index in range(3):
        (data.path / f"0{index}.tif").unlink()
        KINDS["pages"][2](data.path / f"0{index}.tif", grey(32))
    images = [Images.load(data.model_copy(update={"channel": channel}), PIXEL_UM) for channel in (0, 2)]
    first, third = (loaded.by_split["train"][1].image for loaded in images)
    assert np.array_equal(np.roll(first, 2, 0), third)


def test_given_levels_hold_for_all_images(tmp_path: Path) -> None:
    data = lay_out(tmp_path, []).model_copy(update={"black": 50.0, "white": 398.0})
    sample = Images.load(data, PIXEL_UM).by_split["train"][0]
    assert np.allclose(sample.image, (grey().astype(float).clip(50) - 50) / 348)


def test_levels_that_leave_nothing(tmp_path: Path) -> None:
    data = lay_out(tmp_path, []).model_copy(update={"black": 300.0})
    with pytest.raises(InputError, match=r"00\.tif: black 300 is not below white .* 0 to 199"):
        Images.load(data, PIXEL_UM)


def test_larger_object_pixels_hold_the_mean_of_smaller_ones(tmp_path: Path) -> None:
    data = lay_out(tmp_path, []).model_copy(update={"pixel_um": PIXEL_UM / 4, "black": 0.0, "white": 255.0})
    board = np.indices((128, 160)).sum(axis=0) % 2 * 200
    halves = np.zeros((128, 160), np.uint8)
    halves[:, 80:] = 9
    for index in range(3):
        write_tiff(data.path / f"0{index}.tif", board.astype(np.uint8))
        write_tiff(data.path.parent / f"labels/0{index}.tif", halves)
    sample = Images.load(data, PIXEL_UM, labelled=True).by_split["train"][0]
    assert sample.image.shape == (32, 40)
    assert np.allclose(sample.image, 100 / 255, atol=0.01)
    assert sample.labels is not None
    assert np.array_equal(sample.labels, np.repeat([[0] * 20 + [1] * 20], 32, axis=0))


def test_smaller_object_pixels_lie_between_the_old_ones(tmp_path: Path) -> None:
    data = lay_out(tmp_path, []).model_copy(update={"pixel_um": 2 * PIXEL_UM})
    write_tiff(data.path / "01.tif", np.tile(grey()[0], (32, 1)))
    native = Images.load(data.model_copy(update={"pixel_um": None}), PIXEL_UM, labelled=True).by_split["val"][0]
    fine = Images.load(data, PIXEL_UM, labelled=True).by_split["val"][0]
    assert fine.image.shape == (64, 70)
    assert np.allclose(fine.image[:, 2:-2:2], 0.75 * native.image[0, 1:-1] + 0.25 * native.image[0, :-2], atol=1e-6)
    assert native.labels is not None
    assert fine.labels is not None
    assert np.array_equal(fine.labels, native.labels.repeat(2, 0).repeat(2, 1))


@pytest.mark.parametrize("pixel_um", [1e-3, 1e-300, 1e6, 1.7e308])
def test_pixels_of_another_world(tmp_path: Path, pixel_um: float) -> None:
    data = lay_out(tmp_path, []).model_copy(update={"pixel_um": pixel_um})
    with pytest.raises(InputError, match=r"pixels of 0\.5 µm") as caught:
        Images.load(data, PIXEL_UM)
    assert [Path(problem.where).name for problem in caught.value.problems] == ["00.tif", "01.tif", "02.tif"]


# ---------------------------------------------------------------- labels


def test_labels_come_with_their_images(tmp_path: Path) -> None:
    data = lay_out(tmp_path, [])
    images = Images.load(data, PIXEL_UM, labelled=True)
    for split in SPLITS:
        labels = images.by_split[split][0].labels
        assert labels is not None
        assert labels.dtype == np.int32
        assert np.array_equal(labels, grey() // 67)
    bare = Images.load(data, PIXEL_UM)
    assert bare.by_split["train"][0].labels is None
    write_tiff(tmp_path / "labels/01.tif", np.zeros((32, 35), np.uint8))
    assert Images.load(data, PIXEL_UM, labelled=True).hash != images.hash
    assert Images.load(data, PIXEL_UM).hash == bare.hash


def test_labels_are_wanted_and_there_are_none(tmp_path: Path) -> None:
    data = lay_out(tmp_path, []).model_copy(update={"labels": None})
    with pytest.raises(InputError, match=r"images: has images without labels; `labels` names the folder"):
        Images.load(data, PIXEL_UM, labelled=True)


def test_two_label_images_of_one_image(tmp_path: Path) -> None:
    data = lay_out(tmp_path, [])
    Image.fromarray(grey()).save(tmp_path / "labels/01.png")
    with pytest.raises(InputError, match=r"01\.tif: there is 01\.png too"):
        Images.load(data, PIXEL_UM, labelled=True)


def test_scenes_have_labels() -> None:
    data = ScenesData(kind="scenes", specimen=Nuclei(kind="nuclei", seed=1), train=2, held_back=1, side_px=256)
    for sample in Images.load(data, 0.325, labelled=True).by_split["train"]:
        assert sample.labels is not None
        count = sample.labels.max()
        assert set(np.unique(sample.labels)) == set(range(count + 1))
        assert count > 0
        assert sample.image[sample.labels > 0].mean() > 2 * sample.image[sample.labels == 0].mean()


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"black": 2.0, "white": 1.0}, "white 1 must be above black 2"),
        ({"channel": -1}, "greater than or equal to 0"),
        ({"labels": Path("a")}, "labels must be another folder than path"),
        ({"pixel_um": 0.0}, "greater than 0"),
        ({"unusable": "leave"}, "refuse"),
    ],
)
def test_settings_that_cannot_be_meant(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        FolderData(kind="folder", path=Path("a"), **keys)


# ---------------------------------------------------------------- too much


def huge(path: Path, side: int) -> None:
    """A header alone: whoever reads on is refused."""
    Image.new("L", (40, 40)).save(path)
    whole = bytearray(path.read_bytes())
    whole[16:24] = side.to_bytes(4, "big") * 2
    whole[29:33] = zlib.crc32(whole[12:29]).to_bytes(4, "big")
    path.write_bytes(whole)


def test_more_than_memory_holds_is_refused_before_it_is_read(tmp_path: Path) -> None:
    data = lay_out(tmp_path, []).model_copy(update={"split": None})
    for index in range(32):
        huge(data.path / f"large{index}.png", 8000)
    with pytest.raises(InputError, match=r"images: 35 images: 8\.2 GB in memory .* at most 8 GB") as caught:
        Images.load(data, PIXEL_UM)
    assert len(caught.value.problems) == 1
    with pytest.raises(InputError, match=r"large0\.png: cannot be read"):  # 0.9² of it could be held
        Images.load(data.model_copy(update={"pixel_um": PIXEL_UM * 0.9}), PIXEL_UM)


def test_more_scenes_than_memory_holds() -> None:
    data = ScenesData(kind="scenes", specimen=Nuclei(kind="nuclei", seed=1), train=400, side_px=2048)
    with pytest.raises(InputError, match=r"464 scenes of 2048×2048 pixels: 15\.6 GB .* at most 8 GB"):
        Images.load(data, 0.325, labelled=True)


# ---------------------------------------------------------------- lists


def test_a_list_that_puts_one_image_into_two_splits(tmp_path: Path) -> None:
    data = lay_out(tmp_path, [])
    (tmp_path / "split.csv").write_text("\ufeffid,split\n00,train\n01,val\n00,test\n02,exam\n", encoding="utf-8")
    with pytest.raises(InputError) as caught:
        Images.load(data, PIXEL_UM)
    assert [str(problem).partition("split.csv")[2] for problem in caught.value.problems] == [
        ":4: 00 was in train before",
        ":5: split must be one of train, val, test; given 'exam'",
    ]


@settings(max_examples=40, deadline=None)
@given(text=st.text("id,split\n\"'\r\x00 0atrainval", max_size=60) | st.just("id,split\n" + "a" * 200_000))
def test_any_text_for_a_list(text: str) -> None:
    with TemporaryDirectory() as folder:
        data = lay_out(Path(folder), [])
        (Path(folder) / "split.csv").write_text(text, encoding="utf-8")
        with pytest.raises(InputError):
            Images.load(data, PIXEL_UM)


# ---------------------------------------------------------------- real images


@pytest.mark.skipif("DMU_DATA" not in os.environ, reason="DMU_DATA names no folder with the nuclei")
def test_the_nuclei() -> None:
    folder = Path(os.environ["DMU_DATA"]) / "nuclei"
    data = FolderData(
        kind="folder", path=folder / "images", split=folder / "index.csv", labels=folder / "labels", unusable="refuse"
    )
    with open(folder / "index.csv", newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["id"])
    assert [path.stem for path in sorted(data.path.iterdir())] == [row["id"] for row in rows]
    images = Images.load(data, PIXEL_UM, labelled=True)
    for split in SPLITS:
        samples, listed = images.by_split[split], [row for row in rows if row["split"] == split]
        assert len(samples) == len(listed)
        for sample, row in zip(samples, listed, strict=True):
            assert sample.image.shape == (int(row["height"]), int(row["width"]))
            assert sample.labels is not None
            assert sample.labels.max() == int(row["nuclei"])
    assert sum(map(len, images.by_split.values())) == 434

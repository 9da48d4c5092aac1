"""Bundle files: exact there and back, refused when a single byte is not as it was saved, compared with the rig."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import save

from dmu_hw import bundle as module
from dmu_hw.bundle import Bundle, Header, Weights
from dmu_hw.data import PatternStack
from dmu_hw.errors import InputError
from dmu_hw.physics.optics import AiryPsf, Dye, GaussianPsf, Optics, Sensor

OPTICS = Optics(
    object_pixel_um=0.5,
    sensor_pixel_um=1.0,
    excitation=GaussianPsf(sigma_um=0.3),
    emission=AiryPsf(na=0.75, wavelength_nm=525),
    dye=Dye(photons_per_um2_mw_ms=100.0),
    sensor=Sensor(read_noise_e=2.0, gain_adu_per_e=0.5),
)


def made(stack: PatternStack, weights: Weights, **changes: Any) -> Bundle:
    facts: dict[str, Any] = {
        "name": "test",
        "model": "ridge",
        "patterns_name": stack.name,
        "pattern_hashes": stack.hashes,
        "tile_px": stack.tile_px,
        "camera_pixel": stack.camera_pixel,
        "optics": OPTICS,
        "power_mw": 0.1,
        "exposure_ms": 1 / 3,
        "dose_mj_cm2": 1e-30,
        "metrics": {"psnr_db": 27.1},
        "trained_on": 'µm, "quotes" and \\',
    }
    return Bundle(Header(**facts | changes), stack, weights)


@pytest.fixture
def small() -> Bundle:
    masks = np.random.default_rng(0).random((3, 4, 6)) < 0.5
    rng = np.random.default_rng(1)
    weights = {"mean": np.asarray(0.25, np.float32), "kernels": rng.random((2, 3, 5)).astype(np.float32)}
    return made(PatternStack("random", masks, 2), weights)


@pytest.fixture
def saved(small: Bundle, tmp_path: Path) -> Path:
    path = tmp_path / "small.dmu"
    small.save(path)
    return path


def refusal(path: Path) -> str:
    """The one reason why a file is refused; it names the file."""
    with pytest.raises(InputError) as error:
        Bundle.load(path)
    (problem,) = error.value.problems
    assert problem.where == str(path)
    assert "\n" not in problem.what
    return problem.what


# ---------------------------------------------------------------- there and back

DTYPES = st.sampled_from([np.float32, np.float64, np.float16, np.int64, np.int32, np.uint8, np.bool_])
NAMES = st.text("abcdefghijklmnopqrstuvwxyz_.0123456789µ", min_size=1, max_size=12)


@st.composite
def bundles(draw: st.DrawFn) -> Bundle:
    side = draw(st.integers(1, 5))
    shape = (draw(st.integers(1, 5)), side * draw(st.integers(1, 4)), side * draw(st.integers(1, 4)))
    masks = draw(hnp.arrays(np.bool_, shape))
    arrays = DTYPES.flatmap(
        lambda kind: hnp.arrays(kind, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
    )
    weights = draw(st.dictionaries(NAMES, arrays, max_size=4))
    power_mw, exposure_ms = (draw(st.floats(1e-300, 1e300)) for _ in range(2))
    return made(PatternStack("drawn", masks, side), weights, power_mw=power_mw, exposure_ms=exposure_ms)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bundles())
def test_what_is_loaded_is_what_was_saved(tmp_path: Path, bundle: Bundle) -> None:
    path = tmp_path / "drawn.dmu"
    bundle.save(path)
    loaded = Bundle.load(path)
    assert loaded.header == bundle.header
    assert loaded.hash == bundle.hash
    assert loaded.patterns.hash == bundle.patterns.hash
    assert np.array_equal(loaded.patterns.masks, bundle.patterns.masks)
    assert loaded.weights.keys() == bundle.weights.keys()
    for key, value in bundle.weights.items():
        assert loaded.weights[key].dtype == value.dtype
        assert loaded.weights[key].shape == value.shape
        assert loaded.weights[key].tobytes() == value.tobytes()
        assert loaded.weights[key].flags.writeable, "torch wants to be able to write"


def test_the_same_bundle_is_the_same_file(small: Bundle, tmp_path: Path) -> None:
    for i in range(8):
        small.save(tmp_path / f"{i}.dmu")
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_a_transposed_array_keeps_its_order(small: Bundle, tmp_path: Path) -> None:
    across = np.arange(6, dtype=np.float32).reshape(2, 3).T
    bundle = made(small.patterns, {"across": across})
    bundle.save(tmp_path / "a.dmu")
    assert np.array_equal(Bundle.load(tmp_path / "a.dmu").weights["across"], across)


def test_the_hash_tells_bundles_apart(small: Bundle) -> None:
    other_light = made(small.patterns, small.weights, power_mw=0.2)
    other_weights = made(small.patterns, small.weights | {"mean": np.asarray(0.26, np.float32)})
    other_shape = made(small.patterns, small.weights | {"mean": np.asarray([0.25], np.float32)})
    assert len({bundle.hash for bundle in (small, other_light, other_weights, other_shape)}) == 4


# ---------------------------------------------------------------- damaged files


def test_every_flipped_byte_is_refused(saved: Path, tmp_path: Path) -> None:
    """Header length, header, padding, checksum, patterns and weights alike."""
    raw, damaged = saved.read_bytes(), tmp_path / "damaged.dmu"
    rng = np.random.default_rng(2)
    for place, flip in enumerate(rng.integers(1, 256, len(raw)).tolist()):
        damaged.write_bytes(raw[:place] + bytes([raw[place] ^ flip]) + raw[place + 1 :])
        refusal(damaged)


@pytest.mark.parametrize(("old", "new"), [(b"1e-30", b"1E-30"), (b"0.1,", b"1e-1"), (b"a", b"A")])
def test_even_a_change_without_a_meaning_is_refused(saved: Path, old: bytes, new: bytes) -> None:
    raw = saved.read_bytes()
    assert old in raw
    saved.write_bytes(raw.replace(old, new, 1))
    refusal(saved)


def test_even_another_kind_of_padding_is_refused(small: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "padded.dmu"
    for letters in range(8):
        made(small.patterns, small.weights, name="x" * (letters + 1)).save(path)
        raw = path.read_bytes()
        end = 8 + int.from_bytes(raw[:8], "little")
        if raw[end - 1 : end] == b" ":
            path.write_bytes(raw[: end - 1] + b"\n" + raw[end:])
            refusal(path)
            return
    raise AssertionError("safetensors pads no header")


def test_every_cut_is_refused(saved: Path, tmp_path: Path) -> None:
    raw, cut = saved.read_bytes(), tmp_path / "cut.dmu"
    for length in [*range(40), *range(40, len(raw), 17), len(raw) - 1]:
        cut.write_bytes(raw[:length])
        refusal(cut)
    cut.write_bytes(raw + b"\0")
    refusal(cut)


def swapped(raw: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    """The same file with another header, and a checksum that fits."""
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    content = json.loads(header["__metadata__"]["dmu"])
    content["sha256"] = "0" * 64
    change(content["header"])
    header["__metadata__"]["dmu"] = json.dumps(content, separators=(",", ":"), ensure_ascii=False)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return module._sealed(len(text).to_bytes(8, "little") + text + raw[8 + length :])


def test_a_changed_header_with_its_checksum_is_read(saved: Path) -> None:
    """So that the refusals below are those of the content."""
    saved.write_bytes(swapped(saved.read_bytes(), lambda header: header.update(name="other")))
    assert Bundle.load(saved).header.name == "other"


UNFIT: dict[str, tuple[dict[str, Any], str]] = {
    "a later format": ({"format": 2}, "has format 2; this version reads format 1"),
    "a format that is none": ({"format": "x"}, "has format x"),
    "an unknown key": ({"colour": "red"}, "colour"),
    "no optics": ({"optics": None}, "optics"),
    "a power of nothing": ({"power_mw": 0}, "power_mw"),
    "fewer patterns": ({"pattern_hashes": ["00"]}, "shape that its header says"),
    "other patterns": ({"pattern_hashes": ["0" * 16] * 3}, "not those that its header names"),
    "another tile": ({"tile_px": [4, 9]}, "shape that its header says"),
    "a tile of the same bytes": ({"tile_px": [4, 7]}, "cannot be used"),
    "a camera pixel that does not fit": ({"camera_pixel": 5}, "not a multiple of the camera pixel"),
}


@pytest.mark.parametrize(("change", "says"), UNFIT.values(), ids=UNFIT)
def test_a_header_that_does_not_fit_is_refused(saved: Path, change: dict[str, Any], says: str) -> None:
    saved.write_bytes(swapped(saved.read_bytes(), lambda header: header.update(change)))
    assert says in refusal(saved)


def sealed(tensors: Weights, text: str) -> bytes:
    return module._sealed(save(tensors, metadata={"dmu": text}))


SEAL = '{"sha256":"' + "0" * 64 + '"'
PACKED = np.zeros((1, 2, 1), np.uint8)
FOREIGN: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "is no bundle, or damaged"),
    "text": (b"kind: run\n", "is no bundle, or damaged"),
    "a pickle": (
        b"\x80\x04\x95\x1b\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",
        "no bundle",
    ),
    "a header longer than memory": (b"\xff" * 8 + b"{}", "is no bundle, or damaged"),
    "a header longer than the file": ((10_000).to_bytes(8, "little") + b"{}", "is no bundle, or damaged"),
    "a deep header": ((60_000).to_bytes(8, "little") + b"[" * 60_000, "is no bundle, or damaged"),
    "somebody's weights": (save({"layer.0": np.zeros(3, np.float32)}), "no bundle of dmu"),
    "somebody's weights with notes": (save({"w": PACKED}, metadata={"format": "pt"}), "no bundle of dmu"),
    "an empty promise": (save({"w": PACKED}, metadata={"dmu": ""}), "does not match its checksum"),
    "no header": (sealed({"patterns": PACKED}, SEAL + "}"), "header cannot be used"),
    "a header that is none": (sealed({"patterns": PACKED}, SEAL + ',"header":[]}'), "header cannot be used"),
    "no JSON": (sealed({"patterns": PACKED}, SEAL + ',"header":'), "header cannot be used"),
}


@pytest.mark.parametrize(("raw", "says"), FOREIGN.values(), ids=FOREIGN)
def test_what_is_no_bundle_is_refused(tmp_path: Path, raw: bytes, says: str) -> None:
    path = tmp_path / "foreign.dmu"
    path.write_bytes(raw)
    assert says in refusal(path)


def test_tensors_that_belong_to_no_bundle_are_refused(small: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "more.dmu"
    text = f'{SEAL},"header":{small.header.model_dump_json()}}}'
    patterns = np.packbits(small.patterns.masks, axis=-1)
    path.write_bytes(sealed({"patterns": patterns, "hitchhiker": PACKED}, text))
    assert refusal(path) == "holds what belongs to no bundle: hitchhiker"
    path.write_bytes(sealed({"patterns": patterns.astype(np.int8)}, text))
    assert "shape that its header says" in refusal(path)


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "nowhere.dmu")
    assert "directory" in refusal(tmp_path)


def test_a_file_too_large_is_not_read(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BUNDLE_BYTES", 1000)
    assert "too many for a bundle" in refusal(saved)


def test_nothing_is_left_of_a_bundle_that_could_not_be_saved(small: Bundle, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        small.save(tmp_path / "nowhere" / "small.dmu")
    (tmp_path / "folder.dmu").mkdir()
    with pytest.raises(OSError, match=r"folder\.dmu"):
        small.save(tmp_path / "folder.dmu")
    assert [path.name for path in tmp_path.iterdir()] == ["folder.dmu"]


# ---------------------------------------------------------------- the rig it is used on


def with_(changes: dict[str, Any]) -> Optics:
    return Optics.model_validate(json.loads(OPTICS.model_dump_json()) | changes, strict=False)


MISFITS: dict[str, tuple[Optics, str]] = {
    "object pixel": (
        with_({"object_pixel_um": 0.25, "sensor_pixel_um": 0.5}),
        "object_pixel_um: the bundle assumes 0.5, the rig has 0.25",
    ),
    "gain": (
        with_({"sensor": {"gain_adu_per_e": 2.0}}),
        "sensor.gain_adu_per_e: the bundle assumes 0.5, the rig has 2",
    ),
    "offset": (
        with_({"sensor": {"gain_adu_per_e": 0.5, "offset_adu": 200.0}}),
        "sensor.offset_adu: the bundle assumes 100, the rig has 200",
    ),
    "emission": (
        with_({"emission": {"kind": "airy", "na": 0.4, "wavelength_nm": 525}}),
        "emission width_um: the bundle assumes 0.147, the rig has 0.275625",
    ),
    "excitation": (
        with_({"excitation": {"kind": "gaussian", "sigma_um": 0.6}}),
        "excitation width_um: the bundle assumes 0.3, the rig has 0.6",
    ),
    "leakage": (with_({"mirrors": {"leakage": 0.1}}), "mirrors.leakage + 1: the bundle assumes 1, the rig has 1.1"),
    "camera pixel": (
        with_({"sensor_pixel_um": 1.5}),
        "camera_pixel: the bundle needs camera pixels of 2 object pixels, the rig's sensor has 3",
    ),
}


@pytest.mark.parametrize(("optics", "says"), MISFITS.values(), ids=MISFITS)
def test_the_number_that_does_not_fit_is_told_with_both_values(small: Bundle, optics: Optics, says: str) -> None:
    (misfit,) = small.misfits(optics)
    assert misfit.startswith(says)


def test_all_misfits_are_told_at_once(small: Bundle) -> None:
    changes = {"excitation": {"kind": "gaussian", "sigma_um": 0.6}, "mirrors": {"leakage": 0.1}, "sensor_pixel_um": 1.5}
    assert len(small.misfits(with_(changes))) == 3


@pytest.mark.parametrize(
    "optics",
    [
        OPTICS,
        with_({"object_pixel_um": 0.5001, "sensor_pixel_um": 1.0002}),
        with_({"sensor_pixel_um": 0.5}),  # half the pixels and twice the binning make the same camera pixel
        with_({"excitation": {"kind": "gaussian", "sigma_um": 0.32}}),
    ],
)
def test_what_is_near_enough_fits(small: Bundle, optics: Optics) -> None:
    assert small.misfits(optics) == []


def test_light_that_the_bundle_was_not_made_for_is_told(small: Bundle) -> None:
    """100 photons × 0.25 µm² × 0.1 mW × 1/3 ms × 0.8 = 0.667 electrons."""
    assert small.cautions(OPTICS, 0.1, 1 / 3) == []
    assert small.cautions(OPTICS, 0.1, 0.6) == []
    (caution,) = small.cautions(OPTICS, 0.1, 0.7)
    assert "is made for 0.667, this run has 1.4" in caution
    (caution,) = small.cautions(OPTICS, 0.04, 1 / 3)
    assert "is made for 0.667, this run has 0.267" in caution


def test_noise_that_the_bundle_was_not_made_for_is_told(small: Bundle) -> None:
    loud = with_({"sensor": {"read_noise_e": 5.0, "gain_adu_per_e": 0.5}})
    (caution,) = small.cautions(loud, 0.1, 1 / 3)
    assert "read noise of a camera pixel in electrons: the bundle is made for 2, this run has 5" in caution
    quiet = with_({"sensor": {"read_noise_e": 0.0, "gain_adu_per_e": 0.5}})
    assert small.cautions(quiet, 0.1, 1 / 3) == []
    summed = with_(
        {"sensor_pixel_um": 0.5, "sensor": {"read_noise_e": 2.1, "gain_adu_per_e": 0.5, "binning": "digital"}}
    )
    assert len(small.cautions(summed, 0.1, 1 / 3)) == 1


@pytest.mark.parametrize(("sigma_um", "fits"), [(0.1, True), (2.0, False)])
def test_blur_that_hides_behind_object_pixels_is_no_reason_to_refuse(
    small: Bundle, sigma_um: float, fits: bool
) -> None:
    """A sixth more of one that is narrower than they are; as much of a wider one is a reason."""
    assumed, measured = (with_({"emission": {"kind": "gaussian", "sigma_um": part * sigma_um}}) for part in (1.0, 1.17))
    bundle = made(small.patterns, small.weights, optics=assumed)
    assert bundle.misfits(assumed) == []
    assert (bundle.misfits(measured) == []) == fits

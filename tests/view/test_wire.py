"""Messages and orders."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dmu_hw.view.wire import DTYPES, Lamp, Word, grey, order_of, packed, small, unpacked


@given(
    hnp.arrays(st.sampled_from(DTYPES).map(np.dtype), hnp.array_shapes(min_dims=1, max_dims=3, max_side=5)),
    st.dictionaries(st.text(max_size=5).filter(lambda key: key not in ("dtype", "shape")), st.text(max_size=20)),
)
def test_what_is_packed_is_unpacked(pixels: np.ndarray, header: dict[str, str]) -> None:
    told, found = unpacked(packed(header, pixels))
    assert found is not None
    assert {key: told[key] for key in header} == header
    assert (found.dtype, found.shape, found.tobytes()) == (pixels.dtype, pixels.shape, pixels.tobytes())


@given(st.text(max_size=50))
def test_pixels_begin_where_a_page_can_read_them(text: str) -> None:
    message = packed({"text": text}, np.ones(3, np.float32))
    assert int.from_bytes(message[:4], "little") % 4 == 0
    assert message[-12:] == np.ones(3, "<f4").tobytes()


def test_what_pages_cannot_read_is_refused() -> None:
    with pytest.raises(ValueError, match="float64"):
        packed({}, np.ones(3))
    with pytest.raises(ValueError, match="JSON"):
        packed({"value": float("nan")})


@given(hnp.arrays(np.float32, (4, 5), elements=st.floats(-1e6, 1e6, width=32)))
def test_grey_levels_are_the_values(image: np.ndarray) -> None:
    levels, low, high = grey(image)
    back = low + levels / 65535 * (high - low)
    assert np.abs(back - image).max() <= (high - low) / 65535
    assert low == min(0, image.min())


def test_what_is_no_number_is_black() -> None:
    levels, low, high = grey(np.array([[np.nan, 1.0], [np.inf, 0.5]]))
    assert levels.tolist() == [[0, 65535], [0, 32768]]
    assert (low, high) == (0.0, 1.0)


@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 40))
def test_small_pictures_are_means(rows: int, columns: int, side: int) -> None:
    image = np.arange(rows * columns, dtype=np.float32).reshape(rows, columns)
    found = small(image, side)
    assert max(found.shape) <= side or max(image.shape) <= side
    step = -(-max(rows, columns) // side)
    np.testing.assert_allclose(found[0, 0], image[:step, :step].mean(), rtol=1e-5)
    assert found.min() >= image.min()
    assert found.max() <= image.max()


@pytest.mark.parametrize("word", ["abort", "pause", "go", "watch"])
def test_orders(word: str) -> None:
    assert order_of(f'{{"do": "{word}"}}') == Word(do=word)


def test_an_order_for_light() -> None:
    found = order_of(b'{"do": "lamp", "on": true, "power_mw": 2, "exposure_ms": 20.0}')
    assert found == Lamp(do="lamp", on=True, power_mw=2.0, exposure_ms=20.0)


@pytest.mark.parametrize(
    "junk",
    [
        "",
        "abort",
        "[]",
        "null",
        '{"do": "abort", "more": 1}',
        '{"do": "lamp", "on": 1, "power_mw": 1, "exposure_ms": 1}',
        '{"do": "lamp", "on": true, "power_mw": -1, "exposure_ms": 1}',
        '{"do": "lamp", "on": true, "power_mw": NaN, "exposure_ms": 1}',
        '{"do": "abort", "do": "abort"' + " " * 2000 + "}",
        "[" * 900,
        b"\xff\xfe",
    ],
)
def test_junk_is_no_order(junk: str | bytes) -> None:
    assert order_of(junk) is None


@given(st.one_of(st.text(max_size=100), st.binary(max_size=100)))
def test_noise_is_no_order(noise: str | bytes) -> None:
    assert order_of(noise) is None

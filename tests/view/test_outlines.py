"""Outlines of objects over a picture."""

from __future__ import annotations

import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dmu_hw.view.pictures import outlines


@given(arrays(np.int32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 3)))
def test_lines_run_where_neighbours_differ_and_nowhere_else(
    labels: np.ndarray[tuple[int, int], np.dtype[np.int32]],
) -> None:
    svg = outlines(labels)
    level, upright = np.zeros_like(labels), np.zeros_like(labels)
    for x, y, way, stop in re.findall(r"M(\d+) (\d+)([HV])(\d+)", svg):
        if way == "H":
            level[int(y), int(x) : int(stop)] += 1
        else:
            upright[int(y) : int(stop), int(x)] += 1
    assert np.array_equal(level[1:], labels[1:] != labels[:-1])
    assert np.array_equal(upright[:, 1:], labels[:, 1:] != labels[:, :-1])
    assert not level[0].any()
    assert not upright[:, 0].any()
    assert f'viewBox="0 0 {labels.shape[1]} {labels.shape[0]}"' in svg

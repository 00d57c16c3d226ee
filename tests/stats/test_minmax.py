"""MinMax: exact range, and the tally of what is no ordinary number."""

from __future__ import annotations

import numpy as np
import pytest

from qconvert.stats.minmax import MinMax


def seen(*arrays: np.ndarray) -> MinMax:
    stat = MinMax()
    for array in arrays:
        stat.update(array)
    return stat


def test_range_is_exact_in_any_shape_and_float_type() -> None:
    for dtype in (np.float16, np.float32, np.float64):
        stat = seen(np.array([[1, -2.5], [0, 7]], dtype).T)
        assert (stat.lo, stat.hi, stat.total, stat.usable) == (-2.5, 7.0, 4, 4)


def test_what_is_no_number_is_counted_and_left_out() -> None:
    x = np.array([1, np.nan, -np.inf, 2, np.inf, -3.4e38, 1e30, np.nan, -1], np.float32)
    stat = seen(x)
    assert (stat.lo, stat.hi) == (-1.0, 2.0)
    assert (stat.total, stat.nan, stat.posinf, stat.neginf, stat.sentinels, stat.usable) == (9, 2, 1, 1, 2, 3)


def test_take_returns_the_usable_elements() -> None:
    assert MinMax().take(np.array([[1, np.nan], [-3.4e38, 2]], np.float32)).tolist() == [1.0, 2.0]


def test_half_precision_infinity_is_no_sentinel() -> None:
    stat = seen(np.array([1, np.inf, -np.inf, 65504], np.float16))
    assert (stat.hi, stat.posinf, stat.neginf, stat.sentinels) == (65504.0, 1, 1, 0)


@pytest.mark.parametrize("array", [np.zeros((0, 3), np.float32), np.full(4, np.nan, np.float32)])
def test_nothing_usable_leaves_it_empty(array: np.ndarray) -> None:
    assert MinMax().empty
    assert seen(array).empty


def test_negative_zero_does_not_depend_on_order() -> None:
    a, b = np.array([-0.0], np.float32), np.array([0.0], np.float32)
    assert seen(a, b).to_arrays()["range"].tobytes() == seen(b, a).to_arrays()["range"].tobytes()

"""MinMax: exact range, and the tally of what is no ordinary number."""

from __future__ import annotations

import numpy as np
import pytest

from qconvert.errors import DataError
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


SCORES = np.random.default_rng(0).normal(0, 8, 200).astype(np.float32)


@pytest.mark.parametrize("mask", [-1e4, -65504.0, -1e9, 1e4])
@pytest.mark.parametrize("many", [1, 3, 5000])
def test_mask_constants_are_told_from_values(mask: float, many: int) -> None:
    bare = seen(SCORES, np.full(many, mask, np.float32))
    added = seen(SCORES, np.float32(mask) + np.resize(SCORES, many))
    plain = seen(SCORES)
    for stat in (bare, added):
        assert stat.masks == stat.skipped == many
        assert (stat.lo, stat.hi, stat.usable) == (plain.lo, plain.hi, 200)


def test_two_masks_added_up_are_masks() -> None:
    stat = seen(SCORES, SCORES - np.float32(1e4), SCORES - np.float32(2e4))
    assert (stat.masks, stat.usable) == (400, 200)


def test_a_mask_before_it_is_added_is_one() -> None:
    assert seen(np.array([0, 0, -1e4], np.float32)).masks == 1
    assert seen(np.zeros(2, np.float32)).merge(seen(np.array([-1e4], np.float32))).masks == 1


@pytest.mark.parametrize(
    "values",
    [
        np.linspace(-1e5, 1e5, 10_001),
        np.geomspace(1e-3, 1e5, 300),
        np.random.default_rng(1).standard_cauchy(100_000) * 100,
        np.append(SCORES, 40.0),
        np.append(SCORES, 4999.0),
        np.append(SCORES * 20, 6000.0),
        np.full(9, -1e4),
        np.append(SCORES, [-1e4, 1e6, -3e4]),
    ],
    ids=["uniform", "geometric", "cauchy", "outlier", "large outlier", "no gap", "nothing to mask", "no band"],
)
def test_wide_data_are_no_masks(values: np.ndarray) -> None:
    stat = seen(values.astype(np.float32))
    assert stat.masks == stat.skipped == 0
    assert (stat.lo, stat.hi) == (np.float32(values.min()), np.float32(values.max()))


def test_whether_it_is_a_mask_is_decided_by_all_samples() -> None:
    stat = seen(SCORES, SCORES - np.float32(1e4))
    assert stat.masks == 200
    stat.update(np.array([-900.0], np.float32))
    assert stat.masks == 0
    assert stat.lo < -9_900


def test_damaged_arrays_are_refused() -> None:
    arrays = seen(SCORES).to_arrays()
    with pytest.raises(DataError, match="stored range"):
        MinMax.from_arrays({**arrays, "tally": arrays["tally"][:-1]})


def test_half_precision_infinity_is_no_sentinel() -> None:
    stat = seen(np.array([1, np.inf, -np.inf, 640], np.float16))
    assert (stat.hi, stat.posinf, stat.neginf, stat.sentinels) == (640.0, 1, 1, 0)


@pytest.mark.parametrize("array", [np.zeros((0, 3), np.float32), np.full(4, np.nan, np.float32)])
def test_nothing_usable_leaves_it_empty(array: np.ndarray) -> None:
    assert MinMax().empty
    assert seen(array).empty


def test_negative_zero_does_not_depend_on_order() -> None:
    a, b = np.array([-0.0], np.float32), np.array([0.0], np.float32)
    assert seen(a, b).to_arrays()["range"].tobytes() == seen(b, a).to_arrays()["range"].tobytes()

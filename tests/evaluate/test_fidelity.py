"""Fidelity against hand-computed values, a plain numpy reference, and the law that the split does not matter."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from qconvert.errors import InternalError
from qconvert.evaluate import fidelity as module
from qconvert.evaluate.fidelity import Fidelity, FidelityReport

F32 = np.float32


def measure(reference: object, quantized: object) -> FidelityReport:
    fidelity = Fidelity(["y"])
    fidelity.update([reference], [quantized])
    return fidelity.report()


def test_hand_computed() -> None:
    report = measure(np.array([[3, 4], [0, 2]], F32), np.array([[3, 4], [1, 2]], F32))
    (output,) = report.outputs
    for sqnr in (output.sqnr_db, report.sqnr_db, report.worst_sqnr_db):
        assert sqnr == pytest.approx(10 * math.log10(29 / 1))
    for cosine in (output.cosine, report.cosine):
        assert cosine == pytest.approx((1 + 4 / (2 * math.sqrt(5))) / 2)
    assert output.max_abs_error == report.max_abs_error == 1
    assert output.reference_range == (0.0, 4.0)
    assert (output.equal, output.elements, report.samples, report.worst_output) == (False, 4, 2, "y")
    assert report.top1_agreement == 1


def test_identical_outputs_are_infinitely_near() -> None:
    report = measure(np.ones((2, 3), F32), np.ones((2, 3), F32))
    assert report.sqnr_db == math.inf
    assert report.cosine == pytest.approx(1)
    assert report.outputs[0].equal


@pytest.mark.parametrize(("quantized", "sqnr", "cosine"), [(0.0, math.inf, 1.0), (1.0, -math.inf, 0.0)])
def test_all_zero_reference(quantized: float, sqnr: float, cosine: float) -> None:
    report = measure(np.zeros((1, 3), F32), np.full((1, 3), quantized, F32))
    assert (report.sqnr_db, report.cosine) == (sqnr, cosine)


def test_pooled_over_outputs_and_worst() -> None:
    fidelity = Fidelity(["good", "bad"])
    fidelity.update([np.full((1, 2), 10, F32), np.ones((1, 2), F32)], [np.full((1, 2), 11, F32), np.zeros((1, 2), F32)])
    report = fidelity.report()
    assert report.sqnr_db == pytest.approx(10 * math.log10(202 / 4))
    assert report.worst_output == "bad"
    assert report.worst_sqnr_db == pytest.approx(0)
    assert report.cosine == pytest.approx(0.5)


def test_non_finite_positions() -> None:
    inf, nan = math.inf, math.nan
    reference = np.array([[1, inf, nan, inf, 2, nan]], F32)
    quantized = np.array([[1, inf, nan, -inf, nan, inf]], F32)
    (output,) = measure(reference, quantized).outputs
    assert (output.mismatched_nonfinite, output.elements) == (3, 1)
    assert (output.sqnr_db, output.reference_range, output.equal) == (inf, (1, 1), False)


def test_nothing_but_nan_is_not_near() -> None:
    report = measure(np.ones((2, 3), F32), np.full((2, 3), np.nan, F32))
    assert (report.sqnr_db, report.cosine, report.outputs[0].mismatched_nonfinite) == (-math.inf, 0, 6)


def test_same_nan_everywhere_is_equal() -> None:
    both = np.full((2, 3), np.nan, F32)
    assert measure(both, both.copy()).outputs[0].equal


def test_shape_mismatch_is_counted() -> None:
    fidelity = Fidelity(["boxes"])
    fidelity.update([np.ones((5, 4), F32)], [np.ones((3, 4), F32)])
    assert fidelity.report().sqnr_db == -math.inf
    fidelity.update([np.ones((5, 4), F32)], [np.ones((5, 4), F32)])
    (output,) = fidelity.report().outputs
    assert (output.shape_mismatches, output.elements, output.equal, output.sqnr_db) == (1, 20, False, math.inf)


@pytest.mark.parametrize(
    ("reference", "quantized", "equal"),
    [
        (np.array([True, False]), np.array([True, False]), True),
        (np.array([True, False]), np.array([True, True]), False),
        (np.array(["a", "b"], object), np.array(["a", "b"], object), True),
        ([np.ones(2), np.zeros(3)], [np.ones(2), np.zeros(3)], True),
        ([np.ones(2)], [np.ones(2), np.ones(2)], False),
        ([{0: 0.5}], [{0: 0.5}], True),
    ],
)
def test_other_outputs_are_compared_for_equality(reference: object, quantized: object, equal: bool) -> None:
    report = measure(reference, quantized)
    (output,) = report.outputs
    assert (output.numeric, output.sqnr_db, output.cosine, output.equal) == (False, None, None, equal)
    assert report.sqnr_db == (math.inf if equal else -math.inf)


def test_empty_and_scalar_outputs() -> None:
    assert measure(np.ones((0, 4), F32), np.ones((0, 4), F32)).sqnr_db == math.inf
    assert measure(F32(2.0), F32(1.0)).sqnr_db == pytest.approx(10 * math.log10(4))
    assert measure(np.array([7]), np.array([6])).max_abs_error == 1


@pytest.mark.parametrize("tail", [(), (1, 1)])
def test_top1_agreement(tail: tuple[int, ...]) -> None:
    reference = np.array([[1, 2, 0], [3, 2, 1], [0, 0, 1], [5, 4, 3]], F32).reshape(4, 3, *tail)
    quantized = np.array([[1, 3, 0], [1, 2, 1], [0, 0, 1], [5, 4, 3]], F32).reshape(4, 3, *tail)
    assert measure(reference, quantized).top1_agreement == 0.75


@pytest.mark.parametrize("array", [np.ones((2, 1), F32), np.ones((2, 3, 4), F32), np.ones((2, 3, 2, 2), F32)])
def test_no_class_scores(array: NDArray[np.float32]) -> None:
    assert measure(array, array).top1_agreement is None


def test_token_indices_are_no_class_scores() -> None:
    assert measure(np.ones((2, 8), np.int64), np.ones((2, 8), np.int64)).top1_agreement is None


def test_wrong_number_of_outputs_is_a_defect() -> None:
    with pytest.raises(InternalError):
        Fidelity(["a", "b"]).update([np.ones(1)], [np.ones(1)])


def test_against_plain_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    reference = rng.normal(size=(17, 3, 5)).astype(F32)
    quantized = reference + rng.normal(size=reference.shape).astype(F32) * F32(0.1)
    a, b = reference.reshape(17, -1).astype(np.float64), quantized.reshape(17, -1).astype(np.float64)
    cosines = (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    monkeypatch.setattr(module, "_CHUNK", 31)  # several chunks
    report = measure(reference, quantized)
    assert report.sqnr_db == pytest.approx(10 * np.log10((a**2).sum() / ((a - b) ** 2).sum()), rel=1e-12)
    assert report.cosine == pytest.approx(cosines.mean(), rel=1e-12)
    assert report.max_abs_error == np.abs(a - b).max()
    assert report.outputs[0].reference_range == (a.min(), a.max())


VALUES = st.floats(-1e3, 1e3, width=32) | st.sampled_from([math.inf, -math.inf, math.nan])


@given(
    arrays(np.float32, (9, 4), elements=VALUES),
    arrays(np.float32, (9, 4), elements=VALUES),
    st.sets(st.integers(1, 8)),
)
def test_the_split_does_not_matter(a: NDArray[np.float32], b: NDArray[np.float32], cuts: set[int]) -> None:
    whole = measure(a, b)
    fidelity = Fidelity(["y"])
    edges = [0, *sorted(cuts), 9]
    for start, stop in itertools.pairwise(edges):
        fidelity.update([a[start:stop]], [b[start:stop]])
    split = fidelity.report()
    for name in ("sqnr_db", "worst_sqnr_db", "cosine", "max_abs_error", "top1_agreement", "samples"):
        assert getattr(split, name) == pytest.approx(getattr(whole, name), rel=1e-9, abs=1e-9), name
    for name in ("elements", "mismatched_nonfinite", "reference_range", "equal"):
        assert getattr(split.outputs[0], name) == getattr(whole.outputs[0], name), name

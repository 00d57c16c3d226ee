"""Codes of codebooks: against ONNX Runtime's own 4-bit operator and quantizer, and methods against each other."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.capi._pybind_state import quantize_matmul_bnb4

from qconvert.numerics.codebooks import BINARY, E4M3, FP4, NF4, nearest, pack_high
from qconvert.rounding.books import BookSpec, fit

KINDS = {0: FP4, 1: NF4}


def weight(rows: int = 24, columns: int = 96, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((rows, columns)) * rng.uniform(0.2, 5, (rows, 1))).astype(np.float32)


def as_onnx_runtime_has_it(packed: np.ndarray, scale: np.ndarray, shape: tuple[int, int], block: int, kind: int):
    """The weight [N, K] that MatMulBnb4 multiplies with."""
    rows, columns = shape
    attributes = {"K": columns, "N": rows, "block_size": block, "quant_type": kind}
    node = helper.make_node("MatMulBnb4", ["x", "b", "s"], ["y"], domain="com.microsoft", **attributes)
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [None, s]) for n, s in (("x", columns), ("y", rows))]
    constants = [numpy_helper.from_array(packed, "b"), numpy_helper.from_array(scale, "s")]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], constants)
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.eye(columns, dtype=np.float32)})[0].T


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("rows", "columns", "block"), [(24, 96, 32), (7, 33, 16), (5, 40, 64)])
def test_codes_are_those_of_matmulbnb4(kind: int, rows: int, columns: int, block: int) -> None:
    made = weight(rows, columns)
    codes = fit(made, BookSpec(bits=4, book=KINDS[kind], block=block), "mse", None)
    assert codes.scale is not None
    packed = pack_high(codes.codes, 4)
    seen = as_onnx_runtime_has_it(packed, codes.scale, made.shape, block, kind)
    np.testing.assert_allclose(seen, codes.real(), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_rtn_rounds_as_onnx_runtime_does(kind: int) -> None:
    made, block = weight(), 32
    packed, scale = np.zeros(made.size // 2, np.uint8), np.zeros(made.size // block, np.float32)
    quantize_matmul_bnb4(packed, made, scale, block, kind, *made.shape)
    theirs = as_onnx_runtime_has_it(packed, scale, made.shape, block, kind)
    ours = fit(made, BookSpec(bits=4, book=KINDS[kind], block=block), "rtn", None).real()
    # bitsandbytes' thresholds have five digits, so a number or two may fall to the other side
    assert np.count_nonzero(~np.isclose(ours, theirs, rtol=1e-5, atol=1e-7)) <= 3


def test_e4m3_is_that_of_ml_dtypes() -> None:
    theirs = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float32)
    known = np.isfinite(theirs)
    np.testing.assert_allclose((E4M3 * 448)[known], theirs[known], rtol=1e-6)
    made = weight(1, 500)[0]
    made *= 448 / np.abs(made).max()
    codes = nearest(made / 448, E4M3)
    # where a number is halfway between two codes either is right
    there = codes.view(ml_dtypes.float8_e4m3fn).astype(np.float32)
    cast = made.astype(ml_dtypes.float8_e4m3fn).astype(np.float32)
    np.testing.assert_allclose(np.abs(made - there), np.abs(made - cast), rtol=1e-4)


def error(made: np.ndarray, real: np.ndarray, moments: np.ndarray | None = None) -> float:
    difference = (made - real).astype(np.float64)
    return float((difference**2).sum() if moments is None else np.einsum("nk,kj,nj->", difference, moments, difference))


@pytest.mark.parametrize("book", [NF4, FP4, None, BINARY], ids=["nf4", "fp4", "palette", "binary"])
def test_methods_help_and_zeros_stay(book: np.ndarray | None) -> None:
    rng = np.random.default_rng(3)
    made = weight()
    made[rng.random(made.shape) < 0.4] = 0
    x = rng.standard_normal((400, 96)) @ rng.standard_normal((96, 96)) * rng.uniform(0.1, 3, 96)
    moments = x.T @ x / 400
    spec = BookSpec(bits=1 if book is BINARY else 4, book=book, block=0 if book is None or book is BINARY else 32)
    found = {m: fit(made, spec, m, moments if m == "gptq" else None).real() for m in ("rtn", "mse", "gptq")}
    assert error(made, found["mse"]) <= error(made, found["rtn"])
    assert error(made, found["gptq"], moments) < (0.95 if book is BINARY else 0.8) * error(made, found["mse"], moments)
    if book is not BINARY:
        assert all((real[made == 0] == 0).all() for real in found.values())


def test_a_palette_has_scales_only_where_rows_differ() -> None:
    even = np.random.default_rng(4).standard_normal((24, 96)).astype(np.float32)
    assert fit(even, BookSpec(bits=4), "rtn", None).scale is None
    uneven = even * np.geomspace(0.01, 100, 24, dtype=np.float32)[:, None]
    codes = fit(uneven, BookSpec(bits=4), "rtn", None)
    assert codes.scale is not None
    assert error(uneven, codes.real()) < 0.02 * float((uneven**2).sum())


def test_groups_of_rows_have_books_of_their_own() -> None:
    made = weight(20, 64)
    one, several = (fit(made, BookSpec(bits=4, group=g), "rtn", None) for g in (0, 8))
    assert several.book.shape == (3, 16)
    assert error(made, several.real()) < error(made, one.real())

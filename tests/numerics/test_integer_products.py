"""Sums of products in numpy, against ONNX Runtime's own kernels.

Exact sums are compared with the kernels of the processor that runs the tests, on weights that cannot saturate on any.
Saturating sums are compared with what ONNX Runtime 1.32 computed on an emulated Haswell, which is written down here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from qconvert.graph.session import open_session
from qconvert.numerics.integer_products import conv_sums, matmul_sums

ZERO = np.asarray(0, np.int64)


def kernel(op: str, a: NDArray[Any], w: NDArray[Any], zero_a: int, zero_w: NDArray[Any], **attributes: Any) -> Any:
    """What MatMulInteger or ConvInteger gives."""
    constants = {"w": w, "za": np.asarray(zero_a, a.dtype), "zw": zero_w.astype(w.dtype)}
    graph = helper.make_graph(
        [helper.make_node(op, ["a", "w", "za", "zw"], ["y"], **attributes)],
        "g",
        [helper.make_tensor_value_info("a", TensorProto.UINT8, a.shape)],
        [helper.make_tensor_value_info("y", TensorProto.INT32, None)],
        [numpy_helper.from_array(v, n) for n, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return open_session(model.SerializeToString(), threads=1).run({"a": a})[0]


@pytest.mark.parametrize("shape", [(3, 7), (2, 4, 6), (1, 2, 3, 5)])
def test_matrix_products(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    a, w = rng.integers(0, 256, shape).astype(np.uint8), rng.integers(-60, 61, (shape[-1], 9)).astype(np.int8)
    expected = kernel("MatMulInteger", a, w, 17, ZERO)
    for saturate in (False, True):
        assert (matmul_sums(a, w, 17, ZERO, saturate=saturate) == expected).all()


@pytest.mark.parametrize(("left", "right"), [((2, 3, 7), (2, 7, 5)), ((3, 7), (4, 7, 5)), ((2, 1, 3, 7), (4, 7, 5))])
def test_batches_of_matrices(left: tuple[int, ...], right: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    a, w = rng.integers(0, 256, left).astype(np.uint8), rng.integers(-60, 61, right).astype(np.int8)
    expected = kernel("MatMulInteger", a, w, 17, ZERO)
    assert (matmul_sums(a, w, 17, ZERO, saturate=True) == expected).all()


@pytest.mark.parametrize(
    ("size", "kernel_size", "strides", "pads", "dilations", "group"),
    [
        ((7,), (3,), (2,), (1, 0), (1,), 1),
        ((6, 7), (3, 2), (1, 2), (0, 1, 2, 1), (1, 1), 1),
        ((9, 8), (3, 3), (2, 1), (1, 1, 1, 1), (2, 2), 2),
        ((6, 6), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 6),
        ((4, 5, 3), (2, 2, 2), (1, 1, 1), (0, 0, 0, 0, 0, 1), (1, 1, 1), 1),
    ],
)
def test_convolutions(
    size: tuple[int, ...],
    kernel_size: tuple[int, ...],
    strides: tuple[int, ...],
    pads: tuple[int, ...],
    dilations: tuple[int, ...],
    group: int,
) -> None:
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, (2, 6, *size)).astype(np.uint8)
    w = rng.integers(-60, 61, (6, 6 // group, *kernel_size)).astype(np.int8)
    kinds = {"strides": strides, "pads": pads, "dilations": dilations, "group": group}
    expected = kernel("ConvInteger", a, w, 17, ZERO, **kinds)
    for saturate in (False, True):
        found = conv_sums(
            a, w, 17, ZERO, strides=strides, pads=pads, dilations=dilations, group=group, saturate=saturate
        )
        assert (found == expected).all()


def test_zero_points_of_weights() -> None:
    rng = np.random.default_rng(0)
    a, w = rng.integers(0, 256, (4, 6)).astype(np.uint8), rng.integers(0, 256, (6, 5)).astype(np.uint8)
    zero = np.array([0, 3, 128, 200, 255], np.int64)
    expected = (a.astype(int) - 9) @ (w.astype(int) - zero)
    assert (matmul_sums(a, w, 9, zero, saturate=False) == expected).all()


def test_saturating_matrix_product_of_a_haswell() -> None:
    a = np.array([[251, 227, 231, 248, 223], [238, 243, 197, 184, 202]], np.uint8)
    w = [[127, -128, 5], [120, -90, -120], [-100, 64, 127], [-100, 65, 127], [127, 127, 127]]
    found = matmul_sums(a, np.array(w, np.int8), 0, ZERO, saturate=True)
    assert found.tolist() == [[28320, 26457, 35103], [25653, 17454, 30451]]


def test_saturating_convolution_of_a_haswell() -> None:
    a = np.array(
        [[[[215, 248, 251], [200, 227, 245]], [[207, 244, 206], [226, 245, 216]], [[219, 215, 240], [214, 255, 224]]]],
        np.uint8,
    )
    w = (np.arange(24).reshape(2, 3, 2, 2) * 37 % 68 + 60).astype(np.int8)
    w[1] *= -1
    kinds: dict[str, Any] = {"strides": (1, 1), "pads": (0, 0, 0, 0), "dilations": (1, 1), "group": 1}
    # QLinearConv with a scale of 1 / 2200 and zero point 128
    codes = [np.rint(conv_sums(a, w, 0, ZERO, saturate=s, **kinds) / 2200) + 128 for s in (True, False)]
    assert codes[0].tolist() == [[[[214, 217]], [[39, 39]]]]
    assert codes[1].tolist() == [[[[245, 247]], [[11, 6]]]]


def test_depthwise_convolution_of_a_haswell() -> None:
    a = np.array([[[[226, 228], [232, 230]], [[228, 255], [245, 244]]]], np.uint8)
    w = np.full((2, 1, 2, 2), 127, np.int8)
    kinds: dict[str, Any] = {"strides": (1, 1), "pads": (0, 0, 0, 0), "dilations": (1, 1)}
    found = conv_sums(a, w, 0, ZERO, group=2, saturate=True, **kinds)
    assert found.reshape(-1).tolist() == [116332, 123444]

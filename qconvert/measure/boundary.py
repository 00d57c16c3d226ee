"""What a border between float and integers costs on this machine, by the size of the tensor.

    us(elements) = base + slope * elements        for each operator that stands at a border

Fitted by least squares to a small network that crosses the border at three sizes. Its convolutions run in ONNX
Runtime's blocked layout in float and channels-last on integers, so that the changes of layout show, too.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from qconvert.evaluate.kernel_times import kernel_times
from qconvert.graph.build_view import view_of
from qconvert.graph.optimized import structure

_CHANNELS = 16
_SIDES = (12, 40, 112)
_RUNS, _LEAST_SECONDS = 15, 0.04


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """us = base + slope * elements."""

    base: float
    slope: float

    def at(self, elements: int) -> float:
        """Microseconds for ``elements``."""
        return max(0.0, self.base + self.slope * elements)

    def times(self, factor: float) -> Line:
        """The same line, so much steeper and higher."""
        return Line(base=self.base * factor, slope=self.slope * factor)


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundaryCosts:
    """One line for each operator.

    Attributes:
        quantize, dequantize: QuantizeLinear and DequantizeLinear.
        from_blocks, to_blocks: ReorderOutput and ReorderInput, between float convolutions and everything else.
        transpose: codes between channels-first and channels-last.
    """

    quantize: Line
    dequantize: Line
    from_blocks: Line
    to_blocks: Line
    transpose: Line

    def times(self, factor: float) -> BoundaryCosts:
        """Everything so much dearer."""
        return BoundaryCosts(**{f.name: getattr(self, f.name).times(factor) for f in fields(self)})


@cache
def boundary_costs() -> BoundaryCosts:
    """Measure this machine; once a process."""
    found: dict[str, list[tuple[int, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="qconvert-") as folder:
        for side in _SIDES:
            path, saved = Path(folder) / f"{side}.onnx", Path(folder) / f"{side}.optimized.onnx"
            path.write_bytes(_crossing(side).SerializeToString())
            feed = {"x": np.random.default_rng(0).random((1, _CHANNELS, side, side), np.float32)}
            times = kernel_times(path, feed, runs=_RUNS, least=_LEAST_SECONDS, optimized_path=saved)
            for node in view_of(structure(saved)).nodes.values():
                found.setdefault(node.op_type, []).append((_CHANNELS * side * side, 1e3 * times.get(node.name, 0.0)))
    return BoundaryCosts(
        quantize=_line(found, "QuantizeLinear"),
        dequantize=_line(found, "DequantizeLinear"),
        from_blocks=_line(found, "ReorderOutput"),
        to_blocks=_line(found, "ReorderInput"),
        transpose=_line(found, "Transpose"),
    )


def _line(found: Mapping[str, list[tuple[int, float]]], op_type: str) -> Line:
    """A fit to the times of ``op_type``; zero where ONNX Runtime has no such operator on this processor."""
    points = found.get(op_type, [])
    if len({n for n, _ in points}) < 2:
        return Line(base=0.0, slope=0.0)
    sizes, times = np.array(points, np.float64).T
    slope, base = np.polyfit(sizes, times, 1)
    return Line(base=float(base), slope=max(0.0, float(slope)))


def _crossing(side: int) -> onnx.ModelProto:
    """Float convolution -> integer convolution -> float convolution, 1x1, [1, 16, side, side]."""
    weight = np.random.default_rng(1).normal(0, 0.3, (_CHANNELS, _CHANNELS, 1, 1)).astype(np.float32)
    arrays: dict[str, NDArray[np.generic]] = {
        "w": weight,
        "w_codes": np.rint(weight * 100).clip(-127, 127).astype(np.int8),
        "w_scale": np.full(_CHANNELS, 0.01, np.float32),
        "w_zero": np.zeros(_CHANNELS, np.int8),
        "scale": np.array(0.02, np.float32),
        "zero": np.array(128, np.uint8),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], "before"),
        helper.make_node("QuantizeLinear", ["a", "scale", "zero"], ["a_q"], "q"),
        helper.make_node("DequantizeLinear", ["a_q", "scale", "zero"], ["a_dq"], "dq"),
        helper.make_node("DequantizeLinear", ["w_codes", "w_scale", "w_zero"], ["w_dq"], "w_dq", axis=0),
        helper.make_node("Conv", ["a_dq", "w_dq"], ["b"], "integer"),
        helper.make_node("QuantizeLinear", ["b", "scale", "zero"], ["b_q"], "q2"),
        helper.make_node("DequantizeLinear", ["b_q", "scale", "zero"], ["b_dq"], "dq2"),
        helper.make_node("Conv", ["b_dq", "w"], ["y"], "after"),
    ]
    shape = [1, _CHANNELS, side, side]
    graph = helper.make_graph(
        nodes,
        "crossing",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(a, n) for n, a in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

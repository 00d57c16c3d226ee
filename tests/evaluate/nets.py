"""Small float networks, and what other tools make of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper, parser
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

Feed = dict[str, NDArray[np.float32]]


def samples(count: int = 8) -> list[Feed]:
    """Images [1, 3, 8, 8]."""
    rng = np.random.default_rng(0)
    return [{"x": rng.normal(size=(1, 3, 8, 8)).astype(np.float32)} for _ in range(count)]


def network(path: Path) -> Path:
    """x -> Conv c1 -> Relu r1 -> Conv c2 -> Add r1 -> Relu r2 -> GlobalAveragePool p -> Flatten f -> Gemm y."""
    model = parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[N, 3, 8, 8] x) => (float[N, 5] y) {
            c1 = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
            r1 = Relu (c1)
            c2 = Conv <pads = [1, 1, 1, 1]> (r1, w2, b2)
            a = Add (c2, r1)
            r2 = Relu (a)
            p = GlobalAveragePool (r2)
            f = Flatten (p)
            y = Gemm <transB = 1> (f, w3, b3)
        }"""
    )
    rng = np.random.default_rng(1)
    for name, shape in (("w1", (6, 3, 3, 3)), ("w2", (6, 6, 3, 3)), ("w3", (5, 6))):
        model.graph.initializer.append(numpy_helper.from_array(rng.normal(0, 0.3, shape).astype(np.float32), name))
    for name, size in (("b1", 6), ("b2", 6), ("b3", 5)):
        model.graph.initializer.append(numpy_helper.from_array(rng.normal(0, 0.1, size).astype(np.float32), name))
    for i, node in enumerate(model.graph.node):
        node.name = f"n{i}"
    onnx.save(model, path)
    return path


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self) -> None:
        self._feeds: Iterator[Feed] = iter(samples())

    def get_next(self) -> Feed | None:
        return next(self._feeds, None)


def by_onnxruntime(source: Path, form: str) -> Path:
    """``source`` as ONNX Runtime's own tools quantize it: "qdq", "qoperator" or "dynamic"."""
    target = source.with_name(f"{form}.onnx")
    if form == "dynamic":
        quantize_dynamic(source, target)
        return target
    quantize_static(
        source,
        target,
        _Reader(),
        quant_format=QuantFormat.QDQ if form == "qdq" else QuantFormat.QOperator,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    return target


def edited(source: Path, target: Path, **weights: NDArray[np.float32]) -> Path:
    """``source`` with other values for some initializers."""
    model = onnx.load(source)
    for tensor in model.graph.initializer:
        if tensor.name in weights:
            tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name], tensor.name))
    onnx.save(model, target)
    return target


def weight(source: Path, name: str) -> NDArray[np.float32]:
    """The value of an initializer."""
    (found,) = (t for t in onnx.load(source).graph.initializer if t.name == name)
    return np.asarray(numpy_helper.to_array(found), np.float32)

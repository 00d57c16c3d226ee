"""A linear layer of a transformer as exporters write it: MatMul by a constant matrix, and Add of a constant vector."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qconvert.graph.edit import add_initializer, constant_of, maker_of, sole_maker


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bias:
    """What the Add ``add`` adds at ``port``: ``values`` [outputs], as found."""

    add: ir.Node
    port: int
    values: NDArray[np.float64]

    def set(self, graph: ir.Graph, values: NDArray[np.float64]) -> None:
        """Let other ``values`` be added."""
        made = add_initializer(graph, f"{self.add.name}_bias", np.asarray(values, np.float32))
        self.add.replace_input_with(self.port, made)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Linear:
    """x W + b.

    Attributes:
        x: [..., channels].
        product: the MatMul.
        weight: W [channels, outputs], as found.
        bias: b; None where there is none.
    """

    x: ir.Value
    product: ir.Node
    weight: NDArray[np.float32]
    bias: Bias | None

    def nodes(self) -> list[ir.Node]:
        """Those of it, in the order in which they run."""
        return [self.product] if self.bias is None else [self.product, self.bias.add]

    def scale_weight(self, graph: ir.Graph, factor: float) -> None:
        """Let it have W times ``factor``."""
        weight = np.asarray(np.multiply(self.weight, factor, dtype=np.float64), np.float32)
        made = add_initializer(graph, f"{self.product.name}_weight", weight)
        self.product.replace_input_with(1, made)


def linear_of(value: ir.Value | None) -> Linear | None:
    """The layer that makes ``value``; None where what makes it is none. Only the layer reads what lies within it."""
    node, bias = maker_of(value), None
    if node is not None and node.op_type == "Add":
        bias = _bias(node)
        node = sole_maker(node.inputs[1 - bias.port]) if bias is not None else None
    if node is None or node.op_type != "MatMul" or node.domain not in ("", "ai.onnx"):
        return None
    x, weight = node.inputs[0], constant_of(node.inputs[1])
    if x is None or weight is None or weight.dtype != np.float32 or weight.ndim != 2 or constant_of(x) is not None:
        return None
    if bias is not None and bias.values.shape != weight.shape[1:]:
        return None
    return Linear(x=x, product=node, weight=np.asarray(weight, np.float32), bias=bias)


def _bias(add: ir.Node) -> Bias | None:
    for port in (0, 1):
        values = constant_of(add.inputs[port])
        if values is not None and values.ndim == 1 and values.dtype == np.float32:
            return Bias(add=add, port=port, values=np.asarray(values, np.float64))
    return None

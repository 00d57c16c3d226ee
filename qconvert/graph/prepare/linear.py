"""A linear layer of a transformer as exporters write it: MatMul by a constant matrix, and Add of a constant vector."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qconvert.graph.edit import add_initializer, constant_of, sole_maker


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Linear:
    """x W + b.

    Attributes:
        product: the MatMul.
        add: the Add; None where there is no bias.
    """

    product: ir.Node
    add: ir.Node | None

    @property
    def x(self) -> ir.Value:
        value = self.product.inputs[0]
        assert value is not None  # a MatMul has two operands
        return value

    @property
    def weight(self) -> NDArray[np.float32]:
        """W, [channels, outputs]."""
        return _array(self.product.inputs[1])

    @property
    def bias(self) -> NDArray[np.float32] | None:
        """b, [outputs]."""
        return None if self.add is None else _array(self.add.inputs[self._bias_port(self.add)])

    def nodes(self) -> list[ir.Node]:
        """Both, in the order in which they run."""
        return [self.product] if self.add is None else [self.product, self.add]

    def set_weight(self, graph: ir.Graph, weight: NDArray[np.floating]) -> None:
        """Let it have another W of the same shape."""
        made = add_initializer(graph, f"{self.product.name}_weight", np.asarray(weight, np.float32))
        self.product.replace_input_with(1, made)

    def set_bias(self, graph: ir.Graph, bias: NDArray[np.floating]) -> None:
        """Let it have another b of the same shape; it has one."""
        assert self.add is not None  # callers have looked
        made = add_initializer(graph, f"{self.add.name}_bias", np.asarray(bias, np.float32))
        self.add.replace_input_with(self._bias_port(self.add), made)

    @staticmethod
    def _bias_port(add: ir.Node) -> int:
        return 0 if constant_of(add.inputs[1]) is None else 1


def linear_of(value: ir.Value | None) -> Linear | None:
    """The layer that makes ``value``; None where what makes it is none. Only the layer reads what lies within it."""
    node, add = value.producer() if value is not None else None, None
    if node is not None and node.op_type == "Add":
        constants = [i for i in (0, 1) if (c := constant_of(node.inputs[i])) is not None and c.ndim == 1]
        if not constants:
            return None
        add, node = node, sole_maker(node.inputs[1 - constants[0]])
    if node is None or node.op_type != "MatMul" or node.domain not in ("", "ai.onnx"):
        return None
    weight = constant_of(node.inputs[1])
    if weight is None or weight.dtype != np.float32 or weight.ndim != 2 or constant_of(node.inputs[0]) is not None:
        return None
    found = Linear(product=node, add=add)
    if found.bias is not None and (found.bias.shape != weight.shape[1:] or found.bias.dtype != np.float32):
        return None
    return found


def _array(value: ir.Value | None) -> NDArray[np.float32]:
    array = constant_of(value)
    assert array is not None  # linear_of has found it
    return array  # type: ignore[return-value]

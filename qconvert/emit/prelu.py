"""PRelu in float, written as a sum; in place.

    x -> PRelu(s)                         becomes     Relu(x) -> Mul(1 - s) -> Add(Mul(x, s))
    x -> Conv(s) -> Max(x)                likewise: what came of PRelu with slopes of at most 1 (graph/prepare/prelu.py)

It is the same but for float32 rounding. PRelu takes 4.3 ns an element, and Max of two tensors .6, with channels first;
Relu, products with a number a channel and Add take .1 together (ONNX Runtime 1.32).
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qconvert.emit.additions import Additions
from qconvert.graph.edit import constant_of, part_of, replace_by
from qconvert.graph.model import Model

# Steeper, and the two terms cancel too many digits.
_STEEP = 16.0


def write_prelus(model: Model) -> None:
    """Rewrite every such node of the main graph; names and results of its nodes stay, and others are parts of them."""
    additions: Additions | None = None
    for node in list(model.ir.graph):
        found = _whole(node) or _match(node)
        if found is None:
            continue
        additions = additions or Additions(model=model.ir)
        x, product, slopes = found
        graph, name = model.ir.graph, node.name or "PRelu"
        first = node if product is None else product
        scaled, rest = (
            additions.constant(graph, f"{name}_{what}", values.astype(np.float32))
            for what, values in (("slopes", slopes), ("rest", 1.0 - slopes.astype(np.float64)))
        )
        positive = additions.node(first, "Relu", [x], name=part_of(name, "Relu"))
        positive = additions.node(first, "Mul", [positive, rest], name=part_of(name, "rest"))
        if product is None:
            negative = additions.node(first, "Mul", [x, scaled], name=part_of(name, "slopes"))
        else:
            negative = _instead(product, "Mul", [x, scaled])
        _instead(node, "Add", [positive, negative])


def _instead(old: ir.Node, op_type: str, inputs: list[ir.Value]) -> ir.Value:
    """The result of a new node in the place of ``old``, under its names."""
    made = ir.node(op_type, inputs, name=old.name)
    if isinstance(old.graph, ir.Graph):
        old.graph.insert_before(old, made)
        replace_by(made.outputs[0], old)
    return made.outputs[0]


def _whole(node: ir.Node) -> tuple[ir.Value, ir.Node | None, NDArray[np.float32]] | None:
    slopes = _real(constant_of(node.inputs[1])) if node.op_type == "PRelu" else None
    x = node.inputs[0] if slopes is not None else None
    return None if x is None or slopes is None or not (np.abs(slopes) <= _STEEP).all() else (x, None, slopes)


def _match(node: ir.Node) -> tuple[ir.Value, ir.Node | None, NDArray[np.float32]] | None:
    """(x, the convolution, slopes [C, 1, ...]) of a Max of x and x times a slope a channel."""
    if node.op_type != "Max" or len(node.inputs) != 2:
        return None
    x, scaled = node.inputs
    product = scaled.producer() if scaled is not None else None
    if x is None or product is None or product.op_type != "Conv" or product.inputs[0] is not x:
        return None
    filters = _constant(product.inputs[1])
    alone = len(product.outputs[0].uses()) == 1 and not product.outputs[0].is_graph_output()
    biased = len(product.inputs) > 2 and product.inputs[2] is not None
    if (
        filters is None
        or biased
        or not alone
        or filters.size != filters.shape[0]
        or (filters > 1).any()
        or (filters < -_STEEP).any()
    ):
        return None
    if product.attributes.get_int("group", 1) != len(filters):
        return None
    moved = any(product.attributes.get_ints("pads", [])) or "auto_pad" in product.attributes
    strided = any(s != 1 for s in product.attributes.get_ints("strides", []))
    return None if moved or strided else (x, product, filters.reshape(-1, *[1] * (filters.ndim - 2)))


def _constant(value: ir.Value | None) -> NDArray[np.float32] | None:
    """A weight, also one that is stored as integers: Mul(Cast(codes), scale)."""
    maker = value.producer() if value is not None else None
    if maker is None or maker.op_type != "Mul" or maker.inputs[0] is None:
        return _real(constant_of(value))
    cast = maker.inputs[0].producer()
    codes = constant_of(cast.inputs[0]) if cast is not None and cast.op_type == "Cast" else None
    scale = _real(constant_of(maker.inputs[1]))
    return None if codes is None or scale is None else np.asarray(np.asarray(codes, np.float32) * scale, np.float32)


def _real(array: NDArray[np.generic] | None) -> NDArray[np.float32] | None:
    return np.asarray(array, np.float32) if array is not None and array.dtype == np.float32 else None

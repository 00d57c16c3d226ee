"""A float model whose quantization can be switched on and off piece by piece, by its inputs.

Behind each tensor that is rounded:

    y = step * round(clip(x, low, high) / step)

With step = s, low = s (lo - z) and high = s (hi - z) this is QuantizeLinear and DequantizeLinear, since the bounds are
on the grid; with other values it only rounds, only clips, or does nothing. Weights are inputs of their own. So one
session measures what each source of error does by itself.

round(v) = (v + M) - M with M = 3 * 2^22 rounds half to even for |v| < 2^22, in every opset, and leaves larger values
to within their own precision. A step of 2^-60 is exact to divide by, and rounds at 2^-61: nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from qconvert.graph.constants import Port
from qconvert.graph.edit import add_initializer, give_way, values_of
from qconvert.graph.model import Model
from qconvert.graph.session import Feed
from qconvert.graph.simulate import Rounding
from qconvert.numerics.spec import QParams

_MAGIC = np.asarray(3 * 2.0**22, np.float32)
_NO_STEP = 2.0**-60
_FAR = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightInput:
    """A constant at ``port`` that becomes the input ``name`` of ``shape``."""

    port: Port
    name: str
    shape: tuple[int, ...]


def switch(stem: str, params: QParams | None, *, rounds: bool = True, clips: bool = True) -> Feed:
    """Inputs for the tensors whose switch has the name ``stem``; without ``params`` nothing happens to them."""
    low, high = params.range if params is not None and clips else (-_FAR, _FAR)
    step = float(params.scale) if params is not None and rounds else _NO_STEP
    values = zip(_names(stem), (low, high, step), strict=True)
    return {name: np.asarray(np.clip(value, -_FAR, _FAR), np.float32) for name, value in values}


def switched(model: Model, roundings: Iterable[Rounding], weights: Iterable[WeightInput]) -> Model:
    """A copy of ``model`` with a switch behind every tensor that is rounded (:attr:`Rounding.free` is its name; several
    may share one) and with ``weights`` as inputs."""
    copy = model.clone()
    graph = copy.ir.graph
    old_nodes, old_values = list(graph), values_of(graph)
    nodes = {n.name: n for n in old_nodes}
    values = {v.name: v for v in old_values}
    for weight in weights:
        value = ir.Value(name=weight.name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(list(weight.shape)))
        graph.inputs.append(value)
        nodes[weight.port[0]].replace_input_with(weight.port[1], value)
    magic = add_initializer(graph, "rounding_offset", _MAGIC)
    inputs: dict[str, ir.Value] = {}
    for rounding in roundings:
        for name in _names(rounding.free or ""):
            if name not in inputs:
                inputs[name] = ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([]))
                graph.inputs.append(inputs[name])
        low, high, step = (inputs[name] for name in _names(rounding.free or ""))
        _put_behind(graph, values[rounding.tensor], rounding, (low, high, step, magic))
    give_way(graph, old_nodes, old_values)
    return copy


def _names(stem: str) -> tuple[str, str, str]:
    return f"{stem}_low", f"{stem}_high", f"{stem}_step"


def _put_behind(
    graph: ir.Graph, value: ir.Value, rounding: Rounding, inputs: tuple[ir.Value, ir.Value, ir.Value, ir.Value]
) -> None:
    low, high, step, magic = inputs
    chain: list[ir.Node] = []
    last = value
    for op_type, operand in (("Max", low), ("Min", high), ("Div", step), ("Add", magic), ("Sub", magic), ("Mul", step)):
        node = ir.node(op_type, [last, operand], name=f"{value.name}_switch_{op_type}")
        last = node.outputs[0]
        last.name, last.shape, last.type = f"{value.name}_{op_type}", value.shape, value.type
        chain.append(node)
    producer = value.producer()
    if producer is None:
        graph.insert_before(next(iter(graph)), chain)
    else:
        graph.insert_after(producer, chain)
    for use in list(value.uses()):
        if use.node is not chain[0] and (rounding.readers is None or (use.node.name, use.idx) in rounding.readers):
            use.node.replace_input_with(use.idx, last)
    if rounding.readers is None:
        for i, output in enumerate(graph.outputs):
            if output is value:
                graph.outputs[i] = last

"""A float model that computes what a quantized one will: quantize-dequantize pairs behind tensors, rounded constants.

Biases, scales and zero points can be made inputs, so that one session serves many values of them, and of a tensor the
mean over everything but samples and channels can be an output: [N, C, 8, 8] -> [N, C].
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from qconvert.errors import InternalError
from qconvert.graph.constants import Port, with_port
from qconvert.graph.edit import add_initializer, give_way, values_of
from qconvert.graph.model import Model
from qconvert.numerics.spec import QParams


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounding:
    """Round ``tensor`` to the codes of ``params``; at the ports ``readers`` only, or wherever it is read (None).

    With ``free``, scale and zero point are inputs of the names that :func:`free_names` gives, and ``params`` says only
    of which type they are.
    """

    tensor: str
    params: QParams
    readers: frozenset[Port] | None = None
    free: str | None = None


def free_names(free: str) -> tuple[str, str]:
    """Names of the inputs for scale and zero point."""
    return f"{free}_scale", f"{free}_zero_point"


def simulated(model: Model, roundings: Iterable[Rounding], free: Mapping[Port, str]) -> Model:
    """A copy of ``model`` that rounds, and whose constants at the ports ``free`` are inputs [O] of these names.

    Weights are expected to be rounded already (:func:`qconvert.graph.constants.with_constants`).
    """
    copy = model.clone()
    graph = copy.ir.graph
    old_nodes, old_values = list(graph), values_of(graph)
    nodes = {n.name: n for n in old_nodes}
    for (name, port), title in free.items():
        node, port = with_port(graph, nodes[name], port)
        value = ir.Value(name=title, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([None]))
        graph.inputs.append(value)
        node.replace_input_with(port, value)
    values = {v.name: v for v in (*values_of(graph), *old_values)}  # a product's name is that of its sum by now
    for rounding in roundings:
        _round(graph, values[rounding.tensor], rounding)
    give_way(graph, old_nodes, old_values)
    return copy


def _round(graph: ir.Graph, value: ir.Value, rounding: Rounding) -> None:
    params = rounding.params
    if rounding.free is None:
        scale = add_initializer(graph, f"{value.name}_scale", np.asarray(params.scale, np.float32))
        zero = add_initializer(graph, f"{value.name}_zero", params.zero_point)
    else:
        scale, zero = (
            _input(graph, name, array.dtype)
            for name, array in zip(free_names(rounding.free), (params.scale, params.zero_point), strict=True)
        )
    q = ir.node("QuantizeLinear", [value, scale, zero], name=f"{value.name}_Q")
    dq = ir.node("DequantizeLinear", [q.outputs[0], scale, zero], name=f"{value.name}_DQ")
    q.outputs[0].name, dq.outputs[0].name = f"{value.name}_codes", f"{value.name}_rounded"
    dq.outputs[0].shape, dq.outputs[0].type = value.shape, value.type
    producer = value.producer()
    if producer is None:
        graph.insert_before(next(iter(graph)), [q, dq])
    else:
        graph.insert_after(producer, [q, dq])
    for use in list(value.uses()):
        if use.node is not q and (rounding.readers is None or (use.node.name, use.idx) in rounding.readers):
            use.node.replace_input_with(use.idx, dq.outputs[0])
    if rounding.readers is None:
        for i, output in enumerate(graph.outputs):
            if output is value:
                graph.outputs[i] = dq.outputs[0]


def _input(graph: ir.Graph, name: str, dtype: np.dtype[np.generic]) -> ir.Value:
    """The scalar input ``name`` of ``graph``, made if need be."""
    for value in graph.inputs:
        if value.name == name:
            return value
    value = ir.Value(name=name, type=ir.TensorType(ir.DataType.from_numpy(dtype)), shape=ir.Shape([]))
    graph.inputs.append(value)
    return value


def with_means(model: Model, places: Sequence[tuple[str | Port, int]]) -> tuple[Model, Sequence[str]]:
    """(a copy whose outputs are means, their names), for each place: a tensor or what a port reads, its channels' axis.

    The mean goes over all axes but the first and that of the channels: the result is [N, C], or [C] for rank 1.
    """
    copy = model.clone()
    graph = copy.ir.graph
    values = {v.name: v for v in values_of(graph)}
    nodes = {n.name: n for n in graph}
    outputs = []
    for i, (place, axis) in enumerate(places):
        value = values[place] if isinstance(place, str) else nodes[place[0]].inputs[place[1]]
        if value is None or value.shape is None:
            raise InternalError(f"{place} has no known rank to take means over")
        others = [a for a in range(1, len(value.shape)) if a != axis % len(value.shape)]
        outputs.append(_mean(graph, value, others, copy.opset, f"mean_{i}"))
    graph.outputs[:] = outputs
    return copy, [v.name or "" for v in outputs]


def _mean(graph: ir.Graph, value: ir.Value, axes: list[int], opset: int, name: str) -> ir.Value:
    if not axes:  # a value may be asked for twice, but an output cannot be there twice
        node = ir.node("Identity", [value], name=name)
    elif opset >= 18:
        operand = add_initializer(graph, f"{name}_axes", np.asarray(axes, np.int64))
        node = ir.node("ReduceMean", [value, operand], attributes={"keepdims": 0}, name=name)
    else:
        node = ir.node("ReduceMean", [value], attributes={"axes": axes, "keepdims": 0}, name=name)
    node.outputs[0].name = f"{name}_of_channels"
    graph.append(node)
    return node.outputs[0]

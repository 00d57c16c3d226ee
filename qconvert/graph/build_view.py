"""From an onnx-ir model to a :class:`~qconvert.graph.view.GraphView`."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qconvert.graph.bodies import bodies, body_parameters
from qconvert.graph.model import Model, unmap
from qconvert.graph.view import Dim, GraphView, NodeView, TensorView

# Where a tensor keeps its largest value, which several plans ask for.
_LARGEST = "qconvert.largest"
_NAMES = {"float": "float32", "double": "float64", "string": "str"}


def view_of(model: Model) -> GraphView:
    """Picture the main graph of a canonical model (every node and value named)."""
    graph = model.ir.graph
    values: dict[str, ir.Value] = {v.name: v for v in graph.inputs if v.name}
    values.update({v.name: v for v in graph.initializers.values() if v.name})
    nodes: dict[str, NodeView] = {}
    for node in graph:
        nodes[_name(node)] = _node(node)
        values.update({v.name: v for v in node.outputs if v.name})
    inputs = tuple(v.name for v in graph.inputs if v.name)
    outputs = tuple(v.name for v in graph.outputs if v.name)
    order = {name: i for i, name in enumerate(nodes)}
    tensors = {name: _tensor(v, graph, order, inputs, outputs) for name, v in values.items()}

    def constant(name: str) -> NDArray[np.generic]:
        value = values[name]
        if value.const_value is not None:
            return value.const_value.numpy()
        source, perm = _transposed_constant(value)
        return np.transpose(_tensor_of(source).numpy(), perm)

    def largest(name: str) -> float:
        value = values[name]
        return largest_of(_tensor_of(value if value.const_value is not None else _transposed_constant(value)[0]))

    return GraphView(
        nodes=nodes,
        tensors=tensors,
        inputs=inputs,
        outputs=outputs,
        opset=model.opset,
        constant=constant,
        largest=largest,
        body_parameters=body_parameters(model),
        inner=tuple((where.place, _name(n), n.op_type) for body, where in bodies(model).items() for n in body),
    )


def largest_of(tensor: ir.TensorProtocol) -> float:
    """The largest absolute value of ``tensor``; inf if it holds NaN or infinite values, NaN if it is empty."""
    known = tensor.meta.get(_LARGEST)
    if known is None:
        values = tensor.numpy()
        known = math.nan
        if values.size:
            ends = float(values.min()), float(values.max())
            known = max(-ends[0], ends[1]) if all(map(math.isfinite, ends)) else math.inf
        del values
        unmap(tensor)
        tensor.meta[_LARGEST] = known
    return float(known)


def _name(node: ir.Node) -> str:
    return node.name or ""


def _node(node: ir.Node) -> NodeView:
    bodies = any(a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in node.attributes.values())
    kinds = ir.AttributeType
    plain = {kinds.INT, kinds.INTS, kinds.FLOAT, kinds.FLOATS, kinds.STRING, kinds.STRINGS}
    return NodeView(
        name=_name(node),
        op_type=node.op_type,
        domain=node.domain,
        inputs=tuple(v.name if v is not None else None for v in node.inputs),
        outputs=tuple(v.name or "" for v in node.outputs),
        attributes={a.name: a.value for a in node.attributes.values() if a.type in plain},
        has_bodies=bodies,
    )


def _tensor(
    value: ir.Value, graph: ir.Graph, order: dict[str, int], inputs: tuple[str, ...], outputs: tuple[str, ...]
) -> TensorView:
    name = value.name or ""
    uses = list(value.uses())
    main = [(_name(u.node), u.idx) for u in uses if u.node.graph is graph]
    producer = value.producer()
    dtype = ""
    if isinstance(value.type, ir.TensorType):
        short = value.type.dtype.name.lower()
        dtype = _NAMES.get(short, short)
    shape: tuple[Dim, ...] | None = None
    if value.const_value is not None:
        shape = tuple(value.const_value.shape.numpy())
    elif value.shape is not None:
        shape = tuple(d if isinstance(d, int) else d.value for d in value.shape)
    alias = value.const_value is None and transposed_constant(value) is not None
    if alias:
        source, perm = _transposed_constant(value)
        sizes = _tensor_of(source).shape.numpy()
        shape = tuple(sizes[p] for p in perm)
    return TensorView(
        name=name,
        dtype=dtype,
        shape=shape,
        producer=_name(producer) if producer is not None and producer.graph is graph else None,
        consumers=tuple(sorted(main, key=lambda c: (order[c[0]], c[1]))),
        is_input=name in inputs,
        is_output=name in outputs,
        is_constant=(value.const_value is not None and name not in inputs) or alias,
        captured=len(main) < len(uses),
    )


def transposed_constant(value: ir.Value) -> tuple[ir.Value, tuple[int, ...]] | None:
    """(initializer, permutation) when ``value`` is a Transpose of an initializer, which constant folding leaves alone
    when the initializer has another reader (tied embedding and output weights)."""
    node = value.producer()
    if node is None or node.op_type != "Transpose" or node.domain not in ("", "ai.onnx"):
        return None
    source = node.inputs[0]
    if source is None or source.const_value is None or source.is_graph_input():
        return None
    perm = node.attributes.get_ints("perm") if "perm" in node.attributes else None
    rank = len(source.const_value.shape)
    return source, tuple(perm) if perm is not None else tuple(reversed(range(rank)))


def _transposed_constant(value: ir.Value) -> tuple[ir.Value, tuple[int, ...]]:
    found = transposed_constant(value)
    if found is None:
        raise KeyError(value.name)
    return found


def _tensor_of(value: ir.Value) -> ir.TensorProtocol:
    if value.const_value is None:
        raise KeyError(value.name)
    return value.const_value

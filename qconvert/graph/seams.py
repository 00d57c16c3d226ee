"""Seams: an Identity before readers that want a tensor in another integer type (:mod:`qconvert.plan.widths`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from qconvert.graph.constants import Port
from qconvert.graph.edit import add_initializer, constant_of, give_way, values_of
from qconvert.graph.model import Model


def with_seams(model: Model, readers: Mapping[str, Sequence[Port]]) -> Model:
    """A copy of ``model`` in which ``readers`` read an Identity of the tensor that they read; of a constant, a copy."""
    copy = model.clone()
    graph = copy.ir.graph
    nodes, values = {n.name or "": n for n in graph}, {v.name or "": v for v in values_of(graph)}
    for tensor, ports in readers.items():
        value = values[tensor]
        constant = constant_of(value)
        if constant is not None:
            new = add_initializer(graph, f"{tensor}_copy", constant)
        else:
            seam = ir.node("Identity", [value], name=f"{tensor}_seam")
            new = seam.outputs[0]
            new.name, new.shape, new.type = f"{tensor}_seam", value.shape, value.type
            producer = value.producer()
            if producer is None:
                graph.insert_before(next(iter(graph)), seam)
            else:
                graph.insert_after(producer, seam)
        for node, port in ports:
            nodes[node].replace_input_with(port, new)
    give_way(graph, nodes.values(), values.values())
    return copy


def drop_seams(graph: ir.Graph) -> None:
    """Remove each Identity of ``graph`` that makes no output of it, in place."""
    for node in list(graph):
        if node.op_type != "Identity" or node.inputs[0] is None or node.outputs[0].is_graph_output():
            continue
        ir.convenience.replace_all_uses_with(node.outputs[0], node.inputs[0])
        graph.remove(node, safe=True)

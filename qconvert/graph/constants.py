"""Other values for the constants that nodes read: how accuracy recovery writes its weights and biases into a model."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qconvert.errors import InternalError
from qconvert.graph.edit import add_initializer, give_way, take_over, values_of
from qconvert.graph.model import Model

Port = tuple[str, int]
"""A node of the main graph, by name, and one of its input ports.

A MatMul has two inputs. Port 2 of one stands for a bias [N] that nothing adds to its result yet."""

BIAS_PORT = 2


def with_constants(model: Model, values: Mapping[Port, NDArray[np.generic]]) -> Model:
    """A copy of ``model`` in which the given input ports read new initializers.

    Other readers of the old constants keep them. A port beyond the node's inputs is added (the bias of a Conv that has
    none), or an Add (the bias of a MatMul).

    Raises:
        InternalError: a node is not there.
    """
    if not values:
        return model
    copy = model.clone()
    graph = copy.ir.graph
    old_nodes, old_values = list(graph), values_of(graph)
    nodes = {n.name: n for n in old_nodes}
    for (name, port), array in values.items():
        if name not in nodes:
            raise InternalError(f"no node {name} to give a constant to")
        title = f"{name}_{port}"
        node, port = with_port(graph, nodes[name], port)
        before = node.inputs[port]
        title = before.name if before is not None and before.name else title
        node.replace_input_with(port, None)
        if before is not None and before.is_initializer() and not before.uses() and not before.is_graph_output():
            del graph.initializers[title]  # its name is the new one's
            old_values.remove(before)
        node.replace_input_with(port, add_initializer(graph, title, np.ascontiguousarray(array)))
    give_way(graph, old_nodes, old_values)
    return copy


def with_port(graph: ir.Graph, node: ir.Node, port: int) -> tuple[ir.Node, int]:
    """(node, input) that :data:`Port` means by ``port`` of ``node``, made if it is not there.

    The Add of a MatMul's bias takes over the name of the MatMul's result: every reader reads the sum.
    """
    if node.op_type != "MatMul" or port < BIAS_PORT:
        if len(node.inputs) <= port:
            node.resize_inputs(port + 1)
        return node, port
    product = node.outputs[0]
    add = ir.node("Add", [product, None], name=added_name(node.name or ""))
    take_over(add.outputs[0], product)
    add.replace_input_with(0, product)  # which was a reader of the product, too
    graph.insert_after(node, add)
    return add, 1


def added_name(product: str) -> str:
    """The name of the Add that :func:`with_port` puts behind a MatMul, unless the user's model has it already."""
    return f"{product}_added_bias"

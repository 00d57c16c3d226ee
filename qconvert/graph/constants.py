"""Other values for the constants that nodes read: how accuracy recovery writes its weights and biases into a model."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from qconvert.errors import InternalError
from qconvert.graph.edit import add_initializer, give_way, values_of
from qconvert.graph.model import Model

Port = tuple[str, int]
"""A node of the main graph, by name, and one of its input ports."""


def with_constants(model: Model, values: Mapping[Port, NDArray[np.generic]]) -> Model:
    """A copy of ``model`` in which the given input ports read new initializers.

    Other readers of the old constants keep them. A port beyond the node's inputs is added (the bias of a Conv that has
    none).

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
        node = nodes[name]
        if len(node.inputs) <= port:
            node.resize_inputs(port + 1)
        before = node.inputs[port]
        title = before.name if before is not None and before.name else f"{name}_{port}"
        node.replace_input_with(port, None)
        if before is not None and before.is_initializer() and not before.uses() and not before.is_graph_output():
            del graph.initializers[title]  # its name is the new one's
            old_values.remove(before)
        node.replace_input_with(port, add_initializer(graph, title, np.ascontiguousarray(array)))
    give_way(graph, old_nodes, old_values)
    return copy

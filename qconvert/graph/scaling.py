"""Channels scaled on the way to some readers of a tensor: a Mul with a constant vector between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qconvert.errors import InternalError
from qconvert.graph.constants import Port
from qconvert.graph.edit import add_initializer, give_way, values_of
from qconvert.graph.model import Model


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scaling:
    """What the ports ``readers`` read instead of a tensor [..., C]: the tensor times ``factors`` [C]."""

    factors: NDArray[np.float32]
    readers: frozenset[Port]


def with_scalings(model: Model, scalings: Mapping[str, Scaling]) -> Model:
    """A copy of ``model`` with a Mul behind each of the tensors.

    Raises:
        InternalError: a tensor is not there.
    """
    if not scalings:
        return model
    copy = model.clone()
    graph = copy.ir.graph
    old_nodes, old_values = list(graph), values_of(graph)
    values = {v.name: v for v in old_values}
    for name, scaling in scalings.items():
        value = values.get(name)
        producer = value.producer() if value is not None else None
        if value is None or producer is None:
            raise InternalError(f"no node makes {name}, which is to be scaled")
        factors = add_initializer(graph, f"{name}_factors", scaling.factors)
        node = ir.node("Mul", [value, factors], name=f"{name}_scaling")
        node.outputs[0].name = f"{name}_scaled"
        node.outputs[0].type, node.outputs[0].shape = value.type, value.shape
        graph.insert_after(producer, node)
        for use in list(value.uses()):
            if (use.node.name, use.idx) in scaling.readers:
                use.node.replace_input_with(use.idx, node.outputs[0])
    give_way(graph, old_nodes, old_values)
    return copy

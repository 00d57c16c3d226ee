"""Small edits of onnx-ir graphs that every rewriting pass needs."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

# Between the name of a node and what a part of it does.
_PART = "/part/"


def constant_of(value: ir.Value | None) -> NDArray[np.generic] | None:
    """The value of a constant that no caller can override, None for anything else."""
    if value is None or value.const_value is None or value.is_graph_input():
        return None
    return value.const_value.numpy()


def sizes_of(value: ir.Value) -> tuple[object, ...] | None:
    """The dimensions of ``value``: numbers, or names; None where one has neither."""
    if value.shape is None:
        return None
    sizes = tuple(d if isinstance(d, int) else d.value for d in value.shape)
    return None if any(d is None for d in sizes) else sizes


def perm_of(transpose: ir.Node) -> tuple[int, ...]:
    """Where the dimensions of the result of ``transpose`` come from; empty where they are reversed."""
    return tuple(transpose.attributes.get_ints("perm", []))


def maker_of(value: ir.Value | None) -> ir.Node | None:
    """The operator that makes ``value``; None where none does, or where there is no value."""
    return None if value is None else value.producer()


def sole_maker(value: ir.Value | None) -> ir.Node | None:
    """The operator that makes ``value``; None where more than one other reads it, or a caller of the model."""
    if value is None or value.is_graph_output() or len(value.uses()) != 1:
        return None
    return value.producer()


def reader_of(value: ir.Value) -> tuple[ir.Node, int] | None:
    """(the operator that reads ``value``, at which input); None where that is not the only one, or in a body."""
    uses = list(value.uses())
    if value.is_graph_output() or len(uses) != 1 or uses[0].node.graph is not value.graph:
        return None
    return uses[0].node, uses[0].idx


def is_padded(window: ir.Node) -> bool:
    """Whether a convolution or pooling reads beyond the edges of its input."""
    automatic = window.attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID")
    return automatic or any(window.attributes.get_ints("pads", []))


def unused(name: str, taken: Container[str | None]) -> str:
    """``name`` or, where that is ``taken``, ``name_1`` and so on."""
    unique, n = name, 1
    while unique in taken:
        unique, n = f"{name}_{n}", n + 1
    return unique


def bodies_of(node: ir.Node) -> list[ir.Graph]:
    """The control-flow bodies that ``node`` holds, without those within them."""
    return [body for attribute in node.attributes.values() for body in graphs_of(attribute)]


def graphs_of(attribute: ir.Attr) -> Sequence[ir.Graph]:
    """The graphs that ``attribute`` holds; none where it is of another type."""
    if attribute.type == ir.AttributeType.GRAPH:
        return [attribute.as_graph()]
    return attribute.as_graphs() if attribute.type == ir.AttributeType.GRAPHS else ()


def add_initializer(graph: ir.Graph, name: str, array: NDArray[np.generic]) -> ir.Value:
    """A new initializer holding ``array``, called ``name`` or, where that is taken, ``name_1`` and so on."""
    unique = unused(name, graph.initializers)
    value = ir.Value(name=unique, const_value=ir.tensor(array, name=unique))
    value.shape = ir.Shape(array.shape)
    value.type = ir.TensorType(ir.DataType.from_numpy(array.dtype))
    graph.register_initializer(value)
    return value


def remove_unused(model: ir.Model) -> None:
    """Remove nodes that nothing reads, and initializers, those of control-flow bodies included, in place.

    Bodies that folding took out of the model still count as readers to onnx-ir, so readers are looked up.
    """
    RemoveUnusedNodesPass()(model)
    bodies = [g for g in model.graphs() if g is not model.graph]
    if not any(g.initializers for g in bodies):
        return
    read = {v for node in ir.traversal.RecursiveGraphIterator(model.graph) for v in node.inputs if v is not None}
    for graph in bodies:
        for name, value in list(graph.initializers.items()):
            if value not in read and not value.is_graph_input() and not value.is_graph_output():
                del graph.initializers[name]


def part_of(name: str, what: str) -> str:
    """The name of a node that does a part of the work of the node ``name``."""
    return f"{name}{_PART}{what}"


def whole_of(name: str) -> str | None:
    """The node that ``name``, of a node or what it was made into, is a part of; None where it is none."""
    whole, part, _ = name.partition(_PART)
    return whole if part else None


def take_over(new: ir.Value, old: ir.Value) -> None:
    """Let ``new`` stand for ``old`` everywhere, name, type and place among the outputs included."""
    name = old.name
    new.shape, new.type = old.shape, old.type
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    old.name = f"{name}_replaced"
    new.name = name


def replace_by(new: ir.Value, node: ir.Node) -> None:
    """Let ``new`` stand for the one result of ``node``, under its name, and remove ``node``."""
    graph = node.graph
    take_over(new, node.outputs[0])
    if graph is not None:
        graph.remove(node, safe=True)


def stand_for(new: ir.Value, node: ir.Node) -> None:
    """Let ``new``, and the node that makes it, stand for ``node`` and its one result, names included."""
    maker, name = new.producer(), node.name
    replace_by(new, node)
    if maker is not None:
        maker.name = name


def give_way(graph: ir.Graph, nodes: Iterable[ir.Node], values: Iterable[ir.Value]) -> None:
    """Rename what has been added to ``graph`` where it bears the name of one of the ``nodes`` or ``values`` of before.

    Names belong to the user; whatever a pass adds yields to them.
    """
    old_nodes, old_values = set(nodes), set(values)
    node_names, value_names = {n.name for n in old_nodes}, {v.name for v in old_values}
    added = [v for v in graph.initializers.values() if v not in old_values]
    for node in graph:
        if node not in old_nodes and node.name in node_names:
            node.name = _unused(node.name or "node", node_names)
        added += [v for v in node.outputs if v not in old_values]
    for value in added:
        if value.name in value_names:
            value.name = _unused(value.name or "value", value_names)


def _unused(name: str, taken: set[str | None]) -> str:
    n = 1
    while f"{name}_{n}" in taken:
        n += 1
    taken.add(f"{name}_{n}")
    return f"{name}_{n}"


def values_of(graph: ir.Graph) -> list[ir.Value]:
    """Inputs, initializers and what the nodes make."""
    return [*graph.inputs, *graph.initializers.values(), *(v for node in graph for v in node.outputs)]

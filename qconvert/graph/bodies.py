"""Branches of If nodes as models of their own: found, taken out (:func:`extract`) and put back (:func:`splice`).

    main graph:  x -> Conv -> t;  If(c): then_branch reads t and the weight w of the main graph, and holds a weight v
    extracted:   a model with the input t and the initializers w and v

What a branch reads of the graph around it becomes an input with the same name, type and shape; constants become
initializers. Splicing undoes this. Initializers stay in the branch: ONNX Runtime fuses there as it does in a main graph
(measured with version 1.31.1: QLinearConv and QGemm, weights in the branch or in the main graph alike), and the main
graph's names stay its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from qconvert.errors import ModelError
from qconvert.graph.edit import add_initializer, graphs_of, values_of
from qconvert.graph.model import Model
from qconvert.graph.quantized import is_quantized_op
from qconvert.graph.session import Session
from qconvert.graph.signature import session_of, with_outputs

# a vector is a bias or a scale; what pays as integers has two axes at least
_WEIGHT_RANK = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """One branch of an If node of the main graph.

    Attributes:
        node: name of the If node.
        attribute: "then_branch" or "else_branch".
        condition: the value that chooses.
        captured: the values of the main graph that it reads, constants left out.
    """

    node: str
    attribute: str
    condition: str
    captured: tuple[str, ...]

    @property
    def taken_if(self) -> bool:
        """The value of the condition that selects this branch."""
        return self.attribute == "then_branch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """A control-flow body, at any depth.

    Attributes:
        place: where it is: "loop/body", "If_12/then_branch/loop/body".
        repeats: it is, or lies within, the body of a Loop or Scan: it runs again and again in one run of the model.
    """

    place: str
    repeats: bool


def bodies(model: Model) -> dict[ir.Graph, Body]:
    """Every control-flow body of ``model``, outer ones before those within them."""
    found: dict[ir.Graph, Body] = {}

    def walk(graph: ir.Graph, place: str, repeats: bool) -> None:
        for node in graph:
            for attribute in node.attributes.values():
                for body in graphs_of(attribute):
                    here = f"{place}/{node.name}/{attribute.name}".lstrip("/")
                    found[body] = Body(place=here, repeats=repeats or node.op_type != "If")
                    walk(body, here, found[body].repeats)

    walk(model.ir.graph, "", False)
    return found


def weighted_branches(model: Model) -> tuple[Branch, ...]:
    """The If branches of the main graph that hold or read float weights, in graph order."""
    found: list[Branch] = []
    for node in model.ir.graph:
        if node.op_type != "If" or node.domain not in ("", "ai.onnx") or node.inputs[0] is None:
            continue
        for attribute in ("then_branch", "else_branch"):
            body = node.attributes[attribute].as_graph()
            outer = captured(body)
            held = [v for g in (body, *body.subgraphs()) for v in g.initializers.values()]
            if not any(_is_weight(v) for v in (*held, *outer)):
                continue
            found.append(
                Branch(
                    node=node.name or "",
                    attribute=attribute,
                    condition=node.inputs[0].name or "",
                    captured=tuple(v.name or "" for v in outer if not _is_constant(v)),
                )
            )
    return tuple(found)


Path = tuple[tuple[str, str], ...]
"""(name of an If, attribute) from the main graph to a branch."""


def taking(model: Model, path: Path) -> Model:
    """A copy of ``model`` that takes the branch at ``path``, whatever its inputs are.

    Raises:
        ModelError: there is no such branch.
    """
    copy = model.clone()
    graph: ir.Graph = copy.ir.graph
    for name, attribute in path:
        node = next((n for n in graph if n.name == name and n.op_type == "If"), None)
        if node is None:
            raise ModelError(f"there is no If called {name}")
        node.replace_input_with(0, add_initializer(graph, f"{name}_taken", np.asarray(attribute == "then_branch")))
        graph = node.attributes[attribute].as_graph()
    return copy


def extract(model: Model, branch: Branch) -> Model:
    """``branch`` of a canonical model as a model of its own; the argument is not changed.

    Raises:
        ModelError: it reads something that cannot be an input (a sequence, a value of unknown type).
    """
    body = _body(model, branch).clone(allow_outer_scope_values=True)
    inside: dict[ir.Value, ir.Value] = {}
    for outer in captured(body):
        if not isinstance(outer.type, ir.TensorType):
            raise ModelError(f"it reads {outer.name}, which is not known to be a tensor")
        value = ir.Value(name=outer.name, type=outer.type, shape=outer.shape.copy() if outer.shape else outer.shape)
        inside[outer] = value
        if _is_constant(outer):
            value.const_value = outer.const_value
            body.register_initializer(value)
        else:
            body.inputs.append(value)
    for node in body.all_nodes():
        for port, read in enumerate(node.inputs):
            if read is not None and read in inside:
                node.replace_input_with(port, inside[read])
    for graph in (body, *body.subgraphs()):
        for i, output in enumerate(graph.outputs):
            graph.outputs[i] = inside.get(output, output)
    body.name = body.name or branch.attribute
    body.opset_imports.update(model.ir.opset_imports)
    for value in [v for g in (body, *body.subgraphs()) for v in g.initializers.values()]:
        value.const_value = _without_file(value.const_value)
    functions = [f.clone() for f in model.ir.functions.values()]
    return Model(ir=ir.Model(body, ir_version=model.ir.ir_version, functions=functions))


def splice(model: Model, branch: Branch, quantized: Model) -> Model:
    """A copy of ``model`` with ``quantized`` in the place of ``branch``; what only the old branch read is gone.

    Args:
        model: the model that the branch was extracted from.
        branch: which one.
        quantized: what was made of the extracted branch; its inputs are still called as extracted.

    Raises:
        ModelError: the two are of different operator sets.
    """
    copy = model.clone()
    imports = copy.ir.opset_imports
    for domain, version in quantized.ir.opset_imports.items():
        if imports.setdefault(domain, version) != version:
            raise ModelError(
                f"it needs version {version} of the operators {domain or 'ai.onnx'!r}, not {imports[domain]}"
            )
    copy.ir.ir_version = max(copy.ir.ir_version, quantized.ir.ir_version)
    old, body = _body(copy, branch), quantized.ir.graph.clone()
    _connect(body, {v.name: v for v in values_of(copy.ir.graph)})
    for node in list(old.all_nodes()):
        for port in range(len(node.inputs)):
            node.replace_input_with(port, None)
    body.name = old.name
    body.opset_imports.clear()
    _node(copy, branch).attributes[branch.attribute] = ir.AttrGraph(branch.attribute, body)
    _rename_added(copy.ir.graph, body, old)
    RemoveUnusedNodesPass()(copy.ir)
    return copy


def observer(model: Model, outputs: Sequence[str]) -> Session:
    """A session that computes just the values ``outputs`` of the main graph."""
    reduced = with_outputs(model, outputs)
    RemoveUnusedNodesPass()(reduced.ir)
    return session_of(reduced)


def body_parameters(model: Model) -> int:
    """Number of float parameters of control-flow bodies: held there, or held for them alone by the main graph.

    Scales, zero points and whatever else only integer operators read do not count.
    """
    graph = model.ir.graph
    values = [v for v in graph.initializers.values() if v.uses() and all(u.node.graph is not graph for u in v.uses())]
    values += [v for body in graph.subgraphs() for v in body.initializers.values()]
    count = 0
    for value in values:
        uses = list(value.uses())
        only_integer = bool(uses) and all(is_quantized_op(u.node.op_type) or _scales(u.node, value) for u in uses)
        if value.const_value is not None and value.const_value.dtype == ir.DataType.FLOAT and not only_integer:
            count += int(value.const_value.size)
    for node in graph.all_nodes():
        constant = node.attributes.get("value") if node.op_type == "Constant" and node.graph is not graph else None
        if constant is not None and constant.type == ir.AttributeType.TENSOR:
            count += int(constant.as_tensor().size)
    return count


def _scales(node: ir.Node, constant: ir.Value) -> bool:
    """Whether ``node`` takes ``constant`` for the scale or zero point of codes: what it meets there comes of codes."""
    if node.op_type not in ("Mul", "Sub") or len(node.inputs) != 2:
        return False
    other = node.inputs[1 - list(node.inputs).index(constant)]
    producer = other.producer() if other is not None else None
    while producer is not None and producer.op_type == "Sub" and producer.inputs[0] is not None:
        producer = producer.inputs[0].producer()
    if producer is None or producer.op_type == "DynamicQuantizeLinear":
        return producer is not None
    codes = producer.inputs[0] if producer.op_type == "Cast" else None
    while codes is not None and (made := codes.producer()) is not None and made.op_type == "Transpose":
        codes = made.inputs[0]
    known = codes.const_value if codes is not None else None
    return known is not None and known.dtype in (ir.DataType.INT8, ir.DataType.UINT8)


def _node(model: Model, branch: Branch) -> ir.Node:
    return next(n for n in model.ir.graph if n.name == branch.node)


def _body(model: Model, branch: Branch) -> ir.Graph:
    return _node(model, branch).attributes[branch.attribute].as_graph()


def captured(body: ir.Graph) -> list[ir.Value]:
    """What ``body`` and the bodies in it read of the graphs around it, in order of first use."""
    graphs = [body, *body.subgraphs()]
    own = {v for g in graphs for v in values_of(g)}
    read = [*_inputs(body), *(v for g in graphs for v in g.outputs)]
    return list(dict.fromkeys(v for v in read if v not in own))


def _inputs(body: ir.Graph) -> Iterator[ir.Value]:
    for node in body.all_nodes():
        yield from (v for v in node.inputs if v is not None)


def _is_constant(value: ir.Value) -> bool:
    return value.const_value is not None and not value.is_graph_input()


def _is_weight(value: ir.Value) -> bool:
    tensor = value.const_value
    if tensor is None or not _is_constant(value):
        return False
    return tensor.dtype == ir.DataType.FLOAT and len(tensor.shape) >= _WEIGHT_RANK


def _without_file(tensor: ir.TensorProtocol | None) -> ir.TensorProtocol | None:
    """External data as an array that is mapped from the file: an extracted model has no folder to find them in."""
    if not isinstance(tensor, ir.ExternalTensor):
        return tensor
    return ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=tensor.name)


def _connect(body: ir.Graph, outer: dict[str | None, ir.Value]) -> None:
    """Let the nodes of ``body`` read the outer values that its inputs are called after, and drop the inputs."""
    for value in list(body.inputs):
        source = outer[value.name]
        for use in list(value.uses()):
            use.node.replace_input_with(use.idx, source)
        for i, output in enumerate(body.outputs):
            if output is value:  # a branch may not return an outer value as it is
                copy = ir.node("Identity", [source], name=f"{value.name}_Identity")
                copy.outputs[0].name = f"{value.name}_out"
                body.append(copy)
                body.outputs[i] = copy.outputs[0]
    body.inputs.clear()


def _rename_added(graph: ir.Graph, body: ir.Graph, old: ir.Graph) -> None:
    """Give way: what is in ``body`` and was not in ``old`` may not be called like anything else in the model."""
    inner = [body, *body.subgraphs()]
    others = [g for g in (graph, *graph.subgraphs()) if g not in inner]
    kept_values = {v.name for g in (old, *old.subgraphs()) for v in values_of(g)}
    kept_nodes = {n.name for n in old.all_nodes()}
    values = {v.name for g in others for v in values_of(g)}
    nodes = {n.name for g in others for n in g}
    for node in body.all_nodes():
        if node.name in nodes and node.name not in kept_nodes:
            node.name = _fresh(node.name or "node", nodes | kept_nodes)
        nodes.add(node.name)
    for value in [v for g in inner for v in values_of(g)]:
        if value.name in values and value.name not in kept_values:
            value.name = _fresh(value.name or "value", values | kept_values)
        values.add(value.name)


def _fresh(name: str, taken: set[str | None]) -> str:
    n = 1
    while f"{name}_{n}" in taken:
        n += 1
    return f"{name}_{n}"

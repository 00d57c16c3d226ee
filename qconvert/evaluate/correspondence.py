"""Which tensor of one model stands for which of another, whoever quantized them.

Quantizers keep the names of the tensors that they keep, and add their own around them:

    X -> QuantizeLinear -> DequantizeLinear -> Y      Y stands for X, whatever it is called
    X_quantized, X_q, q_output_X, ...                 codes; read with the scale of the operator that makes them
    X (float16) -> Cast -> Y                          Y stands for X
    Conv -> c -> Relu -> r   against   Conv -> r      c has no partner, r has
    Conv -> c -> Relu -> r   against   Conv -> c -> Q -> DQ, the clamp being the saturation of Q
                                                      the dequantized tensor stands for r, not for c

Of the tensors that stand for the same one, the one furthest down is taken: what its readers see.
Constants, and what is computed from constants alone, are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qconvert.graph.view import GraphView, NodeView
from qconvert.ops import OPS
from qconvert.ops.rule import Constraint, Kind, rule_of

_FLOATS = ("float32", "float16", "float64")
_CODES = ("int8", "uint8", "int16", "uint16")
# what ONNX Runtime, NNCF and qconvert put around the name of a tensor
_AFTER = (
    *("_QuantizeLinear_Input", "_QuantizeLinear_Output", "_DequantizeLinear_Output"),
    *("_QuantizeLinear", "_quantized", "_q", "_dq", "_float"),
)
_BEFORE = ("q_output_", "dq_output_")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scale:
    """How integer codes are read: value = scale * (code - zero).

    Attributes:
        scale, zero: [1] or [C], float64.
        axis: the axis of C.
    """

    scale: NDArray[np.float64]
    zero: NDArray[np.float64]
    axis: int

    def read(self, codes: NDArray[np.generic]) -> NDArray[np.float32]:
        """The values that ``codes`` stand for."""
        shape = [1] * codes.ndim
        if self.scale.size > 1:
            shape[self.axis] = self.scale.size
        values = (codes.astype(np.float64) - self.zero.reshape(shape if self.zero.size > 1 else 1)) * (
            self.scale.reshape(shape if self.scale.size > 1 else 1)
        )
        return values.astype(np.float32).reshape(codes.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A tensor of one model, and what it may stand for.

    Attributes:
        name: its own name.
        root: the tensor that it is a quantized, dequantized or cast form of; its own name where it is none.
        depth: how many such steps lie between the two.
        scale: how its codes are read; None when it is float.
        clamped: output of the Relu or Clip that is its only reader; "" where there is none.
        op_type: operator that makes it.
    """

    name: str
    root: str
    depth: int
    scale: Scale | None
    clamped: str
    op_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two tensors that stand for the same values.

    Attributes:
        reference, other: the tensor of each model.
    """

    reference: Candidate
    other: Candidate


def pairs(reference: GraphView, other: GraphView) -> tuple[Pair, ...]:
    """The tensors that both models have, in the order of the reference's graph; each tensor is in one pair at most."""
    first, second = _groups(reference), _groups(other)
    owners = {member.name: root for root, members in first.items() for member in members}
    for root in first:  # a tensor's own name comes before what another might stand for
        owners.setdefault(bare(root), root)
    chosen: dict[str, tuple[bool, Pair]] = {}
    for root, members in second.items():
        own = next((m.name for m in members if m.name in owners), None)
        partner = owners.get(own if own is not None else bare(root))
        if partner is None or (partner in chosen and (own is None or chosen[partner][0])):
            continue
        chosen[partner] = (own is not None, Pair(reference=_last(first[partner]), other=_last(members)))
    order = {name: place for place, name in enumerate(owners)}
    known = {name for root, members in second.items() for name in (bare(root), *(m.name for m in members))}
    lasts = {member.name: member for members in first.values() for member in members}
    moved = (_behind_clamp(pair, lasts, known) for _, pair in chosen.values())
    return tuple(sorted(moved, key=lambda pair: order[pair.reference.name]))


def _groups(graph: GraphView) -> dict[str, list[Candidate]]:
    """Root -> the tensors that stand for it, in the order of the graph."""
    found: dict[str, list[Candidate]] = {}
    for candidate in candidates(graph):
        found.setdefault(candidate.root, []).append(candidate)
    return found


def _last(members: list[Candidate]) -> Candidate:
    """The one furthest down."""
    return max(members, key=lambda member: member.depth)


def candidates(graph: GraphView) -> Iterator[Candidate]:
    """The tensors of ``graph`` that hold real numbers, or codes that can be read, and depend on its inputs."""
    scales: dict[str, Scale] = {}
    varies = set(graph.inputs)
    for node in graph.nodes.values():
        if node.op_type == "Constant" or not (varies.intersection(filter(None, node.inputs)) or node.has_bodies):
            continue
        varies.update(node.outputs)
        scale = _scale(graph, node, scales)
        for name in filter(None, node.outputs):
            dtype = graph.tensors[name].dtype
            if scale is not None and dtype in ("", *_CODES):
                scales[name] = scale
            elif dtype not in ("", *_FLOATS):
                continue
            root, depth = _root(graph, name)
            yield Candidate(
                name=name,
                root=root,
                depth=depth,
                scale=scales.get(name),
                clamped=_clamped(graph, name),
                op_type=node.op_type,
            )


def bare(name: str) -> str:
    """``name`` without what quantizers put around it: X for X_quantized."""
    for affix in _BEFORE:
        name = name.removeprefix(affix)
    for affix in _AFTER:
        name = name.removesuffix(affix)
    return name


def _behind_clamp(pair: Pair, first: dict[str, Candidate], known: set[str]) -> Pair:
    """``pair``, moved behind the clamp that only the reference has where the other's codes saturate in its place.

    Args:
        pair: two tensors.
        first: the reference's tensors by name.
        known: the names that the other model has.
    """
    clamped = first.get(pair.reference.clamped)
    saturates = pair.other.depth > 0 or pair.other.scale is not None
    if clamped is None or not saturates or clamped.name in known or pair.other.clamped:
        return pair
    return Pair(reference=clamped, other=pair.other)


def _root(graph: GraphView, name: str) -> tuple[str, int]:
    """The tensor that ``name`` is a quantized, dequantized or cast form of, and the steps to it."""
    depth = 0
    while (node := graph.producer(name)) is not None and (source := node.input(0)) is not None:
        cast = node.op_type == "Cast" and graph.tensors[source].dtype in _FLOATS
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear") and not cast:
            break
        if graph.producer(source) is None:  # an input of the model
            break
        name, depth = source, depth + 1
    return name, depth


def _clamped(graph: GraphView, name: str) -> str:
    readers = graph.consumers(name)
    if len(readers) != 1 or graph.tensors[name].is_output:
        return ""
    node, _ = readers[0]
    rule = rule_of(node)
    return node.outputs[0] if rule is not None and rule.kind is Kind.CLAMP else ""


def _scale(graph: GraphView, node: NodeView, known: dict[str, Scale]) -> Scale | None:
    """How the codes that ``node`` makes are read; None when it makes none, or nobody says."""
    if node.op_type == "QuantizeLinear":
        return _constant_scale(graph, node, 1)
    rule = _RESULTS.get(node.op_type)
    if rule is not None:
        return _constant_scale(graph, node, rule)
    moves = rule_of(node)
    if moves is not None and moves.constraint is Constraint.SAME_AS_INPUT and node.inputs[0] in known:
        return known[node.inputs[0] or ""]
    for name in node.outputs:
        for reader, port in graph.consumers(name):
            if reader.op_type == "DequantizeLinear" and port == 0:
                return _constant_scale(graph, reader, 1)
    return None


def _constant_scale(graph: GraphView, node: NodeView, port: int) -> Scale | None:
    """The constant scale at ``port`` with the zero point after it."""
    scale, zero = node.input(port), node.input(port + 1)
    if not graph.is_constant(scale) or (zero and not graph.is_constant(zero)):
        return None
    values = np.asarray(graph.constant(scale or ""), np.float64).reshape(-1)
    offsets = np.asarray(graph.constant(zero), np.float64).reshape(-1) if zero else np.zeros(1)
    return Scale(scale=values, zero=offsets, axis=node.attr_int("axis", 1))


def _result_ports() -> dict[str, int]:
    """Integer operator -> input that holds the scale of its result, from the rules' QOperator forms."""
    found = {}
    for rule in OPS:
        words = rule.lowering.inputs.partition("*")[0].split() if rule.lowering is not None else []
        if rule.lowering is not None and "sy" in words:
            found[rule.lowering.op_type] = words.index("sy")
    return found


_RESULTS = _result_ports()

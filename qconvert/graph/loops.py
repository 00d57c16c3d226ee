"""How often the bodies of Loop run, as far as the file says.

ONNX's Loop computes its body while i < M and the condition holds; both may be left out. Times of nested Loops multiply:

    least(graph) = sum over its nodes: M * (1 + least(body)) for a Loop whose condition is true by construction,
                   infinite where it has no M; 0 for one whose condition or M is computed
    most(graph)  = the same with every condition taken for true, and infinite for an M that is computed
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import onnx
from onnx import numpy_helper

from qconvert.errors import ModelError

# ONNX Runtime 1.32 takes 0.8 us for a trip whose body is one node on 32 values, so these are a quarter of an hour of
# nothing for each sample.
_MOST_TRIPS = 1_000_000_000
# Bytes that the trips of one Loop may pile up, as in ``check_shapes``.
_LARGEST_PILE = 1 << 32
# A Loop that cannot run more often is as sure to end as any other node.
_FEW_TRIPS = 10_000

_Graph = onnx.GraphProto | onnx.FunctionProto


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scope:
    """What is known of the values that a graph can read: constants, and other names of the same value."""

    constants: Mapping[str, float]
    same: Mapping[str, str]

    def constant(self, name: str) -> float | None:
        """The one number that ``name`` holds; None if it is computed, or no number."""
        return self.constants.get(self.origin(name))

    def origin(self, name: str) -> str:
        """The value that ``name`` is a copy of."""
        for _ in range(len(self.same) + 1):
            if name not in self.same:
                break
            name = self.same[name]
        return name


_NOTHING = _Scope(constants={}, same={})


def check_loops(proto: onnx.ModelProto) -> None:
    """Check that no Loop is bound to run, or to pile up results, without end.

    Raises:
        ModelError: one is.
    """
    least, _ = _Counting(proto, strict=True).trips(proto.graph, _NOTHING)
    if least > _MOST_TRIPS:
        told = "never end" if math.isinf(least) else f"run their bodies over {_MOST_TRIPS:,} times"
        raise ModelError(f"its Loops {told}, whatever the input", hint="no processor gets there: export it again")


def sure_to_end(proto: onnx.ModelProto) -> bool:
    """Whether the file itself says that every Loop ends soon. Scan counts as one: its axis may have any length."""
    _, most = _Counting(proto, strict=False).trips(proto.graph, _NOTHING)
    return most <= _FEW_TRIPS


class _Counting:
    """(least, most) of one model's graphs; ``strict``: refuse piles of results."""

    def __init__(self, proto: onnx.ModelProto, *, strict: bool) -> None:
        self._functions = {(f.domain, f.name): f for f in proto.functions}
        self._counted: dict[tuple[str, str], tuple[float, float]] = {}
        self._strict = strict

    def trips(self, graph: _Graph, outer: _Scope) -> tuple[float, float]:
        """(least, most) for ``graph``, whose bodies see what is in ``outer``."""
        scope = _within(graph, outer)
        least = most = 0.0
        for node in graph.node:
            low, high = self._of_node(node, scope)
            least, most = least + low, most + high
        return least, most

    def _of_node(self, node: onnx.NodeProto, scope: _Scope) -> tuple[float, float]:
        callee = (node.domain, node.op_type)
        if callee in self._functions:
            if callee not in self._counted:  # functions do not call themselves: soundness and ONNX Runtime see to it
                self._counted[callee] = self.trips(self._functions[callee], _NOTHING)
            return self._counted[callee]
        inner = [self.trips(a.g, scope) for a in node.attribute if a.HasField("g")]
        if not inner:
            return 0.0, 0.0
        if node.op_type == "Loop":
            low, high = _bounds(node, scope, strict=self._strict)
            return low * (1 + inner[0][0]), high * (1 + inner[0][1])
        if node.op_type == "If":
            return min(low for low, _ in inner), max(high for _, high in inner)
        return 0.0, math.inf


def _bounds(node: onnx.NodeProto, scope: _Scope, *, strict: bool) -> tuple[float, float]:
    """How often this Loop alone runs its body, at least and at most."""
    body = next(a.g for a in node.attribute if a.HasField("g"))
    given = node.input[0] if node.input else ""
    count = scope.constant(given) if given else math.inf
    if count is None:
        return 0.0, math.inf
    count = max(0.0, count)
    starts = len(node.input) < 2 or not node.input[1] or scope.constant(node.input[1]) == 1
    within = _within(body, scope)
    goes_on = within.origin(body.output[0].name) if body.output else ""
    passed = len(body.input) > 1 and goes_on == body.input[1].name
    if not (starts and (passed or within.constant(goes_on) == 1)):
        return 0.0, count
    carried = max(0, len(node.input) - 2)
    pile = count * sum(_least_bytes(v) for v in body.output[1 + carried :])
    if strict and pile > _LARGEST_PILE and not math.isinf(count):
        raise ModelError(
            f"the Loop {node.name!r} collects over {_LARGEST_PILE >> 30} GiB of results, whatever the input",
            hint="the model is damaged, or was exported for sizes that no CPU runs: export it for smaller ones",
        )
    return count, count


def _least_bytes(value: onnx.ValueInfoProto) -> int:
    """Bytes of ``value`` as far as its shape is fixed, a byte for each element."""
    return math.prod(d.dim_value for d in value.type.tensor_type.shape.dim if d.dim_value > 0)


def _within(graph: _Graph, outer: _Scope) -> _Scope:
    """What is known inside ``graph``: its own names hide those around it."""
    constants, same = dict(outer.constants), dict(outer.same)
    inputs = [v if isinstance(v, str) else v.name for v in graph.input]
    for name in (*inputs, *(name for node in graph.node for name in node.output)):
        constants.pop(name, None)
        same.pop(name, None)
    if isinstance(graph, onnx.GraphProto):
        constants |= _numbers((t.name, t) for t in graph.initializer if t.name not in inputs)
    for node in graph.node:
        if node.op_type == "Identity" and node.input and node.output:
            same[node.output[0]] = node.input[0]
        elif node.op_type == "Constant" and node.output:
            constants |= _numbers((node.output[0], a.t) for a in node.attribute if a.name == "value")
            constants.update((node.output[0], a.i) for a in node.attribute if a.name == "value_int")
    return _Scope(constants=constants, same=same)


def _numbers(tensors: Iterable[tuple[str, onnx.TensorProto]]) -> dict[str, float]:
    """Those of one element that are in the file."""
    return {
        name: float(numpy_helper.to_array(t).reshape(()))
        for name, t in tensors
        if math.prod(t.dims) == 1 and t.data_location != onnx.TensorProto.EXTERNAL and t.data_type in _KINDS
    }


_KINDS = frozenset({onnx.TensorProto.INT64, onnx.TensorProto.BOOL})

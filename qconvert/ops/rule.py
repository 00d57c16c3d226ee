"""OpRule: the facts about one operator.

A rule says what an operator *can* do with quantized tensors; whether that is *worth* it on a runtime is the target's
business (``targets/``). Everything downstream (plan, QDQ emission, QOperator lowering, the conformance tests) reads
these facts; no other module has a table of operators.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

from qconvert.graph.view import GraphView, NodeView
from qconvert.numerics.saturation import Order
from qconvert.registry import Registry


class Role(Enum):
    """What an input port carries.

    ACTIVATION: a float tensor that is quantized with a scale of its own (a constant here is quantized per tensor).
    WEIGHT: a constant that is stored as integers, per channel where the rule gives an axis.
    BIAS: a constant [O] that is stored as int32 with scale s_x * s_w.
    PLAIN: shapes, indices, axes, conditions, bounds: left as it is.
    """

    ACTIVATION = "activation"
    WEIGHT = "weight"
    BIAS = "bias"
    PLAIN = "plain"


class Constraint(Enum):
    """How the scales of an operator's ports depend on each other.

    NONE: every output has a scale of its own.
    SAME_AS_INPUT: values pass through unchanged; outputs share the scale of the first input.
    SHARED: all activation inputs and outputs share one scale (Concat).
    FIXED_OUTPUT: the output range is known beforehand (Softmax: 0..1).
    """

    NONE = "none"
    SAME_AS_INPUT = "same as input"
    SHARED = "shared"
    FIXED_OUTPUT = "fixed output"


class Kind(Enum):
    """What a rule's operator is to a plan.

    WEIGHTED: does real work with constant (or two-sided) operands; integers pay here, regions grow from these.
    ARITHMETIC: makes new values, worth running on integers only between integer neighbours.
    MOVEMENT: moves or selects values; free on integers.
    CLAMP: Relu and Clip: absorbed into the saturation of the producer's range.
    RECURRENT: carries a state from step to step; computes in float, its weights can be held as integers.
    """

    WEIGHTED = "weighted"
    ARITHMETIC = "arithmetic"
    MOVEMENT = "movement"
    CLAMP = "clamp"
    RECURRENT = "recurrent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lowering:
    """The QOperator form of an operator, as data.

    Attributes:
        op_type, domain: the integer operator.
        inputs: space-separated tokens in the order of its inputs. ``x0`` is the codes of input 0, ``s0`` its scale,
            ``z0`` its zero point; ``y``, ``sy``, ``zy`` belong to output 0; ``b2`` is the int32 codes of bias port 2
            (nothing when absent); ``p1`` passes input 1 as it is; ``*`` repeats the following tokens, with index
            ``n``, for every activation input.
        float_output: the inputs when the result stays float (no sy, zy), with its own op_type; None where there is no
            such form.
        extra: attributes to add.
        min_opset: least ai.onnx opset for which the integer form runs.
    """

    op_type: str
    inputs: str
    domain: str = ""
    float_output: FloatOutput | None = None
    extra: tuple[tuple[str, int | float | str], ...] = ()
    min_opset: int = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatOutput:
    """The variant of a lowering whose result is float: MatMul -> com.microsoft MatMulIntegerToFloat."""

    op_type: str
    inputs: str
    domain: str = "com.microsoft"


def no_objection(graph: GraphView, node: NodeView) -> str:
    """The default of :attr:`OpRule.objection`: none."""
    del graph, node
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpRule:
    """The facts about one operator.

    Attributes:
        op_type, domain: which operator.
        kind: what it is to a plan.
        inputs: role of each input port; the last one repeats when ``variadic``.
        variadic: takes any number of inputs (Concat).
        constraint: how scales of its ports depend on each other.
        weight_axis: channel axis of the weight at the WEIGHT port, given graph and node; None: per tensor only.
        weight_order: in which order x86 kernels go through the weight, given its shape and the node's integer
            attributes; None where sums are never made in 16 bits (numerics/saturation.py).
        least_weight: constants at WEIGHT ports with fewer elements stay float.
        fixed_range: output range under FIXED_OUTPUT.
        table_port: an input that, when it is a constant, is a table of which rows are picked (embedding): it is stored
            as integers and the picked rows are dequantized.
        objection: why this particular node cannot be quantized at all, "" when it can.
        lowering: its QOperator form, None when there is none.
    """

    op_type: str
    kind: Kind
    inputs: tuple[Role, ...]
    domain: str = ""
    variadic: bool = False
    constraint: Constraint = Constraint.NONE
    weight_axis: Callable[[GraphView, NodeView], int | None] | None = None
    weight_order: Callable[[tuple[int, ...], Mapping[str, int]], Order | None] | None = None
    least_weight: int = 0
    fixed_range: tuple[float, float] | None = None
    table_port: int | None = None
    objection: Callable[[GraphView, NodeView], str] = no_objection
    lowering: Lowering | None = None

    def role(self, port: int) -> Role:
        """The role of input ``port``."""
        if port < len(self.inputs):
            return self.inputs[port]
        return self.inputs[-1] if self.variadic else Role.PLAIN

    def ports(self, role: Role, node: NodeView) -> tuple[int, ...]:
        """The ports of ``node`` that have ``role`` and are connected."""
        return tuple(i for i, name in enumerate(node.inputs) if name is not None and self.role(i) is role)


OPS: Registry[OpRule] = Registry("operator")


def register(rule: OpRule) -> OpRule:
    """Add a rule to ``OPS``, under "Conv" or "com.microsoft:Gelu"."""
    return OPS.add(key(rule.domain, rule.op_type), rule)


def key(domain: str, op_type: str) -> str:
    """The name of an operator in ``OPS``."""
    return f"{domain}:{op_type}" if domain not in ("", "ai.onnx") else op_type


def rule_of(node: NodeView) -> OpRule | None:
    """The rule of ``node``, or None."""
    return OPS.find(key(node.domain, node.op_type))

"""Decisions counted for people: how many nodes of each operator run on integers, and why the others do not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from qconvert.ops import OPS
from qconvert.ops.rule import Kind
from qconvert.report.model import NodeDecision

# Costly operators without a rule; that they stay float is worth knowing first.
_COSTLY = frozenset({"GRU", "LSTM", "RNN", "If", "Loop", "Scan", "Attention", "Einsum"})
_SHAPE_MAKERS = frozenset({"Shape", "Size", "ConstantOfShape", "Range", "NonZero"})
_NO_FLOAT = ("it computes no float32 values", "its input is not float32")
_ABSORBED = "absorbed into"
SHAPES = "no float32 arithmetic: shapes, indices, masks"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Nodes that share one reason.

    Attributes:
        reason: why.
        ops: operator -> how many, the most frequent first.
    """

    reason: str
    ops: tuple[tuple[str, int], ...]

    @property
    def nodes(self) -> int:
        """How many nodes in all."""
        return sum(n for _, n in self.ops)


def op_totals(decisions: Iterable[NodeDecision]) -> dict[str, int]:
    """Operator -> nodes."""
    return dict(Counter(d.op_type for d in decisions))


def taken(decisions: Sequence[NodeDecision]) -> tuple[Tally, ...]:
    """What runs on integers, by reason: the operators with weights first, what is absorbed last."""
    groups = _grouped(d for d in decisions if d.quantized)
    return tuple(sorted(groups, key=lambda g: (g.reason.startswith(_ABSORBED), not _weighty(g), -g.nodes)))


def left_float(decisions: Sequence[NodeDecision]) -> tuple[Tally, ...]:
    """What stays float, by reason: costly operators first, shape arithmetic summed at the end."""
    groups = _grouped(d for d in decisions if not d.quantized)
    return tuple(sorted(groups, key=lambda g: (g.reason == SHAPES, not _weighty(g), -g.nodes)))


def listed(ops: Sequence[tuple[str, int]], totals: dict[str, int] | None = None, most: int = 0) -> str:
    """9 Conv, 1 Gemm; with ``totals`` 9 of 9 Conv, 1 of 2 Gemm; beyond ``most`` operators (0: no limit) "..."."""
    shown = ops[:most] if most and len(ops) > most else ops
    words = [f"{n} of {totals[op]} {op}" if totals else f"{n} {op}" for op, n in shown]
    return ", ".join([*words, *(["..."] if len(shown) < len(ops) else [])])


def _grouped(decisions: Iterable[NodeDecision]) -> list[Tally]:
    reasons: dict[str, Counter[str]] = {}
    for d in decisions:
        reasons.setdefault(reason_of(d), Counter())[d.op_type] += 1
    return [
        Tally(reason=reason, ops=tuple(sorted(ops.items(), key=lambda item: -item[1])))
        for reason, ops in reasons.items()
    ]


def reason_of(decision: NodeDecision) -> str:
    """The reason under which ``decision`` is counted; ``SHAPES`` for what computes no float values."""
    if decision.quantized:
        # the operator that takes a Relu over differs from node to node and is not news
        return f"{_ABSORBED} the operator before" if decision.reason.startswith(_ABSORBED) else decision.reason
    no_float = decision.reason in _NO_FLOAT or decision.op_type in _SHAPE_MAKERS
    # a float16 convolution is no shape arithmetic
    return SHAPES if no_float and not _costly(decision.op_type) else decision.reason


def _weighty(group: Tally) -> bool:
    return any(_costly(op) for op, _ in group.ops)


def _costly(op_type: str) -> bool:
    rule = OPS.find(op_type)
    return op_type in _COSTLY or (rule is not None and rule.kind is Kind.WEIGHTED)

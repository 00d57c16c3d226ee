"""What a report says of every node and of every quantized tensor: the decision, the numbers, and what was seen.

Shapes by example: a weight [O, I, 3, 3] with a scale an output channel has O scales, of which the report keeps the
least and the greatest.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qconvert.graph.view import GraphView
from qconvert.numerics.spec import QParams
from qconvert.ops import OPS
from qconvert.plan.model import NodePlan, QuantPlan
from qconvert.report.model import NodeDecision, TensorHistogram, TensorReport, WeightReport
from qconvert.stats.histogram import Histogram
from qconvert.stats.statistic import Statistic, StatsTable

# Bins of a histogram in a report: enough to see the shape, few enough for hundreds of tensors.
MOST_BINS = 128


def node_decisions(plan: QuantPlan, written: GraphView | None = None, place: str = "") -> tuple[NodeDecision, ...]:
    """Every node of ``plan``, in graph order.

    Args:
        plan: the plan.
        written: the quantized model, to read scales of weights from.
        place: a branch, "If_12/then_branch", for which ``written`` says nothing.
    """
    return tuple(
        NodeDecision(
            node=_within(place, n.node),
            op_type=n.op_type,
            quantized=n.decision.taken,
            reason=n.decision.reason,
            reads=tuple(_within(place, t) for t in dict.fromkeys(n.read_tensors)),
            writes=tuple(_within(place, t) for t in n.quantized_outputs),
            weight=_weight(n, written),
            absorbed_into=n.absorbed_into and _within(place, n.absorbed_into),
            form=n.form or None,
            float_ms=n.times.float_us / 1e3 if n.times is not None else None,
            integer_ms=n.times.integer_us / 1e3 if n.times is not None else None,
        )
        for n in plan.nodes.values()
    )


def tensor_reports(plan: QuantPlan, stats: StatsTable, place: str = "") -> tuple[TensorReport, ...]:
    """Every quantized activation of a solved ``plan``, with what ``stats`` know of it; ``place`` as above."""
    found = []
    for group in plan.groups:
        if group.params is None:
            continue
        members = [t for t in group.tensors if t not in group.constants]
        for tensor in members:
            seen = stats.entries.get(tensor)
            extremes = seen.extremes if seen is not None else None
            found.append(
                TensorReport(
                    name=_within(place, tensor),
                    dtype=group.spec.qtype.name,
                    scale=float(group.params.scale),
                    zero_point=int(group.params.zero_point),
                    range=group.params.range,
                    method=group.method,
                    shared_with=None if tensor == members[0] else _within(place, members[0]),
                    observed=(extremes.lo, extremes.hi) if extremes is not None and extremes.usable else None,
                    clipped=_clipped(seen, group.params),
                    histogram=_coarse(seen),
                )
            )
    return tuple(found)


def _within(place: str, name: str) -> str:
    return f"{place}/{name}" if place else name


def _clipped(seen: Statistic | None, params: QParams) -> float | None:
    """The share of counted elements in bins that lie more than half a step, which rounding costs anyway, outside."""
    if not isinstance(seen, Histogram) or not seen.counts.sum():
        return None
    (lo, hi), half = params.range, float(params.scale) / 2
    edges = seen.edges()
    outside = (edges[1:] < lo - half) | (edges[:-1] > hi + half)
    return float(seen.counts[outside].sum() / seen.counts.sum())


def _coarse(seen: Statistic | None) -> TensorHistogram | None:
    """The histogram with bins joined until they are few enough: floor(i / 2**k) is the bin of the wider ones."""
    if not isinstance(seen, Histogram) or not seen.extremes.usable:
        return None
    first, size, doublings = seen.lo_bin, seen.counts.size, 0
    while ((first + size - 1) >> doublings) - (first >> doublings) >= MOST_BINS:
        doublings += 1
    start = first >> doublings
    index = (np.arange(first, first + size) >> doublings) - start
    counts = np.zeros(int(index[-1]) + 1, np.int64)
    np.add.at(counts, index, seen.counts)
    width = seen.width * 2.0**doublings
    return TensorHistogram(start=start * width, width=width, counts=tuple(int(c) for c in counts))


def _weight(node: NodePlan, written: GraphView | None) -> WeightReport | None:
    plan = node.weight or node.table
    if not node.decision.taken or plan is None:
        return None
    scale = _weight_scale(written, node, plan.port) if written is not None else None
    if scale is None or not scale.size:
        return WeightReport(tensor=plan.tensor, dtype=plan.spec.qtype.name)
    return WeightReport(
        tensor=plan.tensor,
        dtype=plan.spec.qtype.name,
        scales=int(scale.size),
        least_scale=float(scale.min()),
        greatest_scale=float(scale.max()),
    )


def _weight_scale(written: GraphView, plan: NodePlan, port: int) -> NDArray[np.float32] | None:
    """Scales of the weight at ``port``, from the written model: emission may have enlarged some."""
    node = written.nodes.get(plan.node)
    if node is None:
        return None
    scale: str | None = None
    if node.op_type == plan.op_type:
        producer = written.producer(node.input(port) or "")
        if producer is not None and producer.op_type == "Transpose":
            producer = written.producer(producer.input(0) or "")
        if producer is not None and producer.op_type == "DequantizeLinear":
            scale = producer.input(1)
    else:
        rule = OPS.find(plan.op_type)
        lowering = rule.lowering if rule is not None else None
        forms = (lowering, lowering.float_output) if lowering is not None else ()
        tokens = next((f.inputs.split() for f in forms if f is not None and f.op_type == node.op_type), [])
        if f"s{port}" in tokens:
            scale = node.input(tokens.index(f"s{port}"))
    if scale is None or not written.is_constant(scale):
        return None
    return np.asarray(written.constant(scale), np.float32)

"""Which operators in float, with weights stored as bytes, could quantize what they read as the model runs instead.

They are faster so than in float where they are large enough, and lose less than with fixed ranges: what they read is
rounded in the range that it has in that run, and what they make is not rounded. Convolutions become products for that
(:mod:`qconvert.emit.unfolded`).
"""

from __future__ import annotations

from qconvert.forms import DYNAMIC
from qconvert.graph.view import GraphView, NodeView
from qconvert.numerics.dtypes import INT8
from qconvert.ops.rule import key
from qconvert.plan.convolutions import assumed_shape, convolution_ns, unfolded_ns
from qconvert.plan.costs import LEAST_STORED
from qconvert.plan.model import NodePlan, QuantPlan
from qconvert.targets.target import ConvolutionCosts, Target

# By how much integers have to be estimated faster.
_MARGIN, _MARGIN_NS = 1.15, 3000.0
# Elements of a product's weight from which on its kernel counts for more than what goes on around it.
_LEAST_PRODUCT = 1 << 14


def is_stored(decided: NodePlan) -> bool:
    """Whether an operator computes in float with a weight that is stored as integers."""
    taken = decided.decision.taken and decided.weight is not None
    return taken and not decided.activations and not decided.form


def leaves_integers(decided: NodePlan) -> bool:
    """Whether an operator in float with a stored weight is one that could be dynamic, pinned to float though it is."""
    return is_stored(decided) and decided.second is None


def lstm_objection(node: NodeView, decided: NodePlan) -> str:
    """Why an LSTM cannot be a DynamicQuantizeLSTM."""
    if not decided.decision.taken or decided.second is None:
        return "its weights are not both stored as integers"
    if any(w.spec.qtype != INT8 or not w.spec.symmetric for w in decided.constants):
        return "its weights are no signed bytes"
    return "" if node.attr_int("layout", 0) == 0 else "DynamicQuantizeLSTM knows only sequences first (layout 0)"


def stored_objection(graph: GraphView, decided: NodePlan) -> str:
    """Why a node that :func:`is_stored` cannot have a dynamic form; "" if it can."""
    node, weight = graph.nodes[decided.node], decided.weight
    if node.op_type not in ("Conv", "Gemm", "MatMul") or weight is None or weight.port != 1:
        return "it is no product with a constant weight"
    if weight.spec.qtype != INT8 or not weight.spec.symmetric:
        return "its weight is no signed bytes"
    if graph.tensors[weight.tensor].elements() < LEAST_STORED:
        return "its weight is too small to be stored as integers in float"
    if node.op_type == "Conv":
        return _convolution_objection(graph, node)
    return "" if graph.tensors[node.inputs[1] or ""].rank == 2 else "its weight is no matrix"


def gaining(graph: GraphView, plan: QuantPlan, target: Target) -> dict[str, float]:
    """The operators of ``plan`` that multiply on integers and could be dynamic where they leave these, and what they
    take so as a share of what they take in float, by estimates; where that is surely less. With fixed ranges they take
    no more, whatever the share."""
    found = {}
    for name, decided in plan.nodes.items():
        node = graph.nodes[name]
        if (
            not decided.multiplies
            or not decided.activations
            or DYNAMIC not in target.capability(key(node.domain, node.op_type)).forms
        ):
            continue
        if decided.second is None and not stored_objection(graph, decided):
            share = _share(graph, node, target.convolutions)
            if share < 1:
                found[name] = share
    return found


def _share(graph: GraphView, node: NodeView, costs: ConvolutionCosts | None) -> float:
    """What ``node`` takes in its dynamic form, as a share of what it takes in float; 1 where it is not sure to gain."""
    if node.op_type != "Conv":
        weight = graph.tensors.get(node.input(1) or "")
        large = weight is not None and weight.elements() >= _LEAST_PRODUCT
        return 0.0 if large else 1.0  # their kernels are the same as with fixed ranges
    shape = assumed_shape(graph, node) if costs is not None else None
    if costs is None or shape is None or shape.groups != 1:
        return 1.0
    in_float, dynamic = convolution_ns(shape, costs, integer=False), unfolded_ns(shape, costs)
    return dynamic / in_float if dynamic * _MARGIN + _MARGIN_NS < in_float else 1.0


def _convolution_objection(graph: GraphView, node: NodeView) -> str:
    weight = graph.tensors[node.inputs[1] or ""]
    if node.attr_int("group", 1) != 1:
        return "it has groups"
    if graph.opset < 13 or node.attr_str("auto_pad", "NOTSET") != "NOTSET":
        return "its padding is not written out, or the opset is older than 13"
    if weight.rank is None or weight.rank < 3 or any(p < 0 for p in node.attr_ints("pads")):
        return "it has no dimensions beside channels, or cuts some off"
    return ""

"""The forms of a plan (:mod:`qconvert.forms`) written into a QDQ graph.

    fused     DQ(x) -> MatMul(DQ(W)) -> Add(b)   becomes   MatMulIntegerToFloat(x_q, W_q, s_x, s_w, z_x, z_w, b)
    dynamic   x -> MatMul(DQ(W)) -> Add(b)       becomes   x -> DynamicQuantizeLinear -> (codes, s_x, z_x)
                                                           MatMulInteger(codes, W_q, z_x, z_w) -> Cast
                                                           -> Mul(s_x * s_w) -> Add(b)
              x -> Conv(DQ(W), b)            becomes   as :mod:`qconvert.emit.unfolded` says
              LSTM(x, DQ(W), DQ(R), ...)     becomes   DynamicQuantizeLSTM(x, W_q, R_q, ..., s_w, z_w, s_r, z_r)
    bounded   x -> Softmax                       becomes   Max(x, ReduceMax(x) - 64) -> Softmax
    activation  x -> Sigmoid -> Mul(x)           becomes   x -> QuickGelu(alpha = 1), and likewise Gelu
    channels-last   codes -> MaxPool         becomes   codes -> Transpose -> NhwcMaxPool -> Transpose
    folded, widened    as :mod:`qconvert.emit.folded` and :mod:`qconvert.emit.widened` say

Of a dynamic node ONNX Runtime makes DynamicQuantizeMatMul, or MatMulIntegerToFloat where several share the codes of x;
the bias [N] goes in (1.32). Sources: the operators' documentation in ONNX Runtime 1.32, ONNX DynamicQuantizeLinear-11
and MatMulInteger-10.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from qconvert.emit.additions import CONTRIB, Additions
from qconvert.emit.folded import TO_FIRST, TO_LAST, write_folded
from qconvert.emit.unfolded import Unfolder
from qconvert.emit.widened import write_widened
from qconvert.errors import InternalError
from qconvert.forms import ACTIVATION, BOUND, BOUNDED, CHANNELS_LAST, DYNAMIC, FOLDED, FUSED, WIDENED
from qconvert.graph.edit import constant_of, stand_for, take_over
from qconvert.graph.model import Model
from qconvert.plan.model import QuantPlan

# What is written for the activation function that an operator is at the heart of.
_FUNCTIONS: dict[str, tuple[str, dict[str, float]]] = {
    "Sigmoid": ("QuickGelu", {"alpha": 1.0}),
    "Erf": ("Gelu", {}),
    "Tanh": ("FastGelu", {}),
}


def write_forms(model: Model, plan: QuantPlan) -> None:
    """Write the nodes of ``plan`` that have a form in it, in place.

    Args:
        model: as :func:`qconvert.emit.qdq.emit_qdq` has written ``plan``.
        plan: the same.
    """
    # an activation function is written where its heart is
    forms = {n.node: n.form for n in plan.nodes.values() if n.form and (n.takes or n.form != ACTIVATION)}
    if not forms:
        return
    nodes = {n.name or "": n for n in model.ir.graph}
    additions = Additions(model=model.ir)
    writer = _Writer(graph=model.ir.graph, plan=plan, opset=model.opset, additions=additions, nodes=nodes)
    write = {
        FUSED: writer.fused,
        DYNAMIC: writer.dynamic,
        BOUNDED: writer.bounded,
        ACTIVATION: writer.activation,
        FOLDED: writer.folded,
        WIDENED: writer.widened,
        CHANNELS_LAST: writer.channels_last,
    }
    for name, node in nodes.items():
        if name in forms:
            write[forms[name]](node)


@dataclass(slots=True, kw_only=True)
class _Writer:
    graph: ir.Graph
    plan: QuantPlan
    opset: int
    additions: Additions
    nodes: Mapping[str, ir.Node]
    codes: dict[ir.Value, tuple[ir.Value, ir.Value, ir.Value]] = field(default_factory=dict)
    turned: set[ir.Value] = field(default_factory=set)

    def fused(self, node: ir.Node) -> None:
        (x, x_scale, x_zero), (w, w_scale, w_zero) = self._behind(node, 0), self._behind(node, 1)
        add, bias = self._bias(node)
        if add is None:
            raise InternalError(f"nothing adds a bias to {node.name}, which the plan fuses with it")
        inputs = [x, w, x_scale, w_scale, x_zero, w_zero, bias]
        made = ir.node("MatMulIntegerToFloat", inputs, domain=CONTRIB, name=node.name)
        self.graph.insert_before(add, made)
        self.additions.model.opset_imports.setdefault(CONTRIB, 1)
        self._replace(node, add, made.outputs[0])

    def dynamic(self, node: ir.Node) -> None:
        if node.op_type == "LSTM":
            self._lstm(node)
            return
        value, weight = node.inputs[0], self._behind(node, 1)
        if node.op_type == "Conv":
            unfolder = Unfolder(
                graph=self.graph, additions=self.additions, quantized=self._quantized, turned=self.turned
            )
            unfolder.write(node, weight[0], weight[1])
            return
        add, bias = self._bias(node)
        if node.op_type == "Gemm":
            weight = self._columns(node, weight[0], weight[1])
            bias = node.inputs[2] if len(node.inputs) > 2 else None
        if value is None:
            raise InternalError(f"{node.name} reads nothing")
        codes, name = self._quantized(value, node), node.name or "MatMul"
        self._replace(node, add, self.additions.integer_product(node, codes, weight, bias, name=name))

    def _columns(
        self, node: ir.Node, codes: ir.Value | None, scale: ir.Value | None
    ) -> tuple[ir.Value, ir.Value, ir.Value]:
        """(codes [K, N], scale [N], zero point [N]) of the weight of a Gemm."""
        weight, scales = constant_of(codes), constant_of(scale)
        if weight is None or scales is None:
            raise InternalError(f"the weight of {node.name} is no constant")
        columns = weight.T if node.attributes.get_int("transB", 0) else weight
        return self.additions.columns(self.graph, f"{node.name}_columns", columns, scales)

    def _lstm(self, node: ir.Node) -> None:
        w, r = (self._gates(node, port) for port in (1, 2))
        rest = [node.inputs[i] if i < len(node.inputs) else None for i in range(3, 8)]
        made = ir.Node(
            CONTRIB,
            "DynamicQuantizeLSTM",
            [node.inputs[0], w[0], r[0], *rest, *w[1:], *r[1:]],
            [a for a in node.attributes.values() if a.name != "layout"],
            num_outputs=len(node.outputs),
            name=node.name,
        )
        self.graph.insert_before(node, made)
        self.additions.model.opset_imports.setdefault(CONTRIB, 1)
        for new, old in zip(made.outputs, node.outputs, strict=True):
            take_over(new, old)
        self.graph.remove(node, safe=True)

    def _gates(self, node: ir.Node, port: int) -> tuple[ir.Value, ir.Value, ir.Value]:
        """(codes [d, I, 4 H], scale [d, 4 H], zero point [d, 4 H]) of the weight [d, 4 H, I] at ``port``."""
        codes, scale, _ = (constant_of(v) for v in self._behind(node, port))
        if codes is None or scale is None:
            raise InternalError(f"the weights of {node.name} are no constants")
        name, shape = f"{node.name}_{'wr'[port - 1]}", codes.shape[:2]
        make = self.additions.constant
        return (
            make(self.graph, f"{name}_q", np.ascontiguousarray(codes.swapaxes(1, 2))),
            make(self.graph, f"{name}_s", np.broadcast_to(scale, shape).astype(np.float32)),
            make(self.graph, f"{name}_z", np.zeros(shape, np.int8)),
        )

    def bounded(self, node: ir.Node) -> None:
        value, name = node.inputs[0], node.name or "Softmax"
        if value is None:
            raise InternalError(f"{node.name} reads nothing")
        make = self.additions.node
        if self.opset >= 18:
            axes = self.additions.constant(self.graph, f"{name}_axes", np.array([-1], np.int64))
            most = make(node, "ReduceMax", [value, axes], {"keepdims": 1}, name=f"{name}_ReduceMax")
        else:
            most = make(node, "ReduceMax", [value], {"axes": [-1], "keepdims": 1}, name=f"{name}_ReduceMax")
        distance = self.additions.constant(self.graph, f"{name}_bound", np.array(BOUND, np.float32))
        least = make(node, "Add", [most, distance], name=f"{name}_least")
        node.replace_input_with(0, make(node, "Max", [value, least], name=f"{name}_Max"))

    def activation(self, node: ir.Node) -> None:
        first, *between, last = (self.nodes[name] for name in self.plan.nodes[node.name or ""].takes)
        x = next((v for v in first.inputs if v is not None and constant_of(v) is None), None)
        op_type, attributes = _FUNCTIONS[node.op_type]
        result = self.additions.node(last, op_type, [x], attributes, name=last.name or op_type, domain=CONTRIB)
        stand_for(result, last)
        for old in (*reversed(between), first):
            self.graph.remove(old, safe=True)

    def folded(self, node: ir.Node) -> None:
        fold = self.plan.nodes[node.name or ""].fold
        if fold is None:
            raise InternalError(f"the plan does not say how {node.name} is folded")
        write_folded(node, fold, self.additions)

    def widened(self, node: ir.Node) -> None:
        region = self.plan.nodes[node.name or ""].wide
        if region is None:
            raise InternalError(f"the plan does not say which channels {node.name} gets")
        if node.name == region.depthwise[0]:  # once for all
            write_widened(self.nodes, region, self.additions)

    def channels_last(self, node: ir.Node) -> None:
        codes, scale, _ = self._behind(node, 0)
        quantizer = next((u.node for u in node.outputs[0].uses()), None)
        if quantizer is None or quantizer.op_type != "QuantizeLinear" or quantizer.inputs[1] is not scale:
            raise InternalError(f"{node.name} does not pass on the codes that it reads, as its plan says")
        make = self.additions.node
        turned = make(node, "Transpose", [codes], {"perm": TO_LAST}, name=f"{node.name}_last")
        attributes = {name: a.value for name, a in node.attributes.items() if name != "storage_order"}
        pooled = make(node, "NhwcMaxPool", [turned], attributes, name=node.name or "MaxPool", domain=CONTRIB)
        result = make(node, "Transpose", [pooled], {"perm": TO_FIRST}, name=f"{node.name}_first")
        take_over(result, quantizer.outputs[0])
        self.graph.remove([quantizer, node], safe=True)

    def _behind(self, node: ir.Node, port: int) -> tuple[ir.Value | None, ...]:
        """(codes, scale, zero point) behind the DequantizeLinear at ``port``."""
        value = node.inputs[port]
        dq = value.producer() if value is not None else None
        if dq is None or dq.op_type != "DequantizeLinear":
            raise InternalError(f"{node.name} does not read integers at port {port}, as its plan says")
        return dq.inputs[0], dq.inputs[1], dq.inputs[2] if len(dq.inputs) > 2 else None

    def _bias(self, node: ir.Node) -> tuple[ir.Node | None, ir.Value | None]:
        """(the Add that the plan names, its bias [N]) behind a product; (None, None) where it names none."""
        name = self.plan.nodes[node.name or ""].adds
        if name is None:
            return None, None
        add = next((u.node for u in node.outputs[0].uses() if u.node.name == name), None)
        value = next((v for v in add.inputs if v is not node.outputs[0]), None) if add is not None else None
        bias = constant_of(value)
        if add is None or value is None or bias is None:
            raise InternalError(f"{name} adds no bias to {node.name}, as its plan says")
        if bias.ndim > 1:
            value = self.additions.constant(self.graph, f"{value.name}_row", bias.reshape(-1))
        return add, value

    def _quantized(self, value: ir.Value, before: ir.Node) -> tuple[ir.Value, ir.Value, ir.Value]:
        """(codes, scale, zero point) of ``value``, computed once."""
        if value not in self.codes:
            made = ir.Node("", "DynamicQuantizeLinear", [value], num_outputs=3, name=f"{value.name}_DQL")
            made.name = self.additions.fresh(made.name or "DQL")
            for output, what in zip(made.outputs, ("codes", "scale", "zero"), strict=True):
                output.name = self.additions.fresh(f"{value.name}_{what}")
            producer = value.producer()
            if producer is None:
                self.graph.insert_before(next(iter(self.graph)), made)
            else:
                self.graph.insert_after(producer, made)
            codes, scale, zero = made.outputs
            self.codes[value] = (codes, scale, zero)
        return self.codes[value]

    def _replace(self, node: ir.Node, add: ir.Node | None, result: ir.Value) -> None:
        """Let ``result`` stand for what ``add`` makes, or ``node``."""
        take_over(result, (add or node).outputs[0])
        for old in (add, node):
            if old is not None:
                self.graph.remove(old, safe=True)

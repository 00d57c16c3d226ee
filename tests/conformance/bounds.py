"""How far a quantized tensor may be from its FP32 value, derived from the scales of the plan.

With x^ the quantized counterpart of x, every tensor has a bound e >= |x^ - x|, element by element:

    quantized tensor        e_q   = e + s/2 (+ s/2 where x lies beyond the range, as a rounded zero point shifts it)
    stored weight           e_w   = s_w/2         bias  e_b = s_x s_w / 2        picked row of a table  s_row/2
    product (Conv, MatMul)  e_y   = |e_x| * (|w| + e_w) + |x| * e_w + e_b        * being the operator itself
    sum                     e_y   = e_a + e_b
    Lipschitz f             e_y   = L e_x
    movement                e_y   = the operator on e_x, and no rounding anew when the scale is the same

``*`` and movements are computed by running the operator itself on the bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import helper

from qconvert.graph.model import Model
from qconvert.graph.session import open_session
from qconvert.graph.view import GraphView, NodeView
from qconvert.numerics.affine import dequantize, quantize, weight_params
from qconvert.numerics.bias import quantize_bias
from qconvert.numerics.spec import QParams
from qconvert.ops.rule import Kind, Role, rule_of
from qconvert.plan.model import NodePlan, QuantPlan

Array = NDArray[np.floating]
Arrays = Mapping[str, NDArray[np.generic]]

# float32 arithmetic, relative to the largest value: sums of a few hundred products
_ARITHMETIC = 2e-6

# Kernels of ONNX Runtime 1.31 that do not round to nearest (operator -> quanta beyond s/2).
SLOPPY = {"QLinearSoftmax": 1.0}


@dataclass(kw_only=True)
class Bounds:
    """Bounds of every tensor of a canonical model under a solved plan.

    Attributes:
        model, graph, plan: what is bounded.
        values: FP32 value of every tensor, inputs and constants included.
        kernels: add what integer kernels round worse than QuantizeLinear does.
    """

    model: Model
    graph: GraphView
    plan: QuantPlan
    values: Arrays
    kernels: bool
    _found: dict[str, Array] = field(default_factory=dict)
    _params: Mapping[str, QParams] = field(init=False)

    def __post_init__(self) -> None:
        self._params = self.plan.params_of()
        self._protos = {n.name: ir.to_proto(n) for n in self.model.ir.graph}
        for name in self.graph.inputs:
            self._found[name] = self._stored(name, np.zeros(self.values[name].shape))
        for name, tensor in self.graph.tensors.items():
            if tensor.is_constant:
                self._found[name] = self._stored(name, np.zeros(self.values[name].shape))
        for node in self.graph.nodes.values():
            self._bound_node(node)

    def __getitem__(self, tensor: str) -> Array:
        return self._found[tensor]

    def _bound_node(self, node: NodeView) -> None:
        if self.graph.is_constant(node.outputs[0]):
            return
        plan = self.plan.nodes[node.name]
        # indices and conditions are exact if what they come from is, and unbounded if not
        exact = not any(self._found[n].any() for n in node.inputs if n)
        for name in node.outputs:
            if name and not self._is_float(name):
                self._found[name] = np.full(self.values[name].shape, 0.0 if exact else np.inf)
        if not any(self._is_float(t) for t in node.outputs):
            return
        raw = self._transfer(node, plan)
        for name, bound in zip(node.outputs, raw, strict=True):
            if not self._is_float(name):
                continue
            slack = _ARITHMETIC * max(1.0, float(np.abs(self.values[name]).max(initial=0.0)))
            bound = np.asarray(bound, np.float64) + slack
            source = node.inputs[0] or ""
            passes_on = name in self._params and self._params.get(source) is self._params[name]
            rule = rule_of(node)
            if passes_on and rule is not None and rule.kind is Kind.MOVEMENT:
                self._found[name] = bound
                continue
            if self.kernels and plan.decision.taken and rule is not None and rule.lowering is not None:
                quanta = SLOPPY.get(rule.lowering.op_type, 0.0)
                bound = bound + quanta * (float(self._params[name].scale) if name in self._params else 0.0)
            self._found[name] = self._stored(name, bound)

    def _is_float(self, name: str) -> bool:
        return bool(name) and self.values[name].dtype == np.float32

    def _stored(self, name: str, bound: Array) -> Array:
        """The bound of a tensor after its QuantizeLinear, if it has one."""
        if name not in self._params:
            return bound
        params = self._params[name]
        step = float(params.scale)
        lo, hi = params.range
        value = self.values[name].astype(np.float64)
        beyond = np.maximum(np.maximum(lo - value, value - hi), 0.0)
        return bound + step / 2 * (1 + 1e-4) + np.minimum(beyond, step / 2)

    def _transfer(self, node: NodeView, plan: NodePlan) -> list[Array]:
        op = node.op_type
        if op in ("Conv", "ConvTranspose", "MatMul", "Gemm"):
            return [self._product(node, plan)]
        if op in ("LSTM", "GRU", "RNN"):
            return self._recurrent(node, plan)
        if op in _POINTWISE:
            values = [self.values[n] if n else None for n in node.inputs]
            bounds = [self._found[n] if n else None for n in node.inputs]
            return [np.asarray(_POINTWISE[op](node, values, bounds, self.values[node.outputs[0]]))]
        if op in _SELECTING:
            return self._selected(node, plan)
        raise NotImplementedError(f"no bound for {op}: add one to {__name__}")

    def _product(self, node: NodeView, plan: NodePlan) -> Array:
        x_name, w_name = node.inputs[0] or "", node.inputs[1] or ""
        x, w = np.abs(self.values[x_name]).astype(np.float64), np.abs(self.values[w_name]).astype(np.float64)
        e_x, e_w, e_b = self._found[x_name], self._found[w_name], np.zeros(())
        bias = node.input(2)
        if plan.decision.taken and plan.weight is not None:
            params = weight_params(np.asarray(self.values[w_name], np.float32), plan.weight.spec)
            if bias is not None:
                quantized = quantize_bias(self.values[bias], float(self._params[x_name].scale), params)
                params, e_b = quantized.weight, quantized.scale.astype(np.float64) / 2
                if op_has_channels(node):
                    e_b = e_b.reshape(-1, *[1] * (x.ndim - 2)) if e_b.ndim else e_b
            e_w = np.broadcast_to(_along(params, params.scale, w.ndim) / 2, w.shape)
        (through_x,) = self._run(node, {x_name: e_x, w_name: w + e_w}, without=bias)
        (through_w,) = self._run(node, {x_name: x, w_name: e_w}, without=bias)
        return np.abs(through_x) + np.abs(through_w) + e_b

    def _recurrent(self, node: NodeView, plan: NodePlan) -> list[Array]:
        """What rounding its weights does to it, computed: nothing else of it is rounded."""
        assert not self._found[node.inputs[0] or ""].any(), f"{node.name} reads rounded values"
        given = {}
        for w in plan.constants:
            params = weight_params(np.asarray(self.values[w.tensor], np.float32), w.spec)
            given[w.tensor] = dequantize(quantize(np.asarray(self.values[w.tensor], np.float32), params), params)
        pairs = zip(self._run(node, given), node.outputs, strict=True)
        return [np.abs(value - self.values[name]) if name else np.zeros(()) for value, name in pairs]

    def _selected(self, node: NodeView, plan: NodePlan) -> list[Array]:
        """The operator on the bounds: what it moves, selects or averages keeps its bound."""
        rule = rule_of(node)
        carried = rule.ports(Role.ACTIVATION, node) if rule is not None else (0,)
        given = {n: self._found[n] for n in (node.inputs[p] for p in carried) if n}
        if plan.table is not None:
            name = plan.table.tensor
            params = weight_params(np.asarray(self.values[name], np.float32), plan.table.spec)
            given[name] = np.broadcast_to(_along(params, params.scale, 2) / 2, self.values[name].shape)
        return self._run(node, given)

    def _run(self, node: NodeView, given: Mapping[str, Array], without: str | None = None) -> list[Array]:
        proto = onnx.NodeProto()
        proto.CopyFrom(self._protos[node.name])
        if without is not None:
            del proto.input[2:]
        if proto.op_type == "ReduceMin":
            proto.op_type = "ReduceMax"  # a least value is off by no more than the greatest of the bounds
        feed = {n: np.asarray(given.get(n, self.values[n])) for n in dict.fromkeys(proto.input) if n}
        feed = {n: a.astype(np.float32) if np.issubdtype(a.dtype, np.floating) else a for n, a in feed.items()}
        return run_node(proto, feed, frozenset(given), self.model.opset)


def op_has_channels(node: NodeView) -> bool:
    """Whether a bias of ``node`` lies along axis 1 of the result, rather than along the last."""
    return node.op_type in ("Conv", "ConvTranspose")


def run_node(proto: onnx.NodeProto, feed: Arrays, fed: frozenset[str], opset: int) -> list[Array]:
    """Run one node in ONNX Runtime; what is not ``fed`` is an initializer, as shapes and axes must be."""
    inputs = {n: a for n, a in feed.items() if n in fed}
    # the indices of MaxPool are no bounds
    names = [n for n in (proto.output[:1] if proto.op_type == "MaxPool" else proto.output) if n]
    graph = helper.make_graph(
        [proto],
        "node",
        [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, a.shape) for n, a in inputs.items()],
        [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in names],
        [onnx.numpy_helper.from_array(a, n) for n, a in feed.items() if n not in inputs],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    results = open_session(model.SerializeToString(), threads=1, optimize=False).run(inputs, names)
    by_name = dict(zip(names, results, strict=True))
    return [np.asarray(by_name.get(n, 0.0), np.float64) for n in proto.output]


def _along(params: QParams, scale: Array, rank: int) -> Array:
    """A scale [C] as [1, C, 1, 1], so that it broadcasts over a tensor of ``rank``."""
    scale = scale.astype(np.float64)
    if params.spec.axis is None:
        return scale
    shape = [1] * rank
    shape[params.spec.axis] = -1
    return scale.reshape(shape)


Values = Sequence[NDArray[np.generic] | None]
Rule = Callable[[NodeView, Values, Values, NDArray[np.generic]], object]


def _lipschitz(constant: float) -> Rule:
    return lambda node, x, e, y: constant * e[0]


def _mul(node: NodeView, x: Values, e: Values, y: NDArray[np.generic]) -> object:
    return np.abs(x[0]) * e[1] + np.abs(x[1]) * e[0] + e[0] * e[1]


def _div(node: NodeView, x: Values, e: Values, y: NDArray[np.generic]) -> object:
    room = np.abs(x[1]) - e[1]
    if not (room > 0).all():
        raise ValueError(f"the divisor of {node.name} may become zero: choose another input range")
    return (e[0] + np.abs(y) * e[1]) / room


def _leaky(node: NodeView, x: Values, e: Values, y: NDArray[np.generic]) -> object:
    return max(1.0, abs(node.attr_float("alpha", 0.01))) * e[0]


def _prelu(node: NodeView, x: Values, e: Values, y: NDArray[np.generic]) -> object:
    return np.maximum(1.0, np.abs(x[1]) + e[1]) * e[0] + np.abs(x[0]) * e[1]


def _softmax(node: NodeView, x: Values, e: Values, y: NDArray[np.generic]) -> object:
    axis = node.attr_int("axis", -1)
    widest = e[0].max(axis=axis, keepdims=True)
    return y * np.expm1(2 * widest)


# operator -> bound from (node, input values, input bounds, output value)
_POINTWISE: dict[str, Rule] = {
    "Add": lambda node, x, e, y: e[0] + e[1],
    "Sub": lambda node, x, e, y: e[0] + e[1],
    "Mul": _mul,
    "Div": _div,
    "Relu": _lipschitz(1.0),
    "Clip": _lipschitz(1.0),
    "LeakyRelu": _leaky,
    "PRelu": _prelu,
    "Sigmoid": _lipschitz(0.25),
    "HardSigmoid": lambda node, x, e, y: node.attr_float("alpha", 0.2) * e[0],
    "HardSwish": _lipschitz(1.5),
    "Tanh": _lipschitz(1.0),
    "Erf": _lipschitz(1.13),  # 2 / sqrt(pi)
    "Abs": _lipschitz(1.0),
    "Identity": _lipschitz(1.0),
    "Softmax": _softmax,
    "Cast": _lipschitz(1.0),
    "Where": lambda node, x, e, y: np.where(x[0], e[1], e[2]),
}

# operators that are run on the bounds: they move, select or average what they are given
_SELECTING = frozenset(
    """Transpose Flatten DepthToSpace SpaceToDepth Reshape Squeeze Unsqueeze Expand Tile Split Slice Pad Resize Concat
    Gather MaxPool Max ReduceMax ReduceMin AveragePool GlobalAveragePool ReduceMean""".split()
)

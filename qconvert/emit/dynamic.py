"""Dynamic quantization: activations get their scale while the model runs, weights are stored as int8.

    x -> DynamicQuantizeLinear -> (codes uint8, s_x, z_x)
    MatMul(x, W)   ->   MatMulInteger(codes, W_q, z_x) -> Cast -> Mul(s_x * s_w)           bias Add of a Gemm behind it
    LSTM(x, W, R)  ->   com.microsoft DynamicQuantizeLSTM, weights [d, I, 4 H]
    Attention      ->   com.microsoft QAttention

ONNX Runtime makes DynamicQuantizeMatMul or MatMulIntegerToFloat of the first (measured with 1.32: also with a bias, and
with one DynamicQuantizeLinear for several products of the same x). Weights are symmetric with a scale for each output
channel, s_w [N]. Sources: ONNX operators DynamicQuantizeLinear-11, MatMulInteger-10; the operators' documentation in
ONNX Runtime 1.32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qconvert.emit.additions import CONTRIB, Additions, discard
from qconvert.emit.sites import Site
from qconvert.errors import InternalError
from qconvert.graph.edit import take_over
from qconvert.numerics.affine import quantize, weight_params
from qconvert.numerics.dtypes import INT8
from qconvert.numerics.saturation import matmul_order, shrink
from qconvert.numerics.spec import PerAxis, QuantSpec

_SPEC = QuantSpec(qtype=INT8, symmetric=True, granularity=PerAxis(axis=0), narrow_range=True)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Int8Rows:
    """A weight [N, K] as int8 codes with a scale for each row [N]; zero points are 0."""

    codes: NDArray[np.int8]
    scale: NDArray[np.float32]

    def real(self) -> NDArray[np.float32]:
        """What the codes stand for."""
        return np.asarray(self.codes * self.scale[:, None], np.float32)


def int8_rows(rows: NDArray[np.float32], *, saturates: bool) -> Int8Rows:
    """``rows`` [N, K] rounded to nearest; ``saturates``: so that kernels which add in 16 bits stay exact."""
    params = weight_params(rows, _SPEC)
    if saturates:
        safe = shrink(rows, params, matmul_order(rows.shape, transposed=True))
        rows, params = safe.weight, safe.params
    return Int8Rows(codes=quantize(rows, params).astype(np.int8), scale=params.scale)


@dataclass(slots=True, kw_only=True)
class DynamicEmitter:
    """Writes dynamically quantized operators into a model."""

    additions: Additions
    _inputs: dict[tuple[ir.Value, ir.Graph], tuple[ir.Value, ir.Value, ir.Value]] = field(default_factory=dict)
    _weights: dict[ir.Value, tuple[ir.Value, ir.Value, ir.Value]] = field(default_factory=dict)

    def product(self, site: Site, rows: Int8Rows) -> None:
        """A MatMul or Gemm on integers."""
        node, add, name = site.node, self.additions, site.name
        bias = node.inputs[2] if node.op_type == "Gemm" and len(node.inputs) > 2 else None
        result = add.integer_product(node, self.quantized(node), self._weight(site, rows), bias, name=name)
        _replace(node, result)

    def attention(self, site: Site, rows: Int8Rows) -> None:
        """An Attention of com.microsoft as QAttention: (input, weight, bias, mask, past) with scales between."""
        node, add = site.node, self.additions
        codes, scale, zero = self.quantized(node)
        weight, weight_scale, weight_zero = self._weight(site, rows)
        mask, past = (node.inputs[i] if i < len(node.inputs) else None for i in (3, 4))
        inputs = [codes, weight, node.inputs[2], scale, weight_scale, mask, zero, weight_zero, past]
        kept = {n: a.value for n, a in node.attributes.items() if n in _ATTENTION}
        made = add.node(node, "QAttention", inputs, kept, name=f"{site.name}_QAttention", domain=CONTRIB)
        _replace(node, made)

    def lstm(self, node: ir.Node, w: tuple[Site, Int8Rows], r: tuple[Site, Int8Rows]) -> None:
        """An LSTM with int8 weights; its inputs 3 to 7 stay."""
        if node.graph is None:
            raise InternalError(f"{node.name} belongs to no graph")
        stored = [self._lstm_weight(*pair) for pair in (w, r)]
        (w_codes, *w_scales), (r_codes, *r_scales) = stored
        rest = [node.inputs[i] if i < len(node.inputs) else None for i in range(3, 8)]
        attributes = [a for a in node.attributes.values() if a.name != "layout"]
        made = ir.Node(
            CONTRIB,
            "DynamicQuantizeLSTM",
            [node.inputs[0], w_codes, r_codes, *rest, *w_scales, *r_scales],
            attributes,
            num_outputs=len(node.outputs),
            name=node.name,
        )
        node.graph.insert_before(node, made)
        self.additions.model.opset_imports.setdefault(CONTRIB, 1)
        for new, old in zip(made.outputs, node.outputs, strict=True):
            take_over(new, old)
        node.graph.remove(node, safe=True)
        discard(w[0].weight)
        discard(r[0].weight)

    def _lstm_weight(self, site: Site, rows: Int8Rows) -> tuple[ir.Value, ir.Value, ir.Value]:
        """(codes [d, I, 4 H], scale [d, 4 H], zero point [d, 4 H])."""
        directions, gates, inputs = site.shape
        codes = rows.codes.reshape(directions, gates, inputs).swapaxes(1, 2)
        scale = rows.scale.reshape(directions, gates)
        return self._constants(site, codes, scale)

    def quantized(self, node: ir.Node) -> tuple[ir.Value, ir.Value, ir.Value]:
        """(codes, scale, zero point) of the node's first input, computed once in its graph."""
        value, graph = node.inputs[0], node.graph
        if value is None or graph is None:
            raise InternalError(f"{node.name} reads nothing, or belongs to no graph")
        if (value, graph) not in self._inputs:
            producer = value.producer()
            # behind what makes the value, so that it stands before every reader
            made = ir.Node(
                "", "DynamicQuantizeLinear", [value], num_outputs=3, name=self.additions.fresh(f"{value.name}_DQL")
            )
            for output, what in zip(made.outputs, ("codes", "scale", "zero"), strict=True):
                output.name = self.additions.fresh(f"{value.name}_{what}")
            if producer is not None and producer.graph is graph:
                graph.insert_after(producer, made)
            elif len(graph):
                graph.insert_before(graph[0], made)
            codes, scale, zero = made.outputs
            self._inputs[value, graph] = (codes, scale, zero)
        return self._inputs[value, graph]

    def _weight(self, site: Site, rows: Int8Rows) -> tuple[ir.Value, ir.Value, ir.Value]:
        """(codes [K, N], scale [N], zero point [N]), stored once."""
        if site.weight not in self._weights:
            self._weights[site.weight] = self._constants(site, rows.codes.T, rows.scale)
        return self._weights[site.weight]

    def _constants(
        self, site: Site, codes: NDArray[np.int8], scale: NDArray[np.float32]
    ) -> tuple[ir.Value, ir.Value, ir.Value]:
        graph, name, add = site.weight.graph, site.weight.name, self.additions
        if graph is None:
            raise InternalError(f"the weight {name} belongs to no graph")
        zeros = np.zeros(scale.shape, np.int8)
        return (
            add.constant(graph, f"{name}_q", codes),
            add.constant(graph, f"{name}_s", scale),
            add.constant(graph, f"{name}_z", zeros),
        )


_ATTENTION = frozenset(
    {"num_heads", "unidirectional", "past_present_share_buffer", "mask_filter_value", "do_rotary", "scale"}
)


def scale_input(nodes: Sequence[ir.Node], factors: NDArray[np.float32], additions: Additions) -> None:
    """Let ``nodes``, which read one value at port 0, read it divided by ``factors`` [K]."""
    first = nodes[0]
    if first.graph is None or first.inputs[0] is None:
        raise InternalError(f"{first.name} reads nothing, or belongs to no graph")
    name = first.inputs[0].name or "x"
    reciprocal = additions.constant(first.graph, f"{name}_f", (1.0 / factors).astype(np.float32))
    scaled = additions.node(first, "Mul", [first.inputs[0], reciprocal], name=f"{name}_smooth")
    for node in nodes:
        node.replace_input_with(0, scaled)


def lstm_objection(node: ir.Node) -> str:
    """Why an LSTM has no DynamicQuantizeLSTM; "" if it has."""
    if node.attributes.get_int("layout", 0) == 1:
        return "DynamicQuantizeLSTM knows only sequences first (layout 0)"
    return ""


def product_objection(site: Site) -> str:
    """Why a product cannot run on MatMulInteger; "" if it can."""
    if site.node.op_type == "Gemm" and (
        site.node.attributes.get_int("transA", 0) == 1
        or site.node.attributes.get_float("alpha", 1.0) != 1.0
        or site.node.attributes.get_float("beta", 1.0) != 1.0
    ):
        return "a Gemm with transA, alpha or beta has no integer form"
    return ""


def _replace(node: ir.Node, result: ir.Value) -> None:
    take_over(result, node.outputs[0])
    weight = node.inputs[1]
    if node.graph is not None:
        node.graph.remove(node, safe=True)
    if weight is not None:
        discard(weight)

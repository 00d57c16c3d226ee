"""The grid on which the weights of a layer are rounded: scales, ends, and what pairs of codes may add up to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qconvert.numerics.bias import quantize_bias
from qconvert.numerics.dtypes import UINT8
from qconvert.numerics.saturation import MOST_OF_A_PAIR, Order, shrink
from qconvert.numerics.spec import QParams
from qconvert.ops.rule import rule_of
from qconvert.plan.model import QuantPlan
from qconvert.recover.layers import Array, Layer
from qconvert.recover.recovery import Subject
from qconvert.recover.simulation import parameters_of

Rows = NDArray[np.float64]

Partners = NDArray[np.intp]
"""[K]: for each column of a layer's rows the other one of its pair, -1 where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Grid:
    """Of each output channel, [groups, outputs a group]: the scale, the least and the greatest code."""

    scale: Rows
    low: Rows
    high: Rows

    @classmethod
    def of(cls, params: QParams, groups: int, each: int) -> Grid:
        """The grid of ``params``, one for all channels or one for each."""
        shape = (groups, each)
        scale = np.broadcast_to(params.scale.astype(np.float64).reshape(-1), (groups * each,)).reshape(shape)
        zero = np.broadcast_to(params.zero_point.astype(np.float64).reshape(-1), (groups * each,)).reshape(shape)
        return cls(scale=scale, low=params.spec.lo - zero, high=params.spec.hi - zero)

    def codes(self, column: Rows, partner: Rows | None = None) -> Rows:
        """The nearest codes of ``column``, less the zero point; ``partner`` holds the codes of the pairs' others."""
        low, high = self.low, self.high
        if partner is not None:
            left = MOST_OF_A_PAIR - np.abs(partner)
            low = np.where(partner < 0, np.maximum(low, -left), low)
            high = np.where(partner > 0, np.minimum(high, left), high)
        return np.asarray(np.clip(np.rint(column / self.scale), low, high))


def final_parameters(subject: Subject, plan: QuantPlan, layer: Layer, weight: Array) -> tuple[QParams, Partners | None]:
    """(the parameters that emission will use, pairs of columns that must not saturate).

    They are enlarged already where the bias would not fit into int32, and where pairs of weights would saturate.
    """
    params = parameters_of(subject, plan, layer.node, weight)
    bias = subject.bias(layer) if layer.op_type != "MatMul" else None
    activation = plan.params_of().get(layer.source)  # None: it is quantized as the model runs, to uint8
    if bias is not None and activation is not None:
        params = quantize_bias(bias, float(activation.scale), params).weight
    kind = activation.spec.qtype if activation is not None else UINT8
    if not subject.saturates or not params.spec.qtype.signed or kind.signed or kind.bits > 8:
        return params, None
    order = _order(subject, layer, weight.shape)
    if order is None:
        return params, None
    return shrink(weight, params, order).params, _partners(layer, weight.shape, order)


def _order(subject: Subject, layer: Layer, shape: tuple[int, ...]) -> Order | None:
    node = subject.graph.nodes[layer.node]
    rule = rule_of(node)
    if rule is None or rule.weight_order is None:
        return None
    return rule.weight_order(shape, {k: v for k, v in node.attributes.items() if isinstance(v, int)})


def _partners(layer: Layer, shape: tuple[int, ...], order: Order) -> Partners:
    """From the order in which kernels go through the weights of one channel; it is the same for every channel."""
    places = layer.by_outputs(np.arange(np.prod(shape)).reshape(shape))[0, 0]
    column = {int(place): k for k, place in enumerate(places)}
    columns = [column[int(place)] for place in order[0]]
    partners = np.full(len(columns), -1, np.intp)
    for a, b in zip(columns[0::2], columns[1::2], strict=False):
        partners[a], partners[b] = b, a
    return partners

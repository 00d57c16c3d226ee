"""Copies of channels in the place of dead ones: more bits for activations, at no cost.

    y = W2 [q(p)]            q rounds to steps of s, the error of p_c is that of one rounding
    y = W2 [(q(p_c + s/4) + q(p_c - s/4)) / 2]       steps of s / 2, since round(v + 1/4) + round(v - 1/4) = round(2 v)

and likewise with k copies, (2 j + 1 - k) s / 2k apart from p_c: steps of s / k (Hermite's identity). That splitting a
channel in two leaves the function as it is, and that two halves are best rounded apart, is from outlier channel
splitting (Zhao et al. 2019, arXiv:1901.09504), which adds channels for it. Here none is added: in nets with Relu many
channels are 0 for every input, by their BatchNormalization, and they take the copies.

Pattern: dense layer -> [Relu, Clip, MaxPool, Pad] -> (depthwise Conv -> [...]) x n -> dense layer. That a channel is 0,
or constant, where the last one reads it is proved with interval arithmetic, for rounded weights and any input, since
what integers are read for lies within their range [l, h], 0 included (padding):

    b + l sum max(W, 0) + h sum min(W, 0)  <=  y  <=  b + h sum max(W, 0) + l sum min(W, 0)

What a constant contributes goes into a bias. The
channel gets the filters of the one that it copies; offsets go into the biases, and the next layer's takes back what
they come to behind a filter that sums to S:

    b1_j = b1 + o_j s1        b2_j = b2 + o_j s2 - S o_j s1        o_j = (2 j + 1 - k) / 2k

The last weight is split in codes, q = sum_j floor((q + j) / k) (the same identity), so no weight is rounded again. Dead
channels go where the model of rounding noise, s^2 / 12 at every tensor of the chain, says that most is gained: with
k copies the noise of a channel falls from n_c / k^2 to n_c / (k + 1)^2, where

    n_c = |W2_c|^2 (s2^2 + |W1_c|^2 (s1^2 + ...))

It comes after all that measures or corrects, because a corrected bias would take the offsets back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from qconvert.graph.constants import Port
from qconvert.graph.view import GraphView
from qconvert.numerics.affine import along_axis, dequantize, quantize
from qconvert.numerics.spec import QParams
from qconvert.plan.model import QuantPlan
from qconvert.recover.layers import Array, Layer, Link, find_links
from qconvert.recover.recovery import RECOVERIES, Changes, Stage, Subject
from qconvert.recover.simulation import multiplying_layers, parameters_of

Vector = NDArray[np.float64]

# Copies are rounded apart in front of a depthwise filter only if a channel that is clipped there, and so loses its
# offset, moves the result by no more quarters of a step than this.
_MOST = 2.0
# Of a step, how far bounds of a constant may be apart.
_SAME = 0.1
# Chains whose noise falls by a smaller share are left alone.
_LEAST_GAIN = 0.2
_BETWEEN = frozenset({"Relu", "Clip", "MaxPool", "Pad", "Identity", "Dropout"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Copies:
    """The pass."""

    name: str = "copies"
    stage: Stage = Stage.LAST

    def apply(self, subject: Subject) -> Changes:
        """Weights, biases and weight scales of chains with dead channels."""
        plan = subject.plan
        if plan is None or subject.saturates:  # which sums saturate depends on where weights stand
            return Changes()
        layers = {
            n: layer for n, layer in multiplying_layers(subject, plan).items() if layer.op_type in ("Conv", "Gemm")
        }
        chains = _chains(subject.graph, layers)
        if not chains:
            return Changes()
        work = _Work(subject=subject, plan=plan, scales=_scales(plan))
        changed = sum(work.copy_into(chain) for chain in chains)
        return Changes(constants=work.constants, parameters=work.parameters, changed=changed)


def _scales(plan: QuantPlan) -> dict[str, QParams]:
    """Tensor held as integers -> its parameters."""
    groups = (g for g in plan.groups if g.params is not None and g.params.spec.axis is None)
    return {t: g.params for g in groups for t in g.tensors if g.params is not None}


def _chains(graph: GraphView, layers: Mapping[str, Layer]) -> list[tuple[Layer, ...]]:
    """Dense layer, depthwise ones if any, dense layer; every one hands its channels to the next alone."""
    links = {link.first: link for link in find_links(graph, layers) if _is_plain(graph, link)}
    chains = []
    for first in layers.values():
        chain = [first]
        while chain[-1].node in links:
            chain.append(layers[links[chain[-1].node].second])
            if not _is_depthwise(graph, chain[-1]):
                break
        if len(chain) > 1 and first.group == 1 and chain[-1].group == 1:
            chains.append(tuple(chain))
    return chains


def _is_plain(graph: GraphView, link: Link) -> bool:
    """Whether offsets go through unchanged."""
    readers = [graph.consumers(tensor)[0][0] for tensor in link.tensors[:-1]]
    return link.blocks == 1 and all(node.op_type in _BETWEEN for node in readers)


def _is_depthwise(graph: GraphView, layer: Layer) -> bool:
    shape = graph.tensors[graph.nodes[layer.node].inputs[1] or ""].shape
    return layer.op_type == "Conv" and shape is not None and layer.group > 1 and shape[:2] == (layer.group, 1)


def _through(layer: Layer, weight: Array, bias: Array, low: Vector, high: Vector) -> tuple[Vector, Vector]:
    """Bounds of the results of ``layer``, [O], that reads values from ``low`` to ``high``, [] or [O]."""
    rows = layer.by_outputs(weight)
    least, most = np.minimum(low, 0.0), np.maximum(high, 0.0)
    plus, minus = (f(rows, 0).sum(axis=2, dtype=np.float64).reshape(-1) for f in (np.maximum, np.minimum))
    offset = bias.astype(np.float64).reshape(-1)
    return offset + least * plus + most * minus, offset + most * plus + least * minus


def shares(noise: Vector, dead: int) -> NDArray[np.int64]:
    """How many times each channel is to be there, [C], so that ``dead`` more leave the least of the noise
    sum_c n_c / k_c^2; channels of which there is no noise stay as they are."""
    copies = np.ones(noise.size, np.int64)
    for _ in range(dead):
        gains = noise * (1.0 / copies**2 - 1.0 / (copies + 1) ** 2)
        best = int(gains.argmax())
        if gains[best] <= 0:
            break
        copies[best] += 1
    return copies


@dataclass(slots=True, kw_only=True)
class _Work:
    """Constants on their way.

    Attributes:
        subject, plan: what is worked on.
        scales: of activations.
        constants, parameters: as in Changes.
    """

    subject: Subject
    plan: QuantPlan
    scales: Mapping[str, QParams]
    constants: dict[Port, Array] = field(default_factory=dict)
    parameters: dict[str, QParams] = field(default_factory=dict)

    def constant(self, port: Port) -> Array:
        """A weight as its codes stand for it."""
        if port in self.constants:
            return self.constants[port]
        return dequantize(*self._codes(port[0], self.subject.constant(port)))

    def copy_into(self, chain: tuple[Layer, ...]) -> bool:
        """Put copies into the dead channels of what the last of ``chain`` reads; whether there are any."""
        last, before = chain[-1], chain[:-1]
        tensors = [self.scales.get(layer.source) for layer in chain]
        read = None if any(params is None for params in tensors) else self._bounds(before, last)
        if read is None:
            return False
        low, high = read
        steps = [float(params.scale) for params in tensors[1:] if params is not None]
        constant = high - low <= _SAME * steps[-1]
        value = np.round(low / steps[-1]) * steps[-1]
        dead = np.flatnonzero(constant & ((value == 0) | (not self.subject.graph.nodes[last.node].is_padded)))
        noise = self._noise(chain, steps)
        noise[constant] = 0.0
        copies = shares(noise, dead.size)
        if not (noise / copies**2).sum() <= (1 - _LEAST_GAIN) * noise.sum() or not noise.any():
            return False
        places = list(dead)[: int((copies - 1).sum())]
        self._release(last, {int(c): float(value[c]) for c in places if value[c]})
        homes = [
            np.array([channel, *(places.pop() for _ in range(copies[channel] - 1))], np.int64)
            for channel in np.flatnonzero(copies > 1)
        ]
        shifts = self._shifts(before, steps, [h[0] for h in homes])
        for layer, each in zip(before, shifts, strict=True):
            self._copy(layer, homes, each)
        self._split(last, homes)
        return True

    def _shifts(self, before: tuple[Layer, ...], steps: list[float], channels: list[int]) -> list[Vector]:
        """What biases of each layer change by, for each of ``channels``, from one copy to the next, k times."""
        found, come = [], np.zeros(len(channels))
        for i, (step, behind) in enumerate(zip(steps, (*before[1:], None), strict=True)):
            shift = np.full(len(channels), step)
            sums = np.zeros(len(channels))
            if behind is not None:
                sums = self.constant(behind.weight)[channels].reshape(len(channels), -1).sum(axis=1, dtype=np.float64)
                shift[np.abs(sums) * step > _MOST * steps[i + 1]] = 0.0
            found.append(shift - come)
            come = sums * shift
        return found

    def _bounds(self, before: tuple[Layer, ...], last: Layer) -> tuple[Vector, Vector] | None:
        """(least, greatest) value of every channel that ``last`` reads; None where none can be dead."""
        low, high = (np.array(end) for end in self.scales[before[0].source].range)
        ranges = [self.scales[layer.source].range for layer in (*before[1:], last)]
        if len(before) == 1 and not self._may_be_dead(before[0], low, high, ranges[0][0]):
            return None
        for layer, held in zip(before, ranges, strict=True):
            weight = self.constant(layer.weight)
            ends = _through(layer, weight, self._bias(layer, weight), low, high)
            low, high = (np.clip(end, *held) for end in ends)
        return low, high

    def _may_be_dead(self, layer: Layer, low: Vector, high: Vector, least: float) -> bool:
        """Whether a result of ``layer`` may never exceed ``least``, by its weight as it is before rounding, which is a
        cheap look at whether its codes are worth one."""
        weight = self.subject.weight(layer)
        slack = layer.by_outputs(weight).shape[2] * np.abs(weight).max() / 127 * max(-low, high, 0)
        return bool((_through(layer, weight, self._bias(layer, weight), low, high)[1] - slack <= least).any())

    def _noise(self, chain: tuple[Layer, ...], steps: list[float]) -> Vector:
        """n_c, [C]."""
        inner = np.zeros(())
        for step, layer in zip(steps, chain[1:], strict=True):
            taps = layer.by_inputs(self.constant(layer.weight)).astype(np.float64)
            inner = (step**2 + inner) * np.square(taps).sum(axis=(1, 2))
        return np.asarray(inner, np.float64)

    def _copy(self, layer: Layer, homes: list[NDArray[np.int64]], shifts: Vector) -> None:
        """Give the outputs of ``layer`` that stand together in ``homes`` the filter of the first of them, and its bias
        plus offsets, a ``shift`` divided by their number apart."""
        weight = self.constant(layer.weight)
        rows, bias = np.moveaxis(weight.copy(), layer.out_axis, 0), self._bias(layer, weight)
        flat, params = bias.reshape(-1), self._parameters(layer.node, weight)
        source = np.arange(layer.outputs(weight))
        for each, shift in zip(homes, shifts, strict=True):
            source[each] = each[0]
            flat[each] = flat[each[0]] + shift * (2 * np.arange(each.size) + 1 - each.size) / (2 * each.size)
        if params.scale.ndim:
            params = replace(params, scale=params.scale[source], zero_point=params.zero_point[source])
        self.parameters[layer.node] = params
        self.constants[layer.weight] = np.ascontiguousarray(np.moveaxis(rows[source], 0, layer.out_axis))
        self.constants[layer.bias_port] = bias

    def _release(self, layer: Layer, values: Mapping[int, float]) -> None:
        """Put what the inputs of ``layer`` with these constant ``values`` contribute into its bias."""
        if not values:
            return
        weight = self.constant(layer.weight)
        columns = layer.by_inputs(weight).sum(axis=2, dtype=np.float64)  # [inputs, outputs]
        bias = self._bias(layer, weight)
        bias.reshape(-1)[:] += sum(value * columns[channel] for channel, value in values.items())
        self.constants[layer.bias_port] = bias

    def _bias(self, layer: Layer, weight: Array) -> Array:
        """A copy, zeros where there is none."""
        bias = self.constants.get(layer.bias_port, self.subject.bias(layer))
        return np.zeros(layer.outputs(weight), np.float32) if bias is None else bias.astype(np.float32).copy()

    def _split(self, layer: Layer, homes: list[NDArray[np.int64]]) -> None:
        """Spread the codes that read the first of each of ``homes`` over all of them."""
        codes, params = self._codes(layer.node, self.constant(layer.weight))
        axis = 1 if layer.op_type == "Conv" else 1 - layer.out_axis
        zero = along_axis(params.zero_point, params.spec, codes.ndim).astype(np.int32)
        columns = np.moveaxis(codes.astype(np.int32) - zero, axis, 0)
        for each in homes:
            whole = columns[each[0]].copy()
            for j, home in enumerate(each):
                columns[home] = (whole + j) // each.size
        spread = np.moveaxis(columns, 0, axis) + zero
        self.parameters[layer.node] = params
        self.constants[layer.weight] = dequantize(spread.astype(codes.dtype), params)

    def _codes(self, node: str, weight: Array) -> tuple[NDArray[np.generic], QParams]:
        params = self._parameters(node, weight)
        return quantize(weight, params), params

    def _parameters(self, node: str, weight: Array) -> QParams:
        return self.parameters.get(node) or parameters_of(self.subject, self.plan, node, weight)


RECOVERIES.add("copies", Copies())

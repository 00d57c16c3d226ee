"""Empirical bias correction: move each bias until the mean of every channel is that of the float model.

    b_o += E[y_o] - E[y'_o]        y = W x + b of the float model, y' the same layer of the quantized model

Rounding weights and activations, and clipping ranges, shift the mean of a layer's outputs; the shifts add up from layer
to layer and are not noise that later layers average away. Nagel et al. 2019 (arXiv:1906.04721, section 4.2).

The layers go in waves: those of one wave do not feed each other, and every wave is measured on the quantized model with
all earlier waves corrected. In a net deeper than ``waves``, neighbouring waves are measured together; a layer that
another one of the same measurement feeds is then spared the part that comes from its inputs, since these are being
corrected: with a the means of the inputs and W summed over taps,

    b_o += E[y_o] - E[y'_o] - sum_i W_oi (a_i - a'_i)

Means are taken before the clamp: after it a channel that is silent in the quantized model
has no mean to go by (MobileNetV1-0.25: 22.8 dB before, 21.8 dB after the clamp; the same order on other nets).

One session serves all waves, because the biases are its inputs (:mod:`qconvert.recover.simulation`), and each run stops
at its wave. Only sums a channel are kept. Every layer whose weights are rounded is corrected, one that computes in
float and only stores them as integers, too (a ConvTranspose on a processor), and a layer without bias gets one. A
MatMul takes the correction in the constant that is added to its result; without such a constant it gets one where its
kernel adds a bias to a float result anyway, and none elsewhere, because an Add is another node, on integers a dear one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from qconvert.graph.constants import BIAS_PORT, Port
from qconvert.graph.session import Feed, Session
from qconvert.graph.signature import session_of
from qconvert.graph.simulate import with_means
from qconvert.graph.view import GraphView
from qconvert.plan.model import QuantPlan
from qconvert.recover.layers import Array, Layer
from qconvert.recover.recovery import RECOVERIES, Changes, Stage, Subject
from qconvert.recover.simulation import channels_axis, simulation, stored_layers
from qconvert.recover.work import multiplications, outputs

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class BiasCorrectionOptions:
    """Constants of the pass; they bound its cost.

    On MobileNetV1-0.25, 8 samples give 22.5 dB and 64 give 23.0; 26 measurements 22.8, 8 the same, 3 still 21.8.

    Attributes:
        fewest, waves: measurements of the net, at least and at most, if it is that deep.
        least, most: samples, at least and at most.
        share: runs of the model, over all waves, as a multiple of the calibration samples.
        operations: multiplications, over all waves, below which that multiple does not matter; where the least samples
            take more than these, there are fewer waves.
    """

    fewest: int = 4
    waves: int = 8
    least: int = 5
    most: int = 32
    share: float = 1.0
    operations: float = 5e10


@dataclass(frozen=True, slots=True, kw_only=True)
class BiasCorrection:
    """The pass."""

    options: BiasCorrectionOptions = field(default_factory=BiasCorrectionOptions)
    name: str = "bias-correction"
    stage: Stage = Stage.SOLVED

    def apply(self, subject: Subject) -> Changes:
        """Corrected biases of all layers with rounded weights that can have one."""
        plan = subject.plan
        if plan is None:
            return Changes()
        found = (_with_place(subject, layer) for layer in stored_layers(subject, plan).values())
        layers = {layer.node: layer for layer in found if _measurable(subject.graph, layer)}
        if not layers:
            return Changes()
        each = multiplications(subject, layers)
        waves = merged(waves_of(subject.graph, layers), self._waves(subject, each))
        samples = subject.samples.first(self._samples(subject, each, len(waves)))
        means = _Means.of(subject, plan, layers)
        expected = means.expected(samples)
        biases = {n: _start(subject, layer) for n, layer in layers.items()}
        for wave in waves:
            here = means.found([n for depth in wave for n in depth], samples, biases)
            for name in (n for depth in wave for n in depth):
                shift = expected[name].result - here[name].result
                if name not in wave[0]:
                    change = expected[name].source - here[name].source
                    shift -= _through(layers[name], _summed(subject, layers[name]), change)
                biases[name] = biases[name] + shift
        constants = {
            layer.bias_port: _shaped(subject, layer, biases[n]) for n, layer in layers.items() if _finite(biases[n])
        }
        return Changes(constants=constants, changed=len(constants))

    def _waves(self, subject: Subject, each: float) -> int:
        by_work = self.options.operations * subject.work / max(1.0, each * self.options.least)
        return int(np.clip(by_work, self.options.fewest, self.options.waves))

    def _samples(self, subject: Subject, each: float, waves: int) -> int:
        by_share = self.options.share * subject.work * len(subject.samples) / waves
        by_work = self.options.operations * subject.work / max(1.0, each * waves)
        return int(np.clip(max(by_share, by_work), self.options.least, self.options.most))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Pair:
    """Means of the channels of a layer's result, [O], and of what it reads, [inputs]."""

    result: Vector
    source: Vector


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Means:
    """Measures the channels' means of layers.

    Attributes:
        reference, quantized: sessions whose outputs are means; the second one takes biases.
        outputs: layer -> (in ``reference``, in ``quantized``), each the names of the means of its result and source.
        inputs: layer -> the input that is its bias.
    """

    reference: Session
    quantized: Session
    outputs: Mapping[str, tuple[tuple[str, str], tuple[str, str]]]
    inputs: Mapping[str, str]

    @classmethod
    def of(cls, subject: Subject, plan: QuantPlan, layers: Mapping[str, Layer]) -> _Means:
        places: list[tuple[str | Port, int]] = []
        for name, layer in layers.items():
            places += [(layer.result, channels_axis(layer)), ((name, 0), channels_axis(layer))]
        inputs = {name: f"bias_input_{i}" for i, name in enumerate(layers)}
        simulated = simulation(subject, plan, {layer.bias_port: inputs[n] for n, layer in layers.items()})
        reference, first = with_means(subject.model, places)
        quantized, second = with_means(simulated, places)
        return cls(
            reference=session_of(reference),
            quantized=session_of(quantized, integers=False),
            outputs={
                n: ((first[2 * i], first[2 * i + 1]), (second[2 * i], second[2 * i + 1])) for i, n in enumerate(layers)
            },
            inputs=inputs,
        )

    def expected(self, samples: Iterable[Feed]) -> dict[str, _Pair]:
        """E[y] and E[x] of every layer."""
        return _run(self.reference, {n: names[0] for n, names in self.outputs.items()}, samples, {})

    def found(self, names: Sequence[str], samples: Iterable[Feed], biases: Mapping[str, Vector]) -> dict[str, _Pair]:
        """E[y'] and E[x'] of the layers ``names`` under ``biases``."""
        given = {self.inputs[n]: np.asarray(b, np.float32) for n, b in biases.items()}
        return _run(self.quantized, {n: self.outputs[n][1] for n in names}, samples, given)


def _run(
    session: Session, outputs: Mapping[str, tuple[str, str]], samples: Iterable[Feed], given: Feed
) -> dict[str, _Pair]:
    wanted = [name for names in outputs.values() for name in names]
    sums = {name: np.zeros(()) for name in wanted}
    count = 0
    for feed in samples:
        for name, result in zip(wanted, session.run_on({**feed, **given}, wanted), strict=True):
            mean = np.asarray(result, np.float64)
            sums[name] = sums[name] + mean.reshape(-1, mean.shape[-1]).mean(axis=0)
        count += 1
    return {n: _Pair(result=sums[y] / count, source=sums[x] / count) for n, (y, x) in outputs.items()}


def _summed(subject: Subject, layer: Layer) -> Vector:
    """The weight of ``layer`` summed over the taps that a result sees, [inputs, outputs a group]."""
    summed = layer.by_inputs(subject.weight(layer)).sum(axis=2, dtype=np.float64)
    if layer.op_type == "ConvTranspose":  # each of its taps makes one result in every stride
        summed /= np.prod(subject.graph.nodes[layer.node].attr_ints("strides", (1,)))
    return np.asarray(summed, np.float64)


def _through(layer: Layer, weight: Vector, change: Vector) -> Vector:
    """What a change of the inputs' means, [inputs], does to the outputs'; ``weight`` [inputs, outputs a group]."""
    each = weight.shape[0] // layer.group
    grouped = change.reshape(layer.group, 1, each) @ weight.reshape(layer.group, each, -1)
    return np.asarray(grouped, np.float64).reshape(-1)


def waves_of(graph: GraphView, layers: Mapping[str, Layer]) -> list[list[str]]:
    """Layers by how many others lie before them on the longest way: those of one wave do not feed each other."""
    depth: dict[str, int] = {}
    own: dict[str, int] = {}
    adding = {layer.bias[0]: n for n, layer in layers.items() if layer.bias is not None and layer.bias[0] != n}
    for node in graph.nodes.values():
        before = max((depth.get(t, 0) for t in node.inputs if t is not None), default=0)
        if node.name in layers:
            own[node.name] = before
            before += layers[node.name].result in node.outputs
        elif node.name in adding:  # the Add behind a MatMul: its product is corrected here
            before += 1
        depth.update(dict.fromkeys(node.outputs, before))
    waves: list[list[str]] = [[] for _ in range(max(own.values(), default=-1) + 1)]
    for name, number in own.items():
        waves[number].append(name)
    return [wave for wave in waves if wave]


def merged(waves: list[list[str]], most: int) -> list[list[list[str]]]:
    """``waves`` in ``most`` runs of neighbours at most, of about the same length."""
    count = min(most, len(waves))
    edges = [i * len(waves) // count for i in range(count + 1)]
    return [waves[a:b] for a, b in itertools.pairwise(edges)]


def _with_place(subject: Subject, layer: Layer) -> Layer:
    """``layer`` with a place for a bias, where there is one to be had, or an earlier run of the pass has made it."""
    port = (layer.node, BIAS_PORT)
    free = layer.bias is None and (layer.node in subject.open_products or port in subject.changes.constants)
    return replace(layer, bias=port) if free else layer


def _measurable(graph: GraphView, layer: Layer) -> bool:
    """Whether it has a place for a bias, and its values a known rank to take means over."""
    return layer.bias is not None and None not in (graph.tensors[layer.source].rank, graph.tensors[layer.result].rank)


def _start(subject: Subject, layer: Layer) -> Vector:
    bias = subject.bias(layer)
    return np.zeros(outputs(subject, layer)) if bias is None else bias.astype(np.float64).reshape(-1)


def _shaped(subject: Subject, layer: Layer, bias: Vector) -> Array:
    before = subject.bias(layer)
    return np.asarray(bias if before is None else bias.reshape(before.shape), np.float32)


def _finite(bias: Vector) -> bool:
    return bool(np.isfinite(bias.astype(np.float32)).all())


RECOVERIES.add("bias-correction", BiasCorrection())

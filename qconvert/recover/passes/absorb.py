"""High-bias absorption: what a channel never falls below goes past the quantized tensor, through the next layer's bias.

    y = W2 f(p) + b2  =  W2 f(p - c) + (b2 + W2 c)          f(p) = p for p > 0, as Relu; p >= c >= 0

Pattern: a link (:mod:`qconvert.recover.layers`), for example Conv -> Relu -> Conv. A channel that is always positive
uses only the upper part of a range that has to begin at 0, and makes the scale that all channels share coarser than its
own values need. After c is taken off, it is max p_k - c_k wide.

Nagel et al. 2019 (arXiv:1906.04721, section 4.1.3) take c_k = max(0, beta_k - 3 gamma_k) from the BatchNormalization
before f, which is gone in a deployed net. Here samples tell:

    c_k = max(0, min p_k - margin (mean p_k - min p_k))

With normal p_k the margin of 1/4 is another standard deviation beyond a minimum of four. Below c_k the channel is
clipped, like any value outside of a calibrated range, and by no more than it is below.

Where the second layer pads with zeros, it would see 0 at the border instead of c: only links without any padding are
changed. So are those without a Clip at a ceiling, which would have to come down by c. ``absorbed`` gives c; links that
:mod:`qconvert.recover.link_noise` says gain less than ``least_gain_db`` are left alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from qconvert.graph.constants import Port
from qconvert.graph.view import GraphView
from qconvert.recover.layers import Array, Layer, Link, find_layers, find_links
from qconvert.recover.link_noise import LinkNoise, Seen, axis_read, observe
from qconvert.recover.recovery import RECOVERIES, Changes, Stage, Subject

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class AbsorbOptions:
    """Constants of the pass.

    Attributes:
        samples: how many samples the minima are taken from.
        margin: how much lower other samples may go, as a share of the distance from the mean to the minimum.
        least: channels of which less is absorbed, as a share of the tensor's greatest value, keep all.
        least_gain_db: links that the noise model says gain less are left alone.
    """

    samples: int = 32
    margin: float = 0.25
    least: float = 0.01
    least_gain_db: float = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Absorb:
    """The pass."""

    options: AbsorbOptions = field(default_factory=AbsorbOptions)
    name: str = "absorb"
    stage: Stage = Stage.WEIGHTS

    def apply(self, subject: Subject) -> Changes:
        """Biases of linked layers."""
        graph = subject.graph
        layers = find_layers(graph)
        links = [x for x in find_links(graph, layers) if _hands_on(graph, x, layers[x.first], layers[x.second])]
        if not links:
            return Changes()
        axes = {link.tensors[0]: axis_read(layers[link.second]) for link in links}
        axes |= {link.tensors[-1]: axis_read(layers[link.second]) for link in links}
        seen = observe(subject, axes, self.options.samples)
        biases: dict[Port, Array] = {}
        changed = 0
        for link in links:
            first, second = layers[link.first], layers[link.second]
            taken = absorbed(seen[link.tensors[0]], self.options)
            weight = subject.weight(second)
            if (
                not taken.any()
                or _gain_db(second, weight, link, seen[link.tensors[-1]], taken) < self.options.least_gain_db
            ):
                continue
            changed += 1
            _add(subject, biases, first, -taken)
            summed = second.by_inputs(weight).sum(axis=2, dtype=np.float64)  # [inputs, outputs a group]
            each = np.repeat(taken, link.blocks)[:, None] * summed
            _add(subject, biases, second, each.reshape(second.group, -1, summed.shape[1]).sum(axis=1).reshape(-1))
        return Changes(constants=biases, changed=changed)


def absorbed(seen: Seen, options: AbsorbOptions) -> Vector:
    """c, [C], from what samples show of p."""
    lowest = seen.low - options.margin * (seen.mean - seen.low)
    return np.where(lowest >= options.least * max(float(seen.peak.max()), 1e-30), lowest, 0.0)


def _gain_db(second: Layer, weight: Array, link: Link, read: Seen, taken: Vector) -> float:
    """By how many dB the noise falls in the outputs of ``second``."""
    away = np.repeat(taken, link.blocks)
    power = np.maximum(read.power - 2 * away * read.mean + away**2, 0.0)
    before = LinkNoise.of(second, weight, link.blocks, read.peak, read.power)
    after = LinkNoise.of(second, weight, link.blocks, read.peak - away, power)
    return before.db() - after.db()


def _hands_on(graph: GraphView, link: Link, first: Layer, second: Layer) -> bool:
    """Whether a constant that is taken off the channels of ``first`` can come back in the bias of ``second``."""
    if link.ceilings or first.bias is None or second.bias is None:
        return False
    readers = [graph.consumers(tensor)[0][0] for tensor in link.tensors]
    return not any(
        node.op_type == "Pad"
        or (node.op_type in ("Conv", "AveragePool") and any(node.attr_ints("pads")))
        or node.attr_str("auto_pad", "NOTSET") not in ("NOTSET", "VALID")
        or node.attr_int("ceil_mode", 0)
        for node in readers
    )


def _add(subject: Subject, biases: dict[Port, Array], layer: Layer, values: Vector) -> None:
    """Add ``values`` [O] to the bias of ``layer``, which gets one if it has none."""
    port = layer.bias_port
    before = biases.get(port, subject.bias(layer))
    shape = values.shape if before is None else before.shape
    total = values if before is None else before.astype(np.float64).reshape(-1) + values
    biases[port] = np.asarray(total, np.float32).reshape(shape)


RECOVERIES.add("absorb", Absorb())

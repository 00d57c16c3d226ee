"""Cross-layer equalization: scale the channels between two layers so that both quantize better.

    y = W2 f(W1 x + b1)  =  (W2 S) f(S^-1 W1 x + S^-1 b1)        f(a z) = a f(z) for a > 0, S = diag(s), s > 0

Pattern: a link (:mod:`qconvert.recover.layers`), for example Conv -> Relu -> Conv. W1 has a scale for each output
channel, so that S^-1 costs it nothing. What s decides is how well the channels z of f's result share one scale, and how
well the inputs of W2 share one scale in each output channel o: J(s) of :mod:`qconvert.recover.link_noise`.
log J is minimised over log s by Adam, a softmax standing for each maximum in the gradient. Links are taken from the
last to the first, so that W2 is final.

Nagel et al. 2019 (arXiv:1906.04721, section 4.1) equalise max |W1_c| and max |W2_c|, s_c = sqrt(r1 / r2), which is
best for one scale a tensor. With a scale a channel it helps less, and costs some nets several dB, where J does not.

A Clip at 6 between the layers would have to clip at 6 / s_c, which one saturating scale cannot do. But a channel whose
value before the Clip cannot exceed u_c < 6, whatever the input (:mod:`qconvert.recover.bounds`), never meets it, and
may be scaled by any s_c >= u_c / 6; the other channels of such a link keep s_c = 1. Links with other readers are left
alone.

High biases (section 4.1.3 there) are no matter of scales.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from qconvert.graph.constants import Port
from qconvert.recover.bounds import Bounds, channel_bounds
from qconvert.recover.layers import Array, Link, find_layers, find_links
from qconvert.recover.link_noise import LinkNoise, axis_read, observe
from qconvert.recover.recovery import RECOVERIES, Changes, Stage, Subject

Vector = NDArray[np.float64]

# Of log s of a channel that is silent whatever the input.
_FARTHEST = -7.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EqualizeOptions:
    """Constants of the pass.

    Attributes:
        samples: how many samples the ranges are taken from.
        least_gain_db: links that J says gain less are left alone.
        steps, rate: of Adam.
        sharpness: exponent of the softmax that stands for a maximum.
        near, refresh: the softmax goes over so many of the widest inputs, which are looked up every so many steps.
    """

    samples: int = 16
    least_gain_db: float = 0.2
    steps: int = 100
    rate: float = 0.05
    sharpness: float = 24.0
    near: int = 8
    refresh: int = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Equalize:
    """The pass."""

    options: EqualizeOptions = field(default_factory=EqualizeOptions)
    name: str = "equalize"
    stage: Stage = Stage.WEIGHTS

    def apply(self, subject: Subject) -> Changes:
        """Scaled weights and biases of linked layers."""
        layers = find_layers(subject.graph)
        links = find_links(subject.graph, layers)
        if not links:
            return Changes()
        bounds = channel_bounds(subject.graph, layers) if any(link.ceilings for link in links) else {}
        axes = {link.tensors[-1]: axis_read(layers[link.second]) for link in links}
        seen = observe(subject, axes, self.options.samples)
        constants: dict[Port, Array] = {}
        changed = 0
        for link in reversed(links):
            first, second = layers[link.first], layers[link.second]
            w1 = constants.get(first.weight, subject.weight(first))
            w2 = constants.get(second.weight, subject.weight(second))
            read = seen[link.tensors[-1]]
            noise = LinkNoise.of(second, w2, link.blocks, read.peak, read.power)
            limits = _limits(link, bounds, noise.peak.size)
            if limits is not None and not limits[0].any():
                continue  # every channel may come to the ceiling
            factors, gain_db = best(noise, self.options, limits)
            if gain_db < self.options.least_gain_db:
                continue
            changed += 1
            constants[first.weight] = np.asarray(w1 / first.over_outputs(factors, w1), np.float32)
            constants[second.weight] = second.scaled_inputs(w2, np.repeat(factors, link.blocks))
            bias = subject.bias(first)
            if bias is not None and first.bias is not None:
                bias = constants.get(first.bias, bias)
                constants[first.bias] = np.asarray(bias / factors, np.float32).reshape(bias.shape)
        return Changes(constants=constants, changed=changed)


def best(
    noise: LinkNoise, options: EqualizeOptions, limits: tuple[Vector, Vector] | None = None
) -> tuple[Vector, float]:
    """(s, by how many dB J falls against s = 1); of geometric mean 1, or with log s between ``limits``."""
    zero = np.zeros_like(noise.peak)
    start, _ = noise.value(zero, noise.widest_near(zero, 1), options.sharpness)
    low, high = limits if limits is not None else (-np.inf, np.inf)
    log_s = np.clip(np.log(noise.peak / noise.peak.max()), low, high)
    momentum, scale = np.zeros_like(log_s), np.zeros_like(log_s)
    near = noise.widest_near(log_s, options.near)
    for t in range(1, options.steps + 1):
        if t % options.refresh == 0:
            near = noise.widest_near(log_s, options.near)
        _, slope = noise.value(log_s, near, options.sharpness)
        momentum = 0.9 * momentum + 0.1 * slope
        scale = 0.99 * scale + 0.01 * slope**2
        step = (momentum / (1 - 0.9**t)) / (np.sqrt(scale / (1 - 0.99**t)) + 1e-8)
        log_s = np.clip(log_s - options.rate * (1 - t / options.steps) * step, low, high)
    end, _ = noise.value(log_s, noise.widest_near(log_s, 1), options.sharpness)
    gain = 10.0 * float(np.log10(start / end)) if end > 0 else 0.0
    return np.exp(log_s if limits is not None else log_s - log_s.mean()), gain


def _limits(link: Link, bounds: Mapping[str, Bounds], channels: int) -> tuple[Vector, Vector] | None:
    """Within which log s may be, [C] each, so that no Clip of ``link`` changes anything; None where there is none."""
    if not link.ceilings:
        return None
    low, high = np.full(channels, _FARTHEST), np.full(channels, np.inf)
    for tensor, ceiling in link.ceilings:
        known = bounds.get(tensor)
        most = known.high if known is not None and known.high.size == channels else np.full(channels, np.inf)
        free = most < ceiling
        low = np.where(free, np.maximum(low, np.log(np.maximum(most, ceiling * math.exp(_FARTHEST)) / ceiling)), 0.0)
        high = np.where(free, high, 0.0)
    fixed = high == 0.0  # at one of several Clips
    return np.where(fixed, 0.0, low), high


RECOVERIES.add("equalize", Equalize())

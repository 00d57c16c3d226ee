"""Cross-layer equalization: scale the channels between two layers so that both quantize better.

    y = W2 f(W1 x + b1)  =  (W2 S) f(S^-1 W1 x + S^-1 b1)        f(a z) = a f(z) for a > 0, S = diag(s), s > 0

Pattern: a link (:mod:`qconvert.recover.layers`), for example Conv -> Relu -> Conv. W1 has a scale for each output
channel, so that S^-1 costs it nothing. What s decides is how well the channels z of f's result share one scale, and how
well the inputs of W2 share one scale in each output channel o. With r_c = max |z_c|, E_c = E[z_c^2], n taps of the
kernel, rounding errors uniform and independent, the noise in the outputs of the second layer is, up to 1 / 12,

    J(s) = (max_c r_c / s_c / 255)^2  sum_o,c s_c^2 |W2_oc|^2              from rounding z
         + n sum_o (max_c s_c max |W2_oc| / 127)^2  sum_c E_c / s_c^2      from rounding W2

where both maxima stand for step sizes, and the second one, like the last sum, goes over the channels of o's group.
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
from qconvert.graph.signature import session_of
from qconvert.recover.bounds import Bounds, channel_bounds
from qconvert.recover.layers import Array, Layer, Link, find_layers, find_links
from qconvert.recover.recovery import RECOVERIES, Changes, Stage, Subject

Vector = NDArray[np.float64]

# Of log s of a channel that is silent whatever the input.
_FARTHEST = -7.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EqualizeOptions:
    """Constants of the pass.

    Attributes:
        samples: how many samples the ranges are taken from.
        floor: least range of a channel, as a share of the greatest: a channel that was silent on these samples may
            still speak, and must not saturate at once.
        least_gain_db: links that J says gain less are left alone.
        steps, rate: of Adam.
        sharpness: exponent of the softmax that stands for a maximum.
        near, refresh: the softmax goes over so many of the widest inputs, which are looked up every so many steps.
    """

    samples: int = 16
    floor: float = 0.1
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
        seen = _observe(subject, links, self.options.samples)
        constants: dict[Port, Array] = {}
        changed = 0
        for link in reversed(links):
            first, second = layers[link.first], layers[link.second]
            w1 = constants.get(first.weight, subject.weight(first))
            w2 = constants.get(second.weight, subject.weight(second))
            cost = _cost(second, w2, link, seen[link.tensors[-1]], self.options)
            limits = _limits(link, bounds, cost.peak.size)
            if limits is not None and not limits[0].any():
                continue  # every channel may come to the ceiling
            factors, gain_db = cost.best(self.options, limits)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """max |z| and E[z^2] of each channel at the second layer's input, [inputs]."""

    peak: Vector
    power: Vector


def _observe(subject: Subject, links: list[Link], count: int) -> dict[str, _Seen]:
    tensors = [link.tensors[-1] for link in links]
    conv = {link.tensors[-1]: subject.graph.nodes[link.second].op_type == "Conv" for link in links}
    session = session_of(subject.model, outputs=tensors)
    peak: dict[str, Vector] = {}
    power: dict[str, Vector] = {}
    samples = subject.samples.first(count)
    for feed in samples:
        results = session.run_on(feed, tensors)
        for tensor, array in zip(tensors, results, strict=True):
            z = np.asarray(array, np.float32)
            z = np.moveaxis(z, 1 if conv[tensor] else -1, 0)
            z = z.reshape(z.shape[0], -1)
            high = np.abs(z).max(axis=1, initial=0.0).astype(np.float64)
            mean = np.einsum("cn,cn->c", z, z, dtype=np.float64) / max(1, z.shape[1])
            peak[tensor] = np.maximum(peak.get(tensor, 0.0), high)
            power[tensor] = power.get(tensor, 0.0) + mean / len(samples)
    return {t: _Seen(peak=peak[t], power=power[t]) for t in tensors}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Cost:
    """J of one link.

    Attributes:
        peak, power: r_c and E_c, [C].
        energy: sum over outputs of |W2_oc|^2, [C].
        widest: log max |W2_oc| over taps and blocks, [groups, C a group, outputs a group].
        taps: n.
    """

    peak: Vector
    power: Vector
    energy: Vector
    widest: NDArray[np.float32]
    taps: int

    def best(self, options: EqualizeOptions, limits: tuple[Vector, Vector] | None = None) -> tuple[Vector, float]:
        """(s, by how many dB J falls against s = 1); of geometric mean 1, or with log s between ``limits``."""
        zero = np.zeros_like(self.peak)
        start, _ = self.value(zero, self.widest_near(zero, 1), options.sharpness)
        low, high = limits if limits is not None else (-np.inf, np.inf)
        log_s = np.clip(np.log(self.peak / self.peak.max()), low, high)
        momentum, scale = np.zeros_like(log_s), np.zeros_like(log_s)
        near = self.widest_near(log_s, options.near)
        for t in range(1, options.steps + 1):
            if t % options.refresh == 0:
                near = self.widest_near(log_s, options.near)
            _, slope = self.value(log_s, near, options.sharpness)
            momentum = 0.9 * momentum + 0.1 * slope
            scale = 0.99 * scale + 0.01 * slope**2
            step = (momentum / (1 - 0.9**t)) / (np.sqrt(scale / (1 - 0.99**t)) + 1e-8)
            log_s = np.clip(log_s - options.rate * (1 - t / options.steps) * step, low, high)
        end, _ = self.value(log_s, self.widest_near(log_s, 1), options.sharpness)
        gain = 10.0 * float(np.log10(start / end)) if end > 0 else 0.0
        return np.exp(log_s if limits is not None else log_s - log_s.mean()), gain

    def widest_near(self, log_s: Vector, count: int) -> NDArray[np.intp]:
        """The ``count`` widest inputs of each output, [groups, count, outputs a group]: the maxima are among them."""
        steps = self.widest + log_s.reshape(*self.widest.shape[:2], 1).astype(np.float32)
        if count >= steps.shape[1]:
            return np.broadcast_to(np.arange(steps.shape[1])[None, :, None], steps.shape)
        return np.argpartition(-steps, count - 1, axis=1)[:, :count]

    def value(self, log_s: Vector, near: NDArray[np.intp], sharpness: float) -> tuple[float, Vector]:
        """(J, gradient of log J over log s), if the widest inputs are among ``near``."""
        groups, each, _ = self.widest.shape
        s2 = np.exp(2.0 * log_s)
        step = np.log(self.peak) - log_s
        share = np.exp(sharpness * (step - step.max()))
        passed = s2 * self.energy
        value = float(np.exp(2.0 * step.max())) / 255.0**2 * passed.sum()
        slope = 2.0 * value * (passed / max(passed.sum(), 1e-300) - share / share.sum())

        here = near + each * np.arange(groups)[:, None, None]
        steps = np.take_along_axis(self.widest, near, axis=1) + log_s[here]
        top = steps.max(axis=1, keepdims=True)
        soft = np.exp(sharpness * (steps - top))
        soft *= np.exp(2.0 * top) / soft.sum(axis=1, keepdims=True) * self.taps / 127.0**2
        heard = (self.power / s2).reshape(groups, each)
        squares = soft.sum(axis=(1, 2))
        weight = float(squares @ heard.sum(axis=1))
        wide = np.bincount(here.reshape(-1), soft.reshape(-1), minlength=log_s.size).reshape(groups, each)
        slope += 2.0 * (wide * heard.sum(axis=1, keepdims=True) - squares[:, None] * heard).reshape(-1)
        return value + weight, slope / max(value + weight, 1e-300)


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


def _cost(second: Layer, weight: Array, link: Link, seen: _Seen, options: EqualizeOptions) -> _Cost:
    # [inputs, outputs a group, taps] -> [C, outputs, taps * blocks]
    taps = second.by_inputs(weight).astype(np.float64)
    channels = taps.shape[0] // link.blocks
    taps = taps.reshape(channels, link.blocks, taps.shape[1], -1).swapaxes(1, 2).reshape(channels, taps.shape[1], -1)
    peak = seen.peak.reshape(channels, -1).max(axis=1)
    power = seen.power.reshape(channels, -1).mean(axis=1)
    peak = np.maximum(peak, max(options.floor * peak.max(), 1e-30))
    widest = np.log(np.maximum(np.abs(taps).max(axis=2), 1e-30))
    return _Cost(
        peak=peak,
        power=power,
        energy=np.einsum("cok,cok->c", taps, taps),
        widest=widest.astype(np.float32).reshape(second.group, -1, widest.shape[1]),
        taps=taps.shape[2],
    )


RECOVERIES.add("equalize", Equalize())

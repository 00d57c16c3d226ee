"""The noise that quantization makes between two linked layers, as a function of how their channels are scaled.

z is what the second layer reads, [.., C], r_c = max |z_c|, E_c = E[z_c^2], W2 the second layer's weight, n taps of its
kernel. With rounding errors uniform and independent, the noise in the outputs of the second layer, with channel c of z
divided by s_c, is up to 1 / 12

    J(s) = (max_c r_c / s_c / 255)^2  sum_o,c s_c^2 |W2_oc|^2              from rounding z
         + n sum_o (max_c s_c max |W2_oc| / 127)^2  sum_c E_c / s_c^2      from rounding W2

where both maxima stand for step sizes, and the second one, like the last sum, goes over the channels of o's group.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qconvert.graph.signature import session_of
from qconvert.recover.layers import Array, Layer
from qconvert.recover.recovery import Subject

Vector = NDArray[np.float64]

# Least range of a channel, as a share of the greatest: a channel that was silent on these samples may still speak, and
# must not saturate at once.
_FLOOR = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What samples show of a tensor, [channels] each: min z, max |z|, E[z] and E[z^2]."""

    low: Vector
    peak: Vector
    mean: Vector
    power: Vector

    def and_also(self, other: Seen) -> Seen:
        """Of both sets of samples; the means are parts of one."""
        return Seen(
            low=np.minimum(self.low, other.low),
            peak=np.maximum(self.peak, other.peak),
            mean=self.mean + other.mean,
            power=self.power + other.power,
        )


def observe(subject: Subject, axes: Mapping[str, int], count: int) -> dict[str, Seen]:
    """What ``count`` samples at most show of tensors, by name; ``axes`` are those of their channels."""
    session = session_of(subject.model, outputs=list(axes))
    found: dict[str, Seen] = {}
    samples = subject.samples.first(count)
    for feed in samples:
        for tensor, array in zip(axes, session.run_on(feed, list(axes)), strict=True):
            z = np.moveaxis(np.asarray(array, np.float32), axes[tensor], 0)
            z = z.reshape(z.shape[0], -1)
            share = 1.0 / (max(1, z.shape[1]) * len(samples))
            here = Seen(
                low=z.min(axis=1, initial=np.inf).astype(np.float64),
                peak=np.abs(z).max(axis=1, initial=0.0).astype(np.float64),
                mean=z.sum(axis=1, dtype=np.float64) * share,
                power=np.einsum("cn,cn->c", z, z, dtype=np.float64) * share,
            )
            found[tensor] = here if tensor not in found else found[tensor].and_also(here)
    return found


def axis_read(second: Layer) -> int:
    """The axis of the channels in what a layer reads."""
    return -1 if second.op_type == "MatMul" else 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LinkNoise:
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

    def db(self) -> float:
        """J at s = 1, in dB."""
        zero = np.zeros_like(self.peak)
        return 10.0 * float(np.log10(max(self.value(zero, self.widest_near(zero, 1), 1.0)[0], 1e-300)))

    @classmethod
    def of(cls, second: Layer, weight: Array, blocks: int, peak: Vector, power: Vector) -> LinkNoise:
        """From what ``second`` reads.

        Args:
            second, weight: the second layer, and its weight.
            blocks: inputs that each channel has there.
            peak, power: max |z| and E[z^2], [inputs].
        """
        # [inputs, outputs a group, taps] -> [C, outputs, taps * blocks]
        taps = second.by_inputs(weight).astype(np.float64)
        channels = taps.shape[0] // blocks
        taps = taps.reshape(channels, blocks, taps.shape[1], -1).swapaxes(1, 2).reshape(channels, taps.shape[1], -1)
        peak = peak.reshape(channels, -1).max(axis=1)
        widest = np.log(np.maximum(np.abs(taps).max(axis=2), 1e-30))
        return cls(
            peak=np.maximum(peak, max(_FLOOR * peak.max(), 1e-30)),
            power=power.reshape(channels, -1).mean(axis=1),
            energy=np.einsum("cok,cok->c", taps, taps),
            widest=widest.astype(np.float32).reshape(second.group, -1, widest.shape[1]),
            taps=taps.shape[2],
        )

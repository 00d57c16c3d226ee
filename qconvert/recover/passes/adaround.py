"""Learned rounding: codes that make the error of a layer's outputs a minimum, each given all the others.

    minimise over codes q    f(q) = (w - s q) H (w - s q)^T,    H = E[x x^T] + damping

for each output channel. Nagel et al. 2020 (AdaRound, arXiv:2004.10568) minimise this over rounding up or down by
gradient descent on a relaxation. Here it is minimised over the codes themselves, one column after the other: with the
others fixed and d = w - s q, the best code of column k is known,

    q_k <- clip(round((w_k - d_k + (d H)_k / H_kk) / s)),        d H is kept up to date, K multiplications a column

so that f never rises, and the end is a point that no single code improves. Behdin et al. 2023 (QuantEase,
arXiv:2309.01885), algorithm 2. It begins where GPTQ has ended, if that came before, or with plain rounding; GPTQ never
looks back, which is what is gained here. Where kernels add two products in 16 bits, codes stay within what their
partners leave (:mod:`qconvert.recover.grid`).

A sweep costs K^2 for each output; layers are taken from the cheapest up to a budget.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from qconvert.graph.constants import Port
from qconvert.numerics.spec import QParams
from qconvert.recover.gram import second_moments
from qconvert.recover.grid import Grid, Partners, final_parameters
from qconvert.recover.layers import Array, Layer
from qconvert.recover.recovery import RECOVERIES, Changes, Stage, Subject
from qconvert.recover.work import affordable

Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaRoundOptions:
    """Constants of the pass.

    Attributes:
        samples, positions: samples for H, and columns of each at most.
        damping: added to the diagonal of H, as a share of its mean.
        sweeps: over all columns of a layer, at most.
        operations: multiplications that all layers together may cost, before the factor for effort.
    """

    samples: int = 32
    positions: int = 256
    damping: float = 0.01
    sweeps: int = 8
    operations: float = 1e11


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaRound:
    """The pass."""

    options: AdaRoundOptions = field(default_factory=AdaRoundOptions)
    name: str = "adaround"
    stage: Stage = Stage.SOLVED

    def apply(self, subject: Subject) -> Changes:
        """Weights on the grid of their scales, of which no single code could be better."""
        plan = subject.plan
        layers = (
            affordable(subject, plan, self._cost, self.options.operations * subject.work) if plan is not None else {}
        )
        if plan is None or not layers:
            return Changes()
        samples = subject.samples.first(self.options.samples)
        moments = second_moments(subject, layers, samples, self.options.positions)
        constants: dict[Port, Array] = {}
        parameters: dict[str, QParams] = {}
        for name, layer in layers.items():
            if not np.isfinite(moments[name]).all():
                continue
            start = subject.weight(layer)
            params, partners = final_parameters(subject, plan, layer, start)
            original = subject.original(layer)
            constants[layer.weight] = learned(layer, original, start, params, moments[name], self.options, partners)
            parameters[name] = params
        return Changes(constants=constants, parameters=parameters, changed=len(constants))

    def _cost(self, groups: int, outputs: int, inputs: int) -> float:
        return float(self.options.sweeps * groups * outputs * inputs**2)


def learned(
    layer: Layer,
    weight: Array,
    start: Array,
    params: QParams,
    moments: Matrix,
    options: AdaRoundOptions,
    partners: Partners | None = None,
) -> Array:
    """A weight on the grid of ``params``, [same shape], at least as good as ``start`` rounded to it.

    Args:
        layer, weight: whose weight, and the float weight.
        start: where to begin.
        params: the grid.
        moments: H without damping, [groups, K, K].
        options: constants.
        partners: where two products are added in 16 bits, the other column of each column's pair.
    """
    rows = layer.by_outputs(weight).astype(np.float64)  # [groups, O / groups, K]
    groups, each, inputs = rows.shape
    grid = Grid.of(params, groups, each)
    k = np.arange(inputs)
    h = moments.copy()
    h[:, k, k] += options.damping * h[:, k, k].mean(axis=1, keepdims=True) + 1e-12
    fixed = rows == 0  # what was pruned stays so
    codes = np.zeros_like(rows)
    begin = layer.by_outputs(start).astype(np.float64)
    for i in range(inputs):
        codes[:, :, i] = np.where(fixed[:, :, i], 0.0, grid.codes(begin[:, :, i], _other(codes, partners, i)))
    error = rows - codes * grid.scale[:, :, None]
    heard = error @ h
    for _ in range(options.sweeps):
        moved = False
        for i in range(inputs):
            aim = rows[:, :, i] - error[:, :, i] + heard[:, :, i] / h[:, i, i][:, None]
            best = np.where(fixed[:, :, i], 0.0, grid.codes(aim, _other(codes, partners, i)))
            change = (codes[:, :, i] - best) * grid.scale
            where = np.flatnonzero(change.any(axis=0))
            if where.size:
                moved = True
                codes[:, :, i] = best
                error[:, :, i] += change
                heard[:, where] += change[:, where, None] * h[:, None, i]
        if not moved:
            break
    return layer.from_outputs(codes * grid.scale[:, :, None], weight)


def _other(codes: Matrix, partners: Partners | None, i: int) -> Matrix | None:
    return codes[:, :, partners[i]] if partners is not None and partners[i] >= 0 else None


RECOVERIES.add("adaround", AdaRound())

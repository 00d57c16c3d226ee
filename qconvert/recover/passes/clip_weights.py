"""Weight clipping: for each channel the scale that costs its outputs least, which may be below that of its extremes.

    s_o = argmin over s   d H d^T,    d_k = w_ok - s clip(round(w_ok / s), lo, hi),    H = E[x x^T]

over s = share * (scale of the extremes), for each output channel, or the whole weight where it has one scale. What is
minimised is the mean squared error of the outputs. That of the weights, H = 1, is no substitute: at 4 bits and with
correlated inputs, its scales gave a greater error of the outputs than no clipping on 15 of 60 made layers.

The rounding error of the many weights falls with s^2, the clipping error of the few grows; 8 bits gain where a channel
has few weights far out, 4 bits nearly always. Banner et al. 2019 (arXiv:1810.05723) derive the optimum for known
distributions; here it is searched. Layers are taken from the cheapest up to a budget.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from qconvert.numerics.spec import QParams
from qconvert.recover.gram import second_moments
from qconvert.recover.grid import Grid
from qconvert.recover.layers import Array, Layer
from qconvert.recover.recovery import RECOVERIES, Changes, Stage, Subject
from qconvert.recover.simulation import parameters_of
from qconvert.recover.work import affordable

Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipOptions:
    """Constants of the pass.

    Attributes:
        samples, positions: samples for H, and columns of each at most.
        least: the smallest share of the extremes' scale that is tried.
        trials: how many shares are tried.
        least_gain: share of the squared error by which a layer has to gain.
        operations: multiplications that all layers together may cost, before the factor for effort.
    """

    samples: int = 16
    positions: int = 256
    least: float = 0.3
    trials: int = 36
    least_gain: float = 0.02
    operations: float = 3e10


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipWeights:
    """The pass."""

    options: ClipOptions = field(default_factory=ClipOptions)
    name: str = "clip-weights"
    stage: Stage = Stage.SOLVED

    def apply(self, subject: Subject) -> Changes:
        """Smaller scales of the weights that gain from them."""
        plan, budget = subject.plan, self.options.operations * subject.work
        layers = affordable(subject, plan, self._cost, budget) if plan is not None else {}
        if plan is None or not layers:
            return Changes()
        samples = subject.samples.first(self.options.samples)
        moments = second_moments(subject, layers, samples, self.options.positions)
        parameters: dict[str, QParams] = {}
        for name, layer in layers.items():
            if not np.isfinite(moments[name]).all():
                continue
            weight = subject.weight(layer)
            before = parameters_of(subject, plan, layer.node, weight)
            params, gain = clipped(layer, weight, before, moments[name], self.options)
            if gain >= self.options.least_gain:
                parameters[name] = params
        return Changes(parameters=parameters, changed=len(parameters))

    def _cost(self, groups: int, outputs: int, inputs: int) -> float:
        return float(self.options.trials * groups * outputs * inputs**2)


def clipped(
    layer: Layer, weight: Array, params: QParams, moments: Matrix, options: ClipOptions
) -> tuple[QParams, float]:
    """(``params``, symmetric, with the scales that cost least, by what share the squared error falls).

    ``moments`` is H, [groups, K, K].
    """
    if np.any(params.zero_point):
        return params, 0.0
    rows = layer.by_outputs(weight).astype(np.float64)
    best = start = _errors(rows, params, moments)
    chosen = params.scale
    for share in np.linspace(1.0, options.least, options.trials)[1:]:
        scale = np.asarray(params.scale * share, np.float32)
        errors = _errors(rows, QParams(spec=params.spec, scale=scale, zero_point=params.zero_point), moments)
        chosen, best = np.where(errors < best, scale, chosen), np.minimum(errors, best)
    gain = 1.0 - float(best.sum() / start.sum()) if start.sum() > 0 else 0.0
    scale = np.asarray(chosen, np.float32)
    return QParams(spec=params.spec, scale=scale, zero_point=params.zero_point), gain


def _errors(rows: Matrix, params: QParams, moments: Matrix) -> Matrix:
    """Squared error of the outputs under rounded ``rows`` [groups, outputs a group, K], of the shape of the scale."""
    groups, each, _ = rows.shape
    grid = Grid.of(params, groups, each)
    scale = grid.scale[:, :, None]
    d = rows - np.clip(np.rint(rows / scale), grid.low[:, :, None], grid.high[:, :, None]) * scale
    errors = np.einsum("gok,gok->go", d @ moments, d)
    return np.asarray(errors.reshape(-1) if params.scale.ndim else errors.sum())


RECOVERIES.add("clip-weights", ClipWeights())

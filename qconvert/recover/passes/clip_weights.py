"""Weight clipping: for each channel the scale that loses least, which may be smaller than that of its extremes.

    s_o = argmin over s   sum_k (w_ok - s clip(round(w_ok / s), lo, hi))^2          s = share * s of the extremes

The rounding error of the many falls with s^2, the clipping error of the few grows; 8 bits gain where a channel has few
weights far out, 4 bits nearly always. For each output channel (or the whole weight, where it has one scale) shares from
1 down to ``least`` are tried. Banner et al. 2019 (arXiv:1810.05723) derive the optimum for known distributions; here it
is searched.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from qconvert.numerics.spec import QParams
from qconvert.recover.grid import Grid
from qconvert.recover.layers import Array, Layer
from qconvert.recover.recovery import RECOVERIES, Changes, Stage, Subject
from qconvert.recover.simulation import integer_layers, parameters_of


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipOptions:
    """Constants of the pass.

    Attributes:
        least: the smallest share of the extremes' scale that is tried.
        trials: how many shares are tried.
        least_gain: share of the squared error by which a layer has to gain.
    """

    least: float = 0.3
    trials: int = 36
    least_gain: float = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipWeights:
    """The pass."""

    options: ClipOptions = field(default_factory=ClipOptions)
    name: str = "clip-weights"
    stage: Stage = Stage.SOLVED

    def apply(self, subject: Subject) -> Changes:
        """Smaller scales of the weights that gain from them."""
        plan = subject.plan
        if plan is None:
            return Changes()
        parameters: dict[str, QParams] = {}
        for name, layer in integer_layers(subject, plan).items():
            weight = subject.weight(layer)
            params, gain = clipped(layer, weight, parameters_of(subject, plan, layer, weight), self.options)
            if gain >= self.options.least_gain:
                parameters[name] = params
        return Changes(parameters=parameters, changed=len(parameters))


def clipped(layer: Layer, weight: Array, params: QParams, options: ClipOptions) -> tuple[QParams, float]:
    """(``params``, symmetric, with the scales that lose least, by what share the squared error falls)."""
    if np.any(params.zero_point):
        return params, 0.0
    rows = layer.by_outputs(weight).astype(np.float64)
    best = start = _errors(rows, params)
    scale = params.scale.astype(np.float64)
    chosen = scale.copy()
    for share in np.linspace(1.0, options.least, options.trials)[1:]:
        trial = QParams(spec=params.spec, scale=np.asarray(scale * share, np.float32), zero_point=params.zero_point)
        errors = _errors(rows, trial)
        chosen, best = np.where(errors < best, trial.scale, chosen), np.minimum(errors, best)
    gain = 1.0 - float(best.sum() / start.sum()) if start.sum() > 0 else 0.0
    return QParams(spec=params.spec, scale=np.asarray(chosen, np.float32), zero_point=params.zero_point), gain


def _errors(rows: NDArray[np.float64], params: QParams) -> NDArray[np.float64]:
    """Squared error of rounding ``rows`` [groups, outputs a group, K], of the shape of the scale."""
    groups, each, _ = rows.shape
    grid = Grid.of(params, groups, each)
    scale = grid.scale[:, :, None]
    codes = np.clip(np.rint(rows / scale), grid.low[:, :, None], grid.high[:, :, None])
    errors = np.square(rows - codes * scale).sum(axis=2)
    return np.asarray(errors.reshape(-1) if params.scale.ndim else errors.sum())


RECOVERIES.add("clip-weights", ClipWeights())

"""Smoothing for activations with one scale: large channels are divided by factors that the weight is multiplied by.

    x W = (x / f) (diag(f) W)

Codes of x have the step r / 255, r the range of a sample's x, those of column n of the weight max_k |f_k W_kn| / 127.
The expected squared error of the product, but for a factor 1 / 12, is

    E(f) = mean of r(x / f)^2 * sum_k f_k^2 |W_k|^2 / 255^2
         + sum_k E[x_k^2] / f_k^2 * sum_n max_k |f_k W_kn|^2 / 127^2

Of f_k = (m_k / |W_k|^(1/2))^a, m_k the largest |x_k| seen, a = 0.1 .. 1, the best is taken. SmoothQuant (Xiao et al.
2023, arXiv:2211.10438) has the ranges of weights in place of their norms. A factor costs a multiplication of x at each
run, so it must gain ``LEAST_GAIN_DB``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qconvert.graph.model import Model
from qconvert.graph.session import Feed
from qconvert.graph.signature import session_of

LEAST_GAIN_DB = 4.0
_POWERS = np.linspace(0.1, 1.0, 10)
# factors beyond this would leave channels that were small in the samples with nothing
_MOST = 64.0

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Extremes:
    """Least, greatest and mean squared value of each channel, a row for each sample: [S, K] each."""

    low: Array
    high: Array
    power: Array


def extremes(model: Model, sources: Sequence[str], samples: Iterable[Feed]) -> dict[str, Extremes]:
    """Extremes of the channels (last axis) of the values ``sources`` of the main graph."""
    if not sources:
        return {}
    session = session_of(model, outputs=sources)
    low: dict[str, list[Array]] = {s: [] for s in sources}
    high: dict[str, list[Array]] = {s: [] for s in sources}
    power: dict[str, list[Array]] = {s: [] for s in sources}
    for feed in samples:
        for name, value in zip(sources, session.run_on(feed), strict=True):
            rows = np.asarray(value, np.float64).reshape(-1, value.shape[-1])
            if rows.shape[0] and np.isfinite(rows).all():
                low[name].append(rows.min(axis=0))
                high[name].append(rows.max(axis=0))
                power[name].append((rows**2).mean(axis=0))
    return {
        s: Extremes(low=np.stack(low[s]), high=np.stack(high[s]), power=np.stack(power[s])) for s in sources if low[s]
    }


def factors_of(extreme: Extremes, rows: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """f [K] of a value, None where smoothing it gains too little.

    Args:
        extreme: what was seen of it.
        rows: the weights that read it, one above the other: [N, K].
    """
    weights = np.abs(rows.astype(np.float64))
    norms = np.sqrt((weights**2).sum(axis=0))
    plain = _error(extreme, weights, norms, np.ones_like(norms))
    tried = [_candidate(extreme, norms, float(a)) for a in _POWERS]
    errors = [_error(extreme, weights, norms, f) for f in tried]
    best = int(np.argmin(errors))
    if errors[best] <= 0 or 10 * np.log10(plain / errors[best]) < LEAST_GAIN_DB:
        return None
    return tried[best].astype(np.float32)


def _candidate(extreme: Extremes, norms: Array, power: float) -> Array:
    sizes = np.maximum(np.abs(extreme.low), np.abs(extreme.high)).max(axis=0)
    raw = sizes / np.sqrt(np.maximum(norms, 1e-6 * norms.max(initial=1e-30)))
    typical = np.median(raw[raw > 0]) if (raw > 0).any() else 1.0
    return np.asarray(np.clip((raw / typical) ** power, 1 / _MOST, _MOST))


def _error(extreme: Extremes, weights: Array, norms: Array, factors: Array) -> float:
    low, high = (extreme.low / factors).min(axis=1), (extreme.high / factors).max(axis=1)
    ranges = np.maximum(high, 0.0) - np.minimum(low, 0.0)
    of_inputs = float((ranges**2).mean() * ((factors * norms) ** 2).sum()) / 255**2
    steps = float(((weights * factors).max(axis=1) ** 2).sum()) / 127**2
    return of_inputs + steps * float((extreme.power.mean(axis=0) / factors**2).sum())

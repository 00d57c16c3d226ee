"""Smoothing for activations with one scale: large channels are divided by factors that the weight is multiplied by.

    x W = (x / f) (diag(f) W)

Codes of x have the step r / 255, r the range of a sample's x, and every channel k carries its error into the output
with the weight's row W_k. The expected squared error of the product is

    E(f) = mean over samples of r(x / f)^2 * sum_k f_k^2 |W_k|^2 / (12 * 255^2)

which is minimised over f_k = (m_k / |W_k|^(1/2))^a, m_k the largest |x_k| seen, for a = 0.1 .. 1. SmoothQuant (Xiao et
al. 2023, arXiv:2211.10438) takes the ranges of weights in place of their norms; here weights have a scale a channel and
8 bits, and their error is the smaller one by far. A factor costs a multiplication of x at each run, so it must gain
``LEAST_GAIN_DB``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
    """Least and greatest value of each channel, a row for each sample: [S, K] each."""

    low: Array
    high: Array


def extremes(model: Model, sources: Sequence[str], samples: Iterable[Feed]) -> dict[str, Extremes]:
    """Extremes of the channels (last axis) of the values ``sources`` of the main graph."""
    if not sources:
        return {}
    session = session_of(model, outputs=sources)
    low: dict[str, list[Array]] = {s: [] for s in sources}
    high: dict[str, list[Array]] = {s: [] for s in sources}
    for feed in samples:
        for name, value in zip(sources, session.run_on(feed), strict=True):
            rows = np.asarray(value, np.float64).reshape(-1, value.shape[-1])
            if rows.shape[0] and np.isfinite(rows).all():
                low[name].append(rows.min(axis=0))
                high[name].append(rows.max(axis=0))
    return {s: Extremes(low=np.stack(low[s]), high=np.stack(high[s])) for s in sources if low[s]}


def factors_of(seen: Mapping[str, Extremes], norms: Mapping[str, Array]) -> dict[str, NDArray[np.float32]]:
    """f [K] of the values whose smoothing gains enough.

    Args:
        seen: extremes of each value.
        norms: |W_k| [K] over all weights that read it.
    """
    found = {}
    for name, extreme in seen.items():
        plain = _error(extreme, norms[name], np.ones_like(norms[name]))
        tried = [_candidate(extreme, norms[name], float(a)) for a in _POWERS]
        errors = [_error(extreme, norms[name], f) for f in tried]
        best = int(np.argmin(errors))
        if errors[best] > 0 and 10 * np.log10(plain / errors[best]) >= LEAST_GAIN_DB:
            found[name] = tried[best].astype(np.float32)
    return found


def _candidate(extreme: Extremes, norms: Array, power: float) -> Array:
    sizes = np.maximum(np.abs(extreme.low), np.abs(extreme.high)).max(axis=0)
    raw = sizes / np.sqrt(np.maximum(norms, 1e-6 * norms.max(initial=1e-30)))
    typical = np.median(raw[raw > 0]) if (raw > 0).any() else 1.0
    return np.asarray(np.clip((raw / typical) ** power, 1 / _MOST, _MOST))


def _error(extreme: Extremes, norms: Array, factors: Array) -> float:
    low, high = (extreme.low / factors).min(axis=1), (extreme.high / factors).max(axis=1)
    ranges = np.maximum(high, 0.0) - np.minimum(low, 0.0)
    return float((ranges**2).mean() * ((factors * norms) ** 2).sum())

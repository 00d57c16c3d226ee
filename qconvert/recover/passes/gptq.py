"""Rounding with compensation (GPTQ): the error of each rounded weight is made up for by those not rounded yet.

    minimise over codes q    (w - s q) H (w - s q)^T,    H = E[x x^T] + damping

for each output channel, w [K] its weights, s its scale, x its inputs. Inputs of trained nets are correlated, so that
the error of one weight can be undone by others. In the order of falling H_kk, with U the upper Cholesky factor of H^-1
(H^-1 = U^T U),

    q_k = round(w_k / s),   e = (w_k - s q_k) / U_kk,   w_j -= e U_kj  for every later j

Frantar et al. 2023 (arXiv:2210.17323), algorithm 1; updates of far columns wait for the end of a block. Scales are
those of the extremes, so that the result is a plain rounded weight to everything that follows. H is that of the float
model; it holds the inputs' means, so that shifts of the outputs are made up for, too.

On a target whose kernels add two products in 16 bits (:mod:`qconvert.numerics.saturation`), the scales are those with
which emission would keep pairs of weights from saturating, and a code is clipped to what the other one of its pair, if
that is rounded already, leaves room for; what the clip costs is made up for like any other error.

Layers are taken from the cheapest up to a budget: a solve costs K^3, and with thousands of inputs errors of rounding
average out by themselves. A weight with other readers is left alone.
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
from qconvert.recover.work import affordable, multiplications

Matrix = NDArray[np.float64]

# Below, the calls of numpy take longer than what halving saves.
_INVERTED_AT_ONCE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class GptqOptions:
    """Constants of the pass.

    Attributes:
        least, most: samples for H, at least and at most; between them, as many as ``runs`` allows.
        positions: columns of each sample at most.
        damping: added to the diagonal of H, as a share of its mean.
        block: columns that are rounded before the columns behind them are updated.
        runs: multiplications that the runs of the model may cost.
        operations: multiplications that all layers together may cost.
    """

    least: int = 8
    most: int = 16
    positions: int = 256
    damping: float = 0.01
    block: int = 32
    runs: float = 3e10
    operations: float = 3e10


@dataclass(frozen=True, slots=True, kw_only=True)
class Gptq:
    """The pass."""

    options: GptqOptions = field(default_factory=GptqOptions)
    name: str = "gptq"
    stage: Stage = Stage.SOLVED

    def apply(self, subject: Subject) -> Changes:
        """Weights on the grid of their scales, rounded with compensation."""
        plan = subject.plan
        layers = affordable(subject, plan, _cost, self.options.operations * subject.work) if plan is not None else {}
        if plan is None or not layers:
            return Changes()
        each = multiplications(subject, layers)
        count = np.clip(self.options.runs * subject.work / max(1.0, each), self.options.least, self.options.most)
        samples = subject.samples.first(int(count))
        moments = second_moments(subject, layers, samples, self.options.positions)
        constants: dict[Port, Array] = {}
        parameters: dict[str, QParams] = {}
        for name, layer in layers.items():
            weight = subject.weight(layer)
            if not np.isfinite(moments[name]).all():
                continue
            params, partners = final_parameters(subject, plan, layer, weight)
            constants[layer.weight] = rounded(layer, weight, params, moments[name], self.options, partners)
            parameters[name] = params
        return Changes(constants=constants, parameters=parameters, changed=len(constants))


def rounded(
    layer: Layer,
    weight: Array,
    params: QParams,
    moments: Matrix,
    options: GptqOptions,
    partners: Partners | None = None,
) -> Array:
    """``weight`` on the grid of ``params``, [same shape].

    Args:
        layer, weight, params: whose weight, the weight, and its grid.
        moments: H without damping, [groups, K, K].
        options: constants.
        partners: where two products are added in 16 bits, the other column of each column's pair.
    """
    rows = layer.by_outputs(weight).astype(np.float64)  # [groups, O / groups, K]
    groups, each, inputs = rows.shape
    grid = Grid.of(params, groups, each)

    diagonal = np.einsum("gkk->gk", moments)
    order = np.argsort(-diagonal, axis=1, kind="stable")
    h = np.take_along_axis(np.take_along_axis(moments, order[:, :, None], axis=1), order[:, None, :], axis=2)
    k = np.arange(inputs)
    h[:, k, k] += options.damping * diagonal.mean(axis=1, keepdims=True) + 1e-12
    upper = factor_of_inverse(h)

    back = np.argsort(order, axis=1, kind="stable")
    # [groups, K, O / groups]: a column of weights lies in one piece
    w = np.take_along_axis(rows.swapaxes(1, 2), order[:, :, None], axis=1)
    fixed = w == 0  # what was pruned stays so
    done = np.zeros_like(w)  # codes by now, 0 where there is none yet
    every = np.arange(groups)
    for start in range(0, inputs, options.block):
        end = min(start + options.block, inputs)
        errors = np.zeros((groups, end - start, each))
        for i in range(start, end):
            other = None
            if partners is not None:
                column = partners[order[:, i]]  # [groups]
                other = done[every, back[every, column]] * (column >= 0)[:, None]
            done[:, i] = np.where(fixed[:, i], 0.0, grid.codes(w[:, i], other))
            q = done[:, i] * grid.scale
            error = (w[:, i] - q) / upper[:, i, i, None]
            w[:, i] = q
            w[:, i + 1 : end] -= upper[:, i, i + 1 : end, None] * error[:, None]
            errors[:, i - start] = error
        w[:, end:] -= upper[:, start:end, end:].swapaxes(1, 2) @ errors
    found = np.take_along_axis(w, back[:, :, None], axis=1)
    return layer.from_outputs(np.ascontiguousarray(found.swapaxes(1, 2)), weight)


def factor_of_inverse(h: Matrix) -> Matrix:
    """Upper triangular U with H^-1 = U^T U, [..., K, K], of positive definite ``h``.

    With the order of rows and columns reversed, the Cholesky factor of H is an upper triangular R with H = R R^T, and
    U = R^-1: a third of the multiplications of an inverse and its factor.
    """
    reverse = (..., slice(None, None, -1), slice(None, None, -1))
    return _inverse(np.asarray(np.linalg.cholesky(h[reverse]), np.float64)[reverse])


def _inverse(r: Matrix) -> Matrix:
    """Of an upper triangular matrix, by halves: ((A, B), (0, C))^-1 = ((A^-1, -A^-1 B C^-1), (0, C^-1))."""
    size = r.shape[-1]
    if size <= _INVERTED_AT_ONCE:
        return np.asarray(np.linalg.inv(r))
    half = size // 2
    found = np.zeros_like(r)
    a, c = _inverse(r[..., :half, :half]), _inverse(r[..., half:, half:])
    found[..., :half, :half], found[..., half:, half:] = a, c
    found[..., :half, half:] = -(a @ r[..., :half, half:]) @ c
    return found


def _cost(groups: int, outputs: int, inputs: int) -> float:
    return float(groups * inputs**2 * (inputs + outputs))


RECOVERIES.add("gptq", Gptq())

"""Rounding column by column, the error of each made up for by the columns that are not rounded yet (GPTQ).

With H = E[x x^T] and U the upper Cholesky factor of H^-1, columns in the order of falling H_kk:

    e_i = (w_i - round(w_i)) / U_ii,    w_j -= e_i U_ij  for j > i

Frantar et al. 2023, arXiv:2210.17323; what a column is rounded to is fixed
beforehand ("static groups" there).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from qconvert.numerics.blocks import Rows

Vector = NDArray[np.float64]
RoundColumn = Callable[[int, Vector], tuple[NDArray[np.generic], NDArray[np.floating]]]
"""(column, its numbers [N]) -> (codes [N], what they stand for [N])."""


def compensated(
    rows: Rows, moments: Vector, nearest: RoundColumn, *, damping: float = 0.01, lazy: int = 128, zeros: bool = True
) -> NDArray[np.uint8]:
    """Codes [N, K] of ``rows``.

    Args:
        rows: [N, K].
        moments: H, [K, K], finite and not all zero.
        nearest: rounds a column.
        damping: added to the diagonal of H, as a share of its mean.
        lazy: columns that are rounded before the columns behind them are updated.
        zeros: exact zeros stay zeros, which takes that ``nearest`` has a code for zero.
    """
    diagonal = np.diagonal(moments)
    order = np.argsort(-diagonal, kind="stable")
    columns = rows.shape[1]
    h = moments[np.ix_(order, order)]
    h[np.arange(columns), np.arange(columns)] += damping * diagonal.mean() + 1e-12
    upper = np.linalg.cholesky(np.linalg.inv(h)).T

    fixed = (rows[:, order] == 0) & zeros
    w = rows[:, order].astype(np.float64)
    placed = np.empty(w.shape, np.uint8)
    for start in range(0, columns, lazy):
        end = min(start + lazy, columns)
        errors = np.zeros((w.shape[0], end - start))
        for i in range(start, end):
            w[fixed[:, i], i] = 0.0
            codes, real = nearest(int(order[i]), w[:, i])
            placed[:, order[i]] = codes
            error = (w[:, i] - real) / upper[i, i]
            w[:, i + 1 : end] -= error[:, None] * upper[i, i + 1 : end]
            errors[:, i - start] = error
        w[:, end:] -= errors @ upper[start:end, end:]
    return placed

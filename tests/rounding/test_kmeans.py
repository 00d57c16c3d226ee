"""Codebooks fitted to numbers: the exact dynamic program, its histogram, and zeros."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from qconvert.numerics.codebooks import nearest
from qconvert.rounding.kmeans import BINS, clusters, codebook


def least_error(x: np.ndarray, weights: np.ndarray, k: int) -> float:
    """Of all ways to cut sorted ``x`` into ``k`` runs."""
    found = []
    for cuts in itertools.combinations(range(1, len(x)), min(k, len(x)) - 1):
        runs = [slice(a, b) for a, b in itertools.pairwise((0, *cuts, len(x)))]
        means = [np.average(x[r], weights=weights[r]) for r in runs]
        found.append(sum((weights[r] * (x[r] - m) ** 2).sum() for r, m in zip(runs, means, strict=True)))
    return float(min(found))


def test_the_dynamic_program_is_exact() -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        n, k = int(rng.integers(1, 9)), int(rng.integers(1, 5))
        x = np.sort(rng.choice(np.arange(-20.0, 21.0), n, replace=False))
        weights = rng.uniform(0.1, 5, n)
        values = clusters(x, weights, k)
        error = float((weights * ((x[:, None] - values) ** 2).min(axis=1)).sum())
        assert error == pytest.approx(least_error(x, weights, k), abs=1e-9)


@pytest.mark.parametrize(("count", "k"), [(BINS // 2, 16), (50_000, 16), (50_000, 64)])
def test_no_lloyd_iteration_improves_it_much(count: int, k: int) -> None:
    """With few distinct numbers not at all, beyond ``BINS`` of them by what the bins hide."""
    x = np.random.default_rng(1).standard_t(3, count).astype(np.float32)
    book = codebook(lambda: iter([(x, None)]), k)
    owner = np.searchsorted((book[1:] + book[:-1]) / 2, x)
    means = np.bincount(owner, x, k) / np.maximum(np.bincount(owner, minlength=k), 1)
    errors = [float(((x - b[owner]) ** 2).sum()) for b in (book, means)]
    assert errors[0] <= errors[1] * (1 + (1e-6 if count < BINS else 0.02))


def test_exact_zeros_stay_zeros() -> None:
    rng = np.random.default_rng(2)
    x = (rng.standard_normal(5000) + 3).astype(np.float32)
    x[rng.random(x.size) < 0.3] = 0
    book = codebook(lambda: iter([(x[:3000], None), (x[3000:], None)]), 16)
    assert np.array_equal(book, np.sort(book))
    assert (book[nearest(x, book)][x == 0] == 0).all()
    assert not codebook(lambda: iter([(np.zeros(9, np.float32), None)]), 16).any()


def test_important_numbers_are_kept() -> None:
    x = np.repeat(np.arange(64, dtype=np.float32) + 1, 10)
    importance = np.where(x > 56, 1e4, 1.0)
    book = codebook(lambda: iter([(x, importance)]), 16)
    assert np.abs(x[x > 56, None] - book).min(axis=1).max() < 1e-3


def test_few_distinct_numbers_are_all_in_the_book() -> None:
    x = np.array([0.5, -2.0, 0.5, 7.0], np.float32)
    assert set(codebook(lambda: iter([(x, None)]), 16).tolist()) == {0.5, -2.0, 7.0}

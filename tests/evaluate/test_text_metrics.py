"""Metrics of text models: spearman over embeddings, perplexity over logits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from qconvert.errors import DataError
from qconvert.evaluate.metric import METRICS
from qconvert.evaluate.metrics.spearman import pooled, rank_correlation, ranks

F32 = np.float32
Array = NDArray[Any]


def score(name: str, output: Array, labels: Array, *, batch: int = 3, feed: Mapping[str, Array] | None = None) -> float:
    accumulator = METRICS.get(name).start(labels)
    for first in range(0, len(output), batch):
        part = {key: value[first : first + batch] for key, value in (feed or {}).items()}
        accumulator.update([output[first : first + batch]], part, first)
    return accumulator.value()


def test_ranks_share_ties() -> None:
    assert ranks(np.array([3.0, 1.0, 1.0, 2.0])).tolist() == [3, 0.5, 0.5, 2]


def test_spearman_hand_computed() -> None:
    assert rank_correlation(np.array([1.0, 2, 3, 4]), np.array([1.0, 3, 2, 4])) == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert rank_correlation(np.ones(4), np.arange(4.0)) == 0


@given(st.lists(st.tuples(st.integers(-50, 50), st.integers(-5, 5)), min_size=2, max_size=30))
def test_spearman_is_invariant_to_monotone_maps(pairs: list[tuple[int, int]]) -> None:
    a, b = (np.array(column, float) for column in zip(*pairs, strict=True))
    rho = rank_correlation(a, b)
    assert -1 - 1e-12 <= rho <= 1 + 1e-12
    assert rank_correlation(a**3 + 2 * a, np.exp(b)) == pytest.approx(rho, abs=1e-12)
    assert rank_correlation(-a, b) == pytest.approx(-rho, abs=1e-12)
    assert rank_correlation(b, a) == pytest.approx(rho, abs=1e-12)


@pytest.mark.parametrize("mask_name", ["attention_mask", "input_Mask"])
@pytest.mark.parametrize("batch", [1, 4, 14])
def test_spearman_of_token_embeddings(mask_name: str, batch: int) -> None:
    rng = np.random.default_rng(3)
    count, tokens, size = 7, 5, 8
    output = rng.normal(size=(2 * count, tokens, size)).astype(F32)
    mask = (np.arange(tokens) < rng.integers(1, tokens + 1, 2 * count)[:, None]).astype(np.int64)
    labels = rng.permutation(count).astype(F32)
    mean = np.stack([row[keep == 1].mean(0) for row, keep in zip(output.astype(np.float64), mask, strict=True)])
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    cosines = (mean[:count] * mean[count:]).sum(1)
    expected = np.corrcoef(cosines.argsort().argsort(), labels.argsort().argsort())[0, 1]
    feed = {"input_ids": np.ones((2 * count, tokens), np.int64), mask_name: mask}
    assert score("spearman", output, labels, batch=batch, feed=feed) == pytest.approx(expected)
    assert METRICS.get("spearman").samples_needed(labels) == 2 * count


def test_pooling() -> None:
    tokens = np.arange(12, dtype=F32).reshape(1, 3, 4)
    assert pooled(tokens, {}).tolist() == [[4, 5, 6, 7]]
    assert pooled(tokens, {"mask": np.array([[1, 0, 0]])}).tolist() == [[0, 1, 2, 3]]
    assert pooled(tokens, {"mask": np.array([[0.0, 1.0, 0.0]])}).tolist() == [[4, 5, 6, 7]]  # floats are no token mask
    assert pooled(tokens[:, 0], {}).tolist() == [[0, 1, 2, 3]]


def test_spearman_of_broken_embeddings() -> None:
    assert score("spearman", np.full((6, 4), np.nan, F32), np.arange(3.0)) == 0


def test_spearman_refuses() -> None:
    with pytest.raises(DataError, match="for 4"):
        score("spearman", np.ones((6, 4), F32), np.arange(2.0))
    with pytest.raises(DataError, match="expects 6 samples for 3 labels, got 4"):
        score("spearman", np.ones((4, 4), F32), np.arange(3.0))
    with pytest.raises(DataError, match="embeddings"):
        score("spearman", np.ones((4, 4, 2, 2), F32), np.arange(2.0))
    for labels in (np.ones((3, 2)), np.array([1.0]), np.array([1.0, np.nan])):
        with pytest.raises(DataError, match="finite"):
            METRICS.get("spearman").start(labels)


def test_perplexity_of_uniform_logits_is_the_vocabulary() -> None:
    assert score("perplexity", np.zeros((2, 3, 11), F32), np.zeros((2, 3), np.int16)) == pytest.approx(11)


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_perplexity_against_plain_numpy(batch: int) -> None:
    rng = np.random.default_rng(4)
    logits = (rng.normal(size=(8, 6, 13)) * 5).astype(F32)
    labels = rng.integers(-1, 13, (8, 6))
    labels[5] = -1  # a sample of padding only
    p = np.exp(logits.astype(np.float64))
    p /= p.sum(-1, keepdims=True)
    picked = [p[i, t, labels[i, t]] for i in range(8) for t in range(6) if labels[i, t] >= 0]
    assert score("perplexity", logits, labels, batch=batch) == pytest.approx(np.exp(-np.log(picked).mean()))


def test_perplexity_of_broken_logits() -> None:
    labels = np.zeros((1, 2), int)
    assert score("perplexity", np.full((1, 2, 5), np.nan, F32), labels) == math.inf
    assert score("perplexity", np.full((1, 2, 5), -np.inf, F32), labels) == math.inf


@pytest.mark.parametrize(
    ("labels", "shape", "words"),
    [
        (np.zeros((2, 3)), (2, 3, 5), "next tokens"),
        (np.full((2, 3), -1), (2, 3, 5), "next tokens"),
        (np.zeros(2, int), (2, 3, 5), "next tokens"),
        (np.full((2, 3), 5), (2, 3, 5), "0 to 4"),
        (np.zeros((2, 4), int), (2, 3, 5), "[n, 4, V]"),
        (np.zeros((2, 3), int), (2, 3), "[n, 3, V]"),
        (np.zeros((2, 3), int), (3, 3, 5), "labels for 2"),
    ],
)
def test_perplexity_refuses(labels: Array, shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(DataError) as caught:
        METRICS.get("perplexity").start(labels).update([np.zeros(shape, F32)], {}, 0)
    assert words in caught.value.message

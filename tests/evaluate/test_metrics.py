"""Every metric against hand-computed values and plain numpy; labels that do not fit are refused with words."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from qconvert.errors import DataError, RecipeError
from qconvert.evaluate.metric import METRICS, infer_metric

F32 = np.float32
Array = NDArray[Any]


def score(name: str, output: Array, labels: Array, *, batch: int = 3) -> float:
    accumulator = METRICS.get(name).start(labels)
    for first in range(0, len(output), batch):
        accumulator.update([output[first : first + batch]], {}, first)
    return accumulator.value()


def test_registry() -> None:
    assert METRICS.names() == ("mae", "mse", "perplexity", "psnr", "spearman", "top1", "top5")
    for name in METRICS.names():
        assert METRICS.get(name).name == name
    with pytest.raises(RecipeError) as caught:
        METRICS.get("top-1")
    assert "top1" in caught.value.hint


def test_directions_and_units() -> None:
    lower = {m.name for m in METRICS if not m.higher_is_better}
    assert lower == {"mae", "mse", "perplexity"}
    assert {m.name: m.unit for m in METRICS if m.unit} == {"top1": "%", "top5": "%", "psnr": "dB"}


@pytest.mark.parametrize("name", ["mae", "mse", "perplexity", "psnr", "top1", "top5"])
def test_one_sample_a_label(name: str) -> None:
    assert METRICS.get(name).samples_needed(np.zeros((7, 2))) == 7


@pytest.mark.parametrize("tail", [(), (1, 1)])
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_top1(tail: tuple[int, ...], batch: int) -> None:
    scores = np.array([[1, 2, 0], [3, 2, 1], [0, 0, 1], [5, 4, 3]], F32).reshape(4, 3, *tail)
    assert score("top1", scores, np.array([1, 0, 2, 2]), batch=batch) == 75


def test_top_k_against_a_stable_sort() -> None:
    rng = np.random.default_rng(1)
    scores = rng.integers(0, 9, (50, 20)).astype(F32)  # many ties
    labels = rng.integers(0, 20, 50)
    order = np.argsort(-scores, axis=1, kind="stable")
    assert score("top1", scores, labels) == pytest.approx(100 * (scores.argmax(1) == labels).mean())
    assert score("top5", scores, labels) == pytest.approx(100 * (order[:, :5] == labels[:, None]).any(1).mean())


def test_nan_scores_never_hit() -> None:
    scores = np.full((4, 3), np.nan, F32)
    assert score("top1", scores, np.zeros(4, int)) == score("top5", scores, np.zeros(4, int)) == 0


@pytest.mark.parametrize(
    ("labels", "shape", "words"),
    [
        (np.array([0, 3]), (2, 3), "0 to 2"),
        (np.array([-1, 0]), (2, 3), "0 to 2"),
        (np.array([0.5, 1.0]), (2, 3), "integer class labels"),
        (np.zeros((2, 3), int), (2, 3), "integer class labels"),
        (np.zeros(0, int), (2, 3), "integer class labels"),
        (np.array([0, 1]), (2, 3, 4), "[n, C], got [2, 3, 4]"),
        (np.array([0, 0]), (2, 1), "[n, C], got [2, 1]"),
        (np.array([0, 1]), (3, 3), "labels for 2"),
        (np.array([0, 1]), (), "class scores"),
    ],
)
def test_top1_refuses(labels: Array, shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(DataError) as caught:
        METRICS.get("top1").start(labels).update([np.zeros(shape, F32)], {}, 0)
    assert words in caught.value.message
    assert caught.value.hint


def test_mse_and_mae() -> None:
    output, labels = np.array([[1.0], [2.0], [4.0], [8.0]], F32), np.array([1, 1, 1, 5], F32)
    assert score("mse", output, labels) == pytest.approx((0 + 1 + 9 + 9) / 4)
    assert score("mae", output, labels) == pytest.approx((0 + 1 + 3 + 3) / 4)
    assert score("mse", np.full((4, 1), np.nan, F32), labels) == math.inf


@pytest.mark.parametrize("name", ["mse", "mae", "psnr"])
def test_elementwise_metrics_refuse(name: str) -> None:
    with pytest.raises(DataError, match=r"\[2, 5\], got \[2, 4\]"):
        score(name, np.zeros((2, 5), F32), np.zeros((2, 4), F32))
    with pytest.raises(DataError, match="labels for 2"):
        score(name, np.zeros((3, 4), F32), np.zeros((2, 4), F32))
    with pytest.raises(DataError):
        METRICS.get(name).start(np.array(["a"]))
    with pytest.raises(DataError, match="scalar"):
        METRICS.get(name).start(np.zeros(2, F32)).update([np.array(1.0)], {}, 0)


def test_psnr_of_bytes() -> None:
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 256, (4, 6, 6), np.uint8)
    output = (labels[:, None] / 255 + rng.normal(size=(4, 1, 6, 6)) * 0.1).astype(F32)  # [n, 1, H, W], beyond 0..1
    errors = ((np.clip(output[:, 0].astype(np.float64), 0, 1) - labels / 255) ** 2).reshape(4, -1).mean(1)
    assert score("psnr", output, labels) == pytest.approx((10 * np.log10(1 / errors)).mean())
    assert score("psnr", labels, labels) == pytest.approx(100)


def test_psnr_of_floats() -> None:
    labels = np.array([[0.0, 0.5], [1.0, 1.0]], F32)
    assert score("psnr", labels + F32(-0.1), labels) == pytest.approx(
        np.mean([10 * math.log10(1 / 0.005), 20.0]), abs=1e-4
    )
    wide = np.array([[0.0, 4.0]], F32)
    assert score("psnr", np.array([[0.0, 9.0]], F32), wide) == pytest.approx(100)  # clipped to the peak, 4
    assert score("psnr", np.array([[2.0, 4.0]], F32), wide) == pytest.approx(10 * math.log10(16 / 2))
    assert score("psnr", np.full((1, 2), np.nan, F32), wide) == -math.inf
    with pytest.raises(DataError, match="uint8"):
        METRICS.get("psnr").start(np.zeros((2, 2), np.int64))


@pytest.mark.parametrize(
    ("labels", "shape", "name"),
    [
        (np.zeros(9, np.int64), (4, 10), "top1"),
        (np.zeros(9, np.uint8), ("batch", 10, 1, 1), "top1"),
        (np.zeros(9, np.int64), (None, "classes"), "top1"),
        (np.zeros((9, 6), np.int16), (2, 6, 100), "perplexity"),
        (np.zeros((9, 6), np.int16), ("n", "t", 100), "perplexity"),
        (np.zeros((9, 3), F32), (4, 3), "mse"),
        (np.zeros(9, F32), (4, 1), "mse"),
        (np.zeros((9, 3, 8, 8), F32), ("n", 3, "h", "w"), "mse"),
    ],
)
def test_infer_metric(labels: Array, shape: tuple[int | str | None, ...], name: str) -> None:
    assert infer_metric(labels, [shape, (1,)]) == name


@pytest.mark.parametrize(
    ("labels", "shapes"),
    [
        (np.zeros(9, F32), [(4, 12, 384)]),
        (np.zeros(9, np.int64), [(4, 1)]),
        (np.zeros((9, 8, 8), np.uint8), [(4, 8, 8)]),
        (np.zeros((9, 3), F32), [("n", 4)]),
        (np.zeros(9, F32), []),
    ],
)
def test_infer_metric_gives_up(labels: Array, shapes: list[tuple[int | str | None, ...]]) -> None:
    with pytest.raises(DataError) as caught:
        infer_metric(labels, shapes)
    assert "--metric" in caught.value.hint
    assert "spearman" in caught.value.hint

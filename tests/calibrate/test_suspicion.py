"""Remarks on data sets that fit the model and still look wrong; and none on those that look right."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest

from qconvert.calibrate.suspicion import Suspicion

SHAPE = (1, 3, 16, 16)


def remarks(feeds: Iterable[dict[str, np.ndarray]], labels: Iterable[object] | None = None) -> tuple[str, ...]:
    watcher = Suspicion()
    given = list(feeds)
    for i, (feed, label) in enumerate(
        zip(given, list(labels) if labels is not None else [None] * len(given), strict=True)
    ):
        watcher.see(i, feed, label)
    return watcher.remarks()


def images(low: float, high: float, count: int = 10) -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(0)
    return [{"image": random.uniform(low, high, SHAPE).astype(np.float32)} for _ in range(count)]


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-1, 1), (-2.12, 2.64), (0, 255), (-123.7, 151.1), (-128, 127)])
def test_usual_images_are_not_remarked_on(low: float, high: float) -> None:
    assert remarks(images(low, high), range(10)) == ()


@pytest.mark.parametrize(("low", "high"), [(0, 65535), (-1000, 1000), (0, 300)])
def test_odd_ranges_are_said(low: float, high: float) -> None:
    (remark,) = remarks(images(low, high))
    assert "'image' looks like an image" in remark
    seen = np.concatenate([feed["image"] for feed in images(low, high)])
    assert f"{float(seen.min()):.6g}..{float(seen.max()):.6g}" in remark


def test_mixed_scales() -> None:
    (remark,) = remarks([*images(0, 255, 8), *images(0, 1, 3)])
    assert "within 0..1 in 3 of 11 samples" in remark
    assert "scaled alike" in remark


def test_equal_samples() -> None:
    feed = images(0, 1, 1)[0]
    assert "all 9 samples are equal" in remarks([feed] * 9)[0]
    assert remarks([feed] * 8 + images(0, 1, 2)[1:]) == ()
    ids = {"ids": np.arange(4)[None]}
    assert "all 9 samples are equal" in remarks([ids] * 9)[0]
    assert remarks([{**ids, "t": np.float32([[i]])} for i in range(9)]) == ()


def test_a_buffer_that_is_used_again_does_not_make_samples_equal() -> None:
    watcher, buffer = Suspicion(), np.zeros((1, 4), np.float32)
    for i in range(9):
        buffer[:] = [i, 0, 1, 2]
        watcher.see(i, {"x": buffer})
    assert watcher.remarks() == ()


def test_constant_inputs() -> None:
    zeros = [{"x": np.zeros((1, 5), np.float32), "y": np.float32([[i, -1]])} for i in range(9)]
    assert remarks(zeros) == ("input 'x' is 0 throughout, in every sample: nothing can be learned from it",)
    some = [*images(0, 1), *({"image": np.full(SHAPE, v, np.float32)} for v in (0.25, 0.5))]
    assert remarks(some) == ("input 'image' holds a single value throughout in 2 of 12 samples",)
    # masks of ones and token types of zeros are how such inputs look
    masks = [{"mask": np.ones((1, 4), np.int64), "ids": np.array([[i, 1]])} for i in range(9)]
    assert remarks(masks) == ()


@pytest.mark.parametrize("count", [1, 2, 7])
def test_few_samples(count: int) -> None:
    found = remarks(images(0, 1, count))
    assert len(found) == 1
    assert f"{count} sample" in found[0]


def test_labels_of_one_class() -> None:
    assert "all labels are of class 3" in remarks(images(0, 1), [3] * 10)[0]
    assert remarks(images(0, 1), [np.array([3, 4])] * 10) == ()
    assert remarks(images(0, 1), np.arange(10) % 2) == ()


def test_nothing_seen_nothing_said() -> None:
    assert remarks([]) == ()


def test_other_inputs_may_have_any_range() -> None:
    assert remarks([{"x": np.float32([[i, 1e6]]), "y": np.full((1, 2, 3, 4), i + 0.5)} for i in range(9)][:0]) == ()
    assert remarks([{"x": np.float32([[i, 1e6]])} for i in range(9)]) == ()

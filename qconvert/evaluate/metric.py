"""Metric: how good a model's outputs are against labels. Each metric is one file in ``metrics/``.

A metric makes an accumulator for a set of labels; the accumulator is shown the outputs feed by feed and keeps scalars
(or embeddings) a sample, never all outputs, so the evaluation set may be of any size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from qconvert.errors import DataError
from qconvert.evaluate.interval import Scores
from qconvert.graph.session import Feed
from qconvert.registry import Registry

Array = NDArray[np.generic]
Shape = Sequence[int | str | None]


class Accumulator(Protocol):
    """One model's running score."""

    def update(self, outputs: Sequence[Array], feed: Feed, first: int) -> None:
        """Take in one feed's outputs, [n, ...] each; the first is the one that is scored.

        Args:
            outputs: the model's outputs in its own order.
            feed: the inputs they came from.
            first: index in the evaluation set of the feed's first sample.

        Raises:
            DataError: the labels do not fit the outputs.
        """
        ...

    def value(self) -> float:
        """The metric over all samples seen; never NaN: outputs that are NaN give the worst value."""
        ...

    def scores(self) -> Scores | None:
        """A score for each sample seen, [N], whose mean is the metric (in its unit, or as hits: 1 is 100 %); None for
        metrics that are no mean over samples."""
        ...


class Metric(Protocol):
    """A way to score outputs against labels.

    Attributes:
        name: as on the command line.
        higher_is_better: the direction of improvement.
        unit: "%", "dB", or "" for a bare number.
    """

    @property
    def name(self) -> str: ...

    @property
    def higher_is_better(self) -> bool: ...

    @property
    def unit(self) -> str: ...

    def samples_needed(self, labels: Array) -> int:
        """Samples that the evaluation set must hold for these labels."""
        ...

    def start(self, labels: Array) -> Accumulator:
        """A fresh accumulator.

        Raises:
            DataError: labels of this type or shape mean nothing to this metric.
        """
        ...


METRICS: Registry[Metric] = Registry("metric")
METRICS.discover("qconvert.evaluate.metrics")


def infer_metric(labels: Array, output_shapes: Sequence[Shape]) -> str:
    """The metric that labels and output shapes suggest.

    Integer labels [N] with scores [n, C] -> top1; integer labels [N, T] with logits [n, T, V] -> perplexity; float
    labels of the output's shape -> mse.

    Args:
        labels: [N, ...].
        output_shapes: of the model's outputs; only the first counts. Names and None stand for any size.

    Raises:
        DataError: nothing fits; the hint lists the metrics.
    """
    shape = tuple(output_shapes[0]) if output_shapes else ()
    kind = labels.dtype.kind
    if kind in "iu" and labels.ndim == 1 and _is_scores(shape):
        return "top1"
    if kind in "iu" and labels.ndim == 2 and len(shape) == 3 and _may_equal(labels.shape[1], shape[1]):
        return "perplexity"
    if kind == "f" and shape and _same_rows(labels.shape, shape):
        return "mse"
    raise DataError(
        f"no metric can be guessed from {labels.dtype} labels {show(labels.shape)} and a first output {show(shape)}",
        hint=f"name one with --metric: {', '.join(METRICS.names())}",
    )


def rows_for(metric: str, output: Array, labels: Array, first: int) -> Array:
    """The labels of one feed's samples: output [n, ...], labels [N, ...] -> labels[first : first + n].

    Raises:
        DataError: the output has no leading axis, or there are fewer labels than samples.
    """
    if not output.ndim:
        raise DataError(
            f"{metric} expects an output with one row for each sample, got a scalar",
            hint="choose a metric that fits the model's first output",
        )
    last = first + output.shape[0]
    if last > len(labels):
        raise DataError(
            f"{metric} got at least {last} samples but labels for {len(labels)}",
            hint="give one label for each sample of the evaluation data, in the same order",
        )
    return labels[first:last]


def aligned(metric: str, output: Array, labels: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Output and labels of the same samples as float64 [n, width]; axes of size 1 may differ.

    Raises:
        DataError: their shapes differ otherwise.
    """
    if not _same_rows(labels.shape, output.shape):
        raise DataError(
            f"{metric} expects labels of the output's shape {show(output.shape)}, got {show(labels.shape)}",
            hint="check that the labels belong to this model and are laid out alike (NCHW or NHWC)",
        )
    rows = len(output)
    return output.reshape(rows, -1).astype(np.float64), labels.reshape(rows, -1).astype(np.float64)


def wrong_labels(metric: str, labels: Array, expected: str) -> DataError:
    """The error for labels whose type or shape means nothing to a metric."""
    return DataError(
        f"{metric} expects {expected}, got {labels.dtype} labels of shape {show(labels.shape)}",
        hint=f"give such labels, or another --metric ({', '.join(METRICS.names())})",
    )


def show(shape: Shape) -> str:
    """[2, batch, ?] for a shape."""
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"


def _is_scores(shape: tuple[int | str | None, ...]) -> bool:
    return len(shape) >= 2 and shape[1] != 1 and all(_may_equal(1, size) for size in shape[2:])


def _may_equal(size: int, other: int | str | None) -> bool:
    return not isinstance(other, int) or size == other


def _same_rows(labels: Sequence[int], output: Shape) -> bool:
    """Whether [N, ...] and [n, ...] agree beyond the leading axis, axes of size 1 left out."""
    if not labels or not output:
        return False
    if any(not isinstance(size, int) for size in output[1:]):
        return len(labels) == len(output) and all(map(_may_equal, labels[1:], output[1:]))
    return [s for s in labels[1:] if s != 1] == [s for s in output[1:] if s != 1]

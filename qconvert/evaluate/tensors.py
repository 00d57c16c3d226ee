"""Tensor by tensor along the graph: how far two models have drifted apart, and where.

Both models run with the tensors that they have in common (``correspondence``) as outputs; a wide model runs in parts
(``graph/segments.py``). For each sample the two runs advance side by side, so that only what one part makes, and values
whose partner is still to come, are in memory; of the values themselves only sums are kept.

Equalization scales the channels of a tensor and takes that back in the next layer. Such a tensor differs and costs
nothing, so a scale a channel is fitted beside, over all samples, for the channel axis 1, and the last one of matrices:

    a_c = sum r q / sum r^2        noise left = sum_c ( sum q^2 - (sum r q)^2 / sum r^2 )
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qconvert.calibrate.feeds import FeedSet
from qconvert.errors import ModelError
from qconvert.evaluate.correspondence import Pair, candidates, pairs
from qconvert.evaluate.fidelity import TensorSums, sqnr_db
from qconvert.graph.build_view import view_of
from qconvert.graph.footprint import value_bytes
from qconvert.graph.infer import infer_types
from qconvert.graph.model import Model
from qconvert.graph.optimized import named
from qconvert.graph.segments import Observer
from qconvert.graph.session import Feed
from qconvert.progress import Progress

# A sample of ResNet-50 takes about a second. Six draws of 32 samples from the evaluation sets of ResNet-8, MobileNetV1
# and DS-CNN: half of the tensors stay within 1.2 dB, single ones move by 5 to 14 dB. The outputs are compared on all.
_MOST_SAMPLES = 32
_BUDGET = 32 << 20
# A tensor counts as rescaled where a scale a channel explains nearly all of the difference.
_EXPLAINED_DB = 6.0
_ALIKE_DB = 20.0
_MATRICES = 3  # rank of a batch of matrices: tokens by features

Value = NDArray[np.generic]


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorFidelity:
    """One tensor of the reference against its partner.

    Attributes:
        name: its name in the reference.
        other: the name of its partner.
        op_type: operator that makes it in the reference.
        sqnr_db: SQNR in dB, pooled over the samples; inf when nothing differs; None when the shapes never agree.
        cosine: mean over samples of the cosine of the two.
        max_abs_error: largest difference.
        reference_range: least and greatest finite value of the reference; None when there is none.
        elements: elements compared.
        shape_mismatches: samples where the shapes differ.
        rescaled: the partner holds the same values with another scale for each channel, as equalization leaves them;
            sqnr_db and cosine then say nothing.
        fitted_sqnr_db: SQNR with such scales allowed for, dB; sqnr_db where that is greater.
    """

    name: str
    other: str
    op_type: str
    sqnr_db: float | None
    cosine: float | None
    max_abs_error: float
    reference_range: tuple[float, float] | None
    elements: int
    shape_mismatches: int
    rescaled: bool
    fitted_sqnr_db: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorComparison:
    """All tensors that the two models have in common.

    Attributes:
        tensors: in the order of the reference's graph.
        unmatched: tensors of the reference that have no partner: inside what the other model fuses, or renamed.
        samples: how many were run.
    """

    tensors: tuple[TensorFidelity, ...]
    unmatched: tuple[str, ...]
    samples: int

    @property
    def worst(self) -> TensorFidelity | None:
        """The tensor with the least SQNR, rescaled ones judged by the fitted one."""
        known = [t for t in self.tensors if t.fitted_sqnr_db is not None]
        return min(known, key=lambda t: t.fitted_sqnr_db or 0.0, default=None)


def compare_tensors(
    reference: Model, other: Model, samples: FeedSet, progress: Progress, *, budget: int = _BUDGET
) -> TensorComparison:
    """Compare the tensors that two models have in common, on up to 32 samples spread over ``samples``.

    Args:
        reference, other: any models that take the same inputs.
        samples: what to run them on.
        progress: told of every sample.
        budget: bytes of activations that a part of a model may make.

    Raises:
        ModelError: a model cannot be run with its tensors as outputs.
    """
    reference, other = _typed(reference), _typed(other)
    graph = view_of(reference)
    found = pairs(graph, view_of(other))
    matched = {pair.reference.name for pair in found}
    unmatched = tuple(c.name for c in candidates(graph) if c.name not in matched)
    if not found:
        return TensorComparison(tensors=(), unmatched=unmatched, samples=0)
    count = min(_MOST_SAMPLES, len(samples))
    chosen = samples.take((2 * i + 1) * len(samples) // (2 * count) for i in range(count))
    left, right = [p.reference.name for p in found], [p.other.name for p in found]
    first = chosen.feed(0)
    runs = _observer(reference, left, first, budget), _observer(other, right, first, budget)
    sums = [_Sums(pair) for pair in found]
    seen = 0
    for feed in progress.track(iter(chosen), label="tensors", total=len(chosen)):
        values = side_by_side(runs[0].run(feed), runs[1].run(feed), list(zip(left, right, strict=True)))
        for one, (expected, got) in zip(sums, values, strict=True):
            one.update(expected, got)
        seen += 1
    return TensorComparison(tensors=tuple(s.result() for s in sums), unmatched=unmatched, samples=seen)


def side_by_side(
    first: Iterator[tuple[str, Value]], second: Iterator[tuple[str, Value]], names: Sequence[tuple[str, str]]
) -> Iterator[tuple[Value, Value]]:
    """The values of each pair of ``names``, one from either run, as soon as both are there; early ones wait."""
    waiting: tuple[dict[str, Value], dict[str, Value]] = {}, {}
    for wanted in names:
        for name, run, early in zip(wanted, (first, second), waiting, strict=True):
            while name not in early:
                made, value = next(run)
                early[made] = value
        yield waiting[0].pop(wanted[0]), waiting[1].pop(wanted[1])


def _typed(model: Model) -> Model:
    """A copy whose nodes have names of their own, and whose values have types and shapes where they can be known."""
    copy = named(model)
    infer_types(copy)
    return copy


def _observer(model: Model, names: Sequence[str], feed: Feed, budget: int) -> Observer:
    return Observer(model, names, sizes=value_bytes(model, names, feed), budget=budget, threads=0)


class _Sums:
    """The running sums of one pair of tensors."""

    def __init__(self, pair: Pair) -> None:
        self._pair = pair
        self._sums = TensorSums(pair.reference.name)
        self._fits = [_ChannelFit(1), _ChannelFit(-1)]

    def update(self, reference: Value, other: Value) -> None:
        """Take in the values of one sample."""
        left, right = (
            value if candidate.scale is None else candidate.scale.read(value)
            for candidate, value in ((self._pair.reference, reference), (self._pair.other, other))
        )
        self._sums.update(left, right)
        if left.shape == right.shape and left.dtype.kind == right.dtype.kind == "f":
            for fit in self._fits:
                fit.update(left, right)

    def result(self) -> TensorFidelity:
        """What the sums say."""
        found = self._sums.result()
        compared = found.numeric and found.elements > 0
        fitted = max((fit.sqnr_db() for fit in self._fits), default=-math.inf)
        plain = found.sqnr_db if compared else None
        rescaled = plain is not None and fitted > plain + _EXPLAINED_DB and fitted > _ALIKE_DB
        return TensorFidelity(
            name=self._pair.reference.name,
            other=self._pair.other.name,
            op_type=self._pair.reference.op_type,
            sqnr_db=plain,
            cosine=found.cosine if compared else None,
            max_abs_error=found.max_abs_error,
            reference_range=found.reference_range,
            elements=found.elements,
            shape_mismatches=found.shape_mismatches,
            rescaled=rescaled,
            fitted_sqnr_db=fitted if rescaled else plain,
        )


class _ChannelFit:
    """Sums of r^2, r q and q^2 for each channel; given up where the number of channels changes."""

    def __init__(self, axis: int) -> None:
        self._axis = axis
        self._sums: NDArray[np.float64] | None = None
        self._fits = True

    def update(self, reference: Value, other: Value) -> None:
        """Take in arrays of one shape."""
        # the last axis of an image holds no channels, and going through it is slow
        if not self._fits or reference.ndim < 2 or (self._axis < 0 and reference.ndim > _MATRICES):
            self._fits = False
            return
        r, q = (
            np.moveaxis(a, self._axis, 0).reshape(a.shape[self._axis], -1).astype(np.float64)
            for a in (reference, other)
        )
        both = np.isfinite(r) & np.isfinite(q)
        r, q = np.where(both, r, 0.0), np.where(both, q, 0.0)
        new = np.stack([np.einsum("cw,cw->c", a, b) for a, b in ((r, r), (r, q), (q, q))])
        if self._sums is not None and self._sums.shape != new.shape:
            self._fits = False
        else:
            self._sums = new if self._sums is None else self._sums + new

    def sqnr_db(self) -> float:
        """SQNR in dB of the other model's values with the best scale for each channel."""
        if not self._fits or self._sums is None:
            return -math.inf
        rr, rq, qq = self._sums
        explained = np.divide(rq * rq, rr, out=np.zeros_like(rr), where=rr > 0)
        # differences of sums of squares are exact to about 1e-15 of the sums
        noise = np.maximum(qq - explained, 1e-15 * qq)
        return sqnr_db(float(explained.sum()), float(noise.sum()))


def unobservable(error: ModelError) -> str:
    """A note for the report."""
    return f"the models could not be compared tensor by tensor: {error.message}"

"""Whether a recovery pass has helped: the quantized model against the float one on samples that the pass has not seen.

    SQNR of one output of one sample = 10 log10( sum r^2 / sum (r - q)^2 ),  at most CEILING_DB
    mean     over samples and outputs of these
    pooled   sums over all samples first; over outputs, the mean of noise to signal

    score    half the sum of both; where Softmax or Sigmoid squash an output, the mean of that before and behind them

Each alone errs: pooled figures hang on the few samples that lose most (of a classifier, those between two classes), the
mean of a model with one number as its output on those that happen to lose least, and what is squashed shows little of
what changes on most samples, though it is what the user gets. Of 154 passes on 40 models, those that the score keeps
gain 107 dB together on 150 other samples, pooled; by the mean before squashing alone it was 99, by the best choice for
each 143 (docs/decisions/0011).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from qconvert.graph.session import Feed, Session
from qconvert.recover.samples import Samples

# Beyond, float32 sums differ by as much as any rounding.
CEILING_DB = 100.0

# A gain below this is within what a few samples can tell.
MIN_GAIN_DB = 0.1

# Outputs of the reference that are kept between scores.
KEPT_BYTES = 1 << 26


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Mean and pooled SQNR in dB, as above."""

    mean_db: float
    pooled_db: float

    @property
    def db(self) -> float:
        """What decides."""
        return (self.mean_db + self.pooled_db) / 2

    def better_than(self, other: Score) -> bool:
        """Whether this is worth having instead of ``other``."""
        return self.db - other.db >= MIN_GAIN_DB


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """Scores quantized models against one reference.

    Attributes:
        reference: the float model.
        samples: what both are run on.
        held_out: whether the passes see none of them.
        sides: the numbers of the float outputs before squashing, and behind it
            (:func:`qconvert.graph.tails.both_sides`); all of them if not given.
    """

    reference: Session
    samples: Samples
    held_out: bool
    sides: tuple[tuple[int, ...], ...] = ()
    _kept: dict[int, list[NDArray[np.generic]]] = field(default_factory=dict)

    def is_repeatable(self) -> bool:
        """Whether the reference gives the same outputs twice; random numbers cannot be compared."""
        feed, names = next(iter(self.samples)), _names(self.reference)
        first, second = self.reference.run(feed, names), self.reference.run(feed, names)
        return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(first, second, strict=True))

    def score(self, quantized: Session) -> Score:
        """The score of ``quantized``, whose outputs are the reference's in the same order.

        Raises:
            ModelError: it does not run.
        """
        names, theirs = _names(self.reference), _names(quantized)
        every: list[list[float]] = [[] for _ in names]
        signal, noise = np.zeros(len(names)), np.zeros(len(names))
        for number, feed in enumerate(self.samples):
            pairs = zip(self._expected(number, feed, names), quantized.run(feed, theirs), strict=True)
            for i, (r, q) in enumerate(pairs):
                energy, error = _energies(np.asarray(r, np.float64), np.asarray(q, np.float64))
                every[i] += [_db(s, n) for s, n in zip(energy, error, strict=True)]
                signal[i] += sum(energy)
                noise[i] += sum(error)
        ratios = [n / s if s > 0 else (math.inf if n > 0 else 0.0) for s, n in zip(signal, noise, strict=True)]
        sides = self.sides or (tuple(range(len(names))),)
        return Score(
            mean_db=_mean([_mean([db for i in side for db in every[i]]) for side in sides]),
            pooled_db=_mean([_db(1.0, _mean([ratios[i] for i in side], 0.0)) for side in sides]),
        )

    def _expected(self, number: int, feed: Feed, names: Sequence[str]) -> list[NDArray[np.generic]]:
        """The reference's outputs for a sample; kept, if they are small, for the next score."""
        if number not in self._kept:
            outputs = self.reference.run(feed, names)
            if sum(a.nbytes for a in outputs) * len(self.samples) > KEPT_BYTES:
                return outputs
            self._kept[number] = outputs
        return self._kept[number]


def _mean(values: Sequence[float], otherwise: float = CEILING_DB) -> float:
    return sum(values) / len(values) if values else otherwise


def _names(session: Session) -> list[str]:
    return [spec.name for spec in session.outputs if spec.dtype.startswith("float")]


def _energies(r: NDArray[np.float64], q: NDArray[np.float64]) -> tuple[Sequence[float], Sequence[float]]:
    """(sum r^2, sum (r - q)^2) of each row of the leading axis; all error where the shapes differ."""
    rows = r.shape[0] if r.ndim else 1
    r = np.nan_to_num(r.reshape(rows, -1), posinf=0.0, neginf=0.0)
    if r.size != q.size:
        energy = (r**2).sum(axis=1)
        return energy.tolist(), energy.tolist()
    q = np.nan_to_num(q.reshape(rows, -1), posinf=0.0, neginf=0.0)
    return (r**2).sum(axis=1).tolist(), ((r - q) ** 2).sum(axis=1).tolist()


def _db(signal: float, noise: float) -> float:
    if noise <= signal * 10.0 ** (-CEILING_DB / 10.0):
        return CEILING_DB
    return max(-CEILING_DB, 10.0 * math.log10(signal / noise)) if signal > 0 and math.isfinite(noise) else -CEILING_DB

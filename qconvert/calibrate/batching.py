"""Several samples in one run, where that changes nothing.

What a model computes of a sample should not depend on the samples beside it, but in floating point it may: kernels
sum in another order for another shape. So a batch size is used only if, on real samples, every watched value of the
batch is bit for bit what the samples give one by one. Kernels choose their order by shape and not by value, so what
holds for one batch of a shape holds for all of them; other shapes, and what is left over, run one by one.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from qconvert.errors import ModelError
from qconvert.graph.segments import Observer
from qconvert.graph.session import Feed, IOSpec

# A batch has to save at least this share of the time, or it only takes memory.
_WORTH = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Batching:
    """Which samples may share a run.

    Attributes:
        size: samples in a run; 1 means one by one.
        shapes: the shapes of the feeds that this was tried on.
    """

    size: int = 1
    shapes: tuple[tuple[str, tuple[int, ...]], ...] = ()

    def groups(self, items: Iterator[tuple[int, Feed]]) -> Iterator[tuple[tuple[int, ...], Feed]]:
        """(numbers of the samples, one feed for all of them); a full batch, or a single sample."""
        waiting: list[tuple[int, Feed]] = []
        for number, feed in items:
            if self.size == 1 or shapes_of(feed) != self.shapes:
                yield (number,), feed
                continue
            waiting.append((number, feed))
            if len(waiting) == self.size:
                yield tuple(n for n, _ in waiting), stacked([f for _, f in waiting])
                waiting.clear()
        yield from (((number,), feed) for number, feed in waiting)


def shapes_of(feed: Feed) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """The shapes of a feed, to compare."""
    return tuple((name, tuple(feed[name].shape)) for name in sorted(feed))


def stacked(feeds: Sequence[Feed]) -> Feed:
    """One feed of several: each input [1, ...] becomes [n, ...]."""
    return {name: np.concatenate([f[name] for f in feeds]) for name in feeds[0]}


def can_batch(inputs: Sequence[IOSpec], feed: Feed) -> bool:
    """Whether every input has a free batch axis in front, with one row in ``feed``."""
    free = all(spec.shape and not isinstance(spec.shape[0], int) for spec in inputs)
    return free and all(feed[spec.name].ndim > 0 and feed[spec.name].shape[0] == 1 for spec in inputs)


def try_batch(observer: Observer, feeds: Sequence[Feed]) -> Batching:
    """A batch of ``feeds``, samples of one shape, if it gives the same bits in less time; else one by one."""
    single = Batching()
    if len(feeds) < 2:
        return single
    try:
        alone = [_digests(observer, f, 1) for f in feeds]
        start = time.perf_counter()
        for feed in feeds:
            for _ in observer.run(feed):
                pass
        one_by_one = time.perf_counter() - start
        both = stacked(feeds)
        together = _digests(observer, both, len(feeds))
        start = time.perf_counter()
        for _ in observer.run(both):
            pass
        at_once = time.perf_counter() - start
    except (ModelError, ValueError):
        return single
    same = all(
        {name: rows[0] for name, rows in a.items()} == {n: r[i] for n, r in together.items()}
        for i, a in enumerate(alone)
    )
    return Batching(size=len(feeds), shapes=shapes_of(feeds[0])) if same and at_once < _WORTH * one_by_one else single


def _digests(observer: Observer, feed: Feed, rows: int) -> dict[str, list[bytes]]:
    """A digest of each of ``rows`` equal parts of every watched value.

    Raises:
        ValueError: a value has no such parts.
    """
    found = {}
    for name, value in observer.run(feed):
        parts = np.ascontiguousarray(value).reshape(rows, -1)
        found[name] = [hashlib.blake2b(part.tobytes(), digest_size=16).digest() for part in parts]
    return found

"""Which calibration samples a recovery pass sees, and which judge it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from typing import Protocol

from qconvert.graph.session import Feed

# A quarter judges, 32 at most: enough to tell a gain of some tenths of a dB, and every pass costs a run over them.
_JUDGING_SHARE = 4
_JUDGING_MOST = 32


class Feeds(Protocol):
    """Inputs of a model, one sample each; they can be gone through again and again."""

    def __iter__(self) -> Iterator[Feed]:
        """All of them, in order."""
        ...

    def feed(self, i: int) -> Feed:
        """The i-th."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Some of ``feeds``: those whose numbers are ``indices``, which ascend. Nothing is read before it is asked for."""

    feeds: Feeds
    indices: Sequence[int]

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[Feed]:
        if isinstance(self.feeds, Sized):  # picking one costs no more than going on to it
            yield from (self.feeds.feed(i) for i in self.indices)
            return
        wanted = set(self.indices)
        last = max(wanted, default=-1)
        for i, feed in enumerate(self.feeds):
            if i in wanted:
                yield feed
            if i >= last:
                return

    def first(self, count: int) -> Samples:
        """``count`` of them at most, spread evenly."""
        total = len(self.indices)
        if count >= total:
            return self
        return Samples(
            feeds=self.feeds, indices=[self.indices[(2 * j + 1) * total // (2 * count)] for j in range(count)]
        )


def seen_and_judging(feeds: Feeds) -> tuple[Samples, Samples]:
    """(samples that a pass may see, samples that judge it), disjoint; the same one where there is only one."""
    total = len(feeds) if isinstance(feeds, Sized) else _count(feeds)
    count = min(_JUDGING_MOST, max(1, total // _JUDGING_SHARE))
    judging = {(2 * j + 1) * total // (2 * count) for j in range(count)}
    seen = [i for i in range(total) if i not in judging] or sorted(judging)
    return Samples(feeds=feeds, indices=seen), Samples(feeds=feeds, indices=sorted(judging))


def _count(feeds: Iterable[Feed]) -> int:
    return sum(1 for _ in feeds)

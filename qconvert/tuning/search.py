"""Which placements to try: the cheapest that keeps the budget by bisection, then others to picture the front.

Corners are in the order of falling noise, so whether they keep a budget changes once, as far as noise tells. A budget
of SQNR also tells where to begin: at the first corner whose expected noise, scaled by what the first corner's was found
to be, keeps it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field

from qconvert.plan.tradeoff import Corner, Tradeoff

# Corners to choose from; neighbours of so many differ by less than a measurement tells.
_CORNERS = 48

Try = Callable[[int], bool]
"""Makes and measures a corner; whether it keeps the budget."""


@dataclass(slots=True, kw_only=True)
class Search:
    """A search in progress.

    Attributes:
        count: how many corners there are; 0 has been tried, and missed the budget if there is one.
        attempt: makes and measures a corner.
        may_go_on: whether there is time for another.
        tried: what came of each.
        complete: it was not cut short.
    """

    count: int
    attempt: Try
    may_go_on: Callable[[], bool]
    tried: dict[int, bool] = field(default_factory=dict)
    complete: bool = True

    def cheapest(self, guess: int | None = None) -> None:
        """Find the first corner that keeps the budget; ``guess`` is tried first."""
        low, high = 0, self.count
        first = [guess, guess - 1] if guess is not None else []  # a good guess is right: nothing before it will do
        while high - low > 1:
            begin = first.pop(0) if first else 0
            middle = begin if low < begin < high else (low + high) // 2
            kept = self._try(middle)
            if kept is None:
                return
            low, high = (low, middle) if kept else (middle, high)

    def picture(self, points: int) -> None:
        """Try corners until ``points`` have been, each in the middle of the widest gap."""
        while len(self.tried) < min(points, self.count):
            known = [-1, *sorted(self.tried), self.count]
            low, high = max(itertools.pairwise(known), key=lambda gap: gap[1] - gap[0])
            if high == self.count and self.count - 1 not in self.tried:
                low, high = self.count - 2, self.count  # the last corner before the middle of a gap that it ends
            if self._try((low + high) // 2) is None:
                return

    def _try(self, corner: int) -> bool | None:
        if corner in self.tried:
            return self.tried[corner]
        if not self.may_go_on():
            self.complete = False
            return None
        self.tried[corner] = self.attempt(corner)
        return self.tried[corner]


def corners_of(tradeoff: Tradeoff, weighted: Set[str]) -> list[Corner]:
    """The placements of ``tradeoff`` in the order of falling noise, without those that leave none of ``weighted``, the
    operators with weights, on integers.

    Where everything in float costs little more, there are few others before it; what has less noise than these then
    comes from wary costs.
    """
    first, *others = tradeoff.corners(_CORNERS)
    found = [first, *(c for c in others if c.integer & weighted)]
    if tradeoff.measured is None:  # estimates are as wary as can be
        return found
    wary = tradeoff.corners(_CORNERS, wary=True)
    return [*found, *(c for c in wary if c.noise < found[-1].noise and c.integer & weighted)]


def noise_at(db: float) -> float:
    """Noise as a share of the signal's power at an SQNR of ``db``."""
    return float(10.0 ** (-db / 10.0))


def expected(noises: Sequence[float], found: float, limit: float) -> int | None:
    """The first corner whose noise is at most ``limit``, where corner 0 was found to have ``found``; None if none."""
    if not noises or noises[0] <= 0:
        return None
    scale = found / noises[0]
    return next((i for i, noise in enumerate(noises) if noise * scale <= limit), None)

"""What all weights that a scheme stored lost together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

# Numbers that are compared at once.
_PART = 1 << 22


@dataclass(slots=True, kw_only=True)
class Tally:
    """Sums over weights.

    Attributes:
        weights, count: how many, of how many numbers.
        zeros: exact zeros before and after.
        lost: zeros that are none any more.
        energy: sum of squares of the weights, and of what was lost of them.
    """

    weights: int = 0
    count: int = 0
    zeros: list[int] = field(default_factory=lambda: [0, 0])
    lost: int = 0
    energy: list[float] = field(default_factory=lambda: [0.0, 0.0])

    def add(self, before: NDArray[np.floating], after: NDArray[np.floating]) -> None:
        """Count (a part of) a weight, of any shape, and what is stored in its place."""
        self.count += before.size
        kept = before != 0
        stored = after != 0
        for i, array in enumerate((kept, stored)):
            self.zeros[i] += before.size - int(np.count_nonzero(array))
        self.lost += int(np.count_nonzero(stored & ~kept))
        self.energy[0] += float(np.vdot(before, before))
        difference = before - after
        self.energy[1] += float(np.vdot(difference, difference))

    def add_rows(self, before: NDArray[np.floating], after: Callable[[int, int], NDArray[np.floating]]) -> None:
        """Count a weight [N, K], perhaps a view of a file; ``after`` gives rows from, to of what is stored."""
        step = max(1, _PART // max(1, before.shape[1]))
        for start in range(0, len(before), step):
            part = np.ascontiguousarray(before[start : start + step], np.float32)
            self.add(part, after(start, start + len(part)))
        self.weights += 1

    def notes(self) -> tuple[str, ...]:
        """In words: how exact, and how sparse."""
        if not self.weights:
            return ()
        signal, noise = self.energy
        exact = "exact" if not noise else f"SQNR {10 * np.log10(max(signal, 1e-30) / noise):.1f} dB"
        return (
            f"{self.weights} weights of {self.count:,} numbers, {exact} against the float ones",
            *self.sparsity(),
        )

    def sparsity(self) -> tuple[str, ...]:
        """The sparsity, where there is any."""
        if not self.zeros[0]:
            return ()
        before, after = (100 * z / self.count for z in self.zeros)
        if before < 1 and not self.lost:
            return ()
        lost = f"; {self.lost:,} zeros are none any more" if self.lost else ""
        return (f"sparsity: {before:.1f} % of the weights are zero, {after:.1f} % of the stored ones{lost}",)

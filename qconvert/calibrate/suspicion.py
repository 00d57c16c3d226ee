"""What looks wrong with a data set that fits the model: ``Suspicion`` watches the feeds of a pass and costs next to
nothing: the least and the greatest value of each array, and a comparison with the first sample until one differs.

The bounds that an image (a float input of rank 4 with 1 or 3 channels) is expected to keep to:

    0..1          divided by 255
    -5..5         normalised by mean and deviation; ImageNet's reach from -2.1 to 2.6
    -128..255     pixels, or pixels with a mean subtracted
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from qconvert.graph.session import Feed

_FEW = 8  # the report's percentiles of activations still move by tens of percent below
_NORMALISED = 5.0
_PIXELS = (-128.0, 255.0)


@dataclass(slots=True, kw_only=True)
class _Input:
    """What was seen of one input."""

    image: bool
    low: float = np.inf
    high: float = -np.inf
    constant: int = 0  # samples that hold one value throughout
    unit: int = 0  # samples within 0..1, but for constant ones
    large: int = 0  # samples that leave -5..5


@dataclass(slots=True)
class Suspicion:
    """Watches the feeds of one pass.

    Attributes:
        samples: how many were seen.
    """

    samples: int = 0
    _first: dict[str, NDArray[np.generic]] = field(default_factory=dict, repr=False)
    _equal: bool = True
    _inputs: dict[str, _Input] = field(default_factory=dict, repr=False)
    _classes: set[int] = field(default_factory=set, repr=False)

    def see(self, index: int, feed: Feed, label: object = None) -> None:
        """Look at a feed.

        Args:
            index: the sample's number.
            feed: its inputs.
            label: its class number, or the class numbers of its rows; None where unknown.
        """
        del index
        if self.samples == 0:
            self._first = {name: np.array(array) for name, array in feed.items()}
        elif self._equal and not _same(feed, self._first):
            self._equal, self._first = False, {}
        self.samples += 1
        if label is not None and len(self._classes) < 2:
            self._classes.update(int(number) for number in np.ravel(np.asarray(label)))
        for name, array in feed.items():
            if array.dtype.kind == "f" and array.size > 1:
                self._look(name, array)

    def _look(self, name: str, array: NDArray[np.generic]) -> None:
        seen = self._inputs.setdefault(name, _Input(image=_is_image(array.shape)))
        low, high = float(array.min()), float(array.max())
        seen.low, seen.high = min(seen.low, low), max(seen.high, high)
        if low == high:
            seen.constant += 1
        elif low >= 0 and high <= 1:
            seen.unit += 1
        elif max(-low, high) > _NORMALISED:
            seen.large += 1

    def remarks(self) -> tuple[str, ...]:
        """What looks wrong, a sentence each; () where nothing does."""
        if self.samples == 0:
            return ()
        found = []
        if self.samples < _FEW:
            found.append(
                f"there {_are(self.samples, 'sample')} only: ranges learned from so few may not hold; 100 are plenty"
            )
        if self.samples > 1 and self._equal:
            found.append(f"all {self.samples} samples are equal: was one file copied?")
        for name, seen in self._inputs.items():
            found += self._remarks(name, seen)
        if len(self._classes) == 1 and self.samples > 1:
            found.append(
                f"all labels are of class {next(iter(self._classes))}: samples of every class make better ranges, and "
                "accuracy on one class says little"
            )
        return tuple(found)

    def _remarks(self, name: str, seen: _Input) -> list[str]:
        spoken = f"{seen.low:.6g}..{seen.high:.6g}"
        if seen.low == seen.high:
            return [f"input {name!r} is {seen.low:.6g} throughout, in every sample: nothing can be learned from it"]
        found = []
        if seen.constant:
            found.append(f"input {name!r} holds a single value throughout in {seen.constant} of {self.samples} samples")
        if seen.image and (seen.low < _PIXELS[0] or seen.high > _PIXELS[1]):
            found.append(
                f"input {name!r} looks like an image, but its values are {spoken}: neither 0..1, nor normalised, nor "
                "pixels 0..255"
            )
        elif seen.image and seen.unit and seen.large:
            found.append(
                f"input {name!r} is within 0..1 in {seen.unit} of {self.samples} samples, while others reach {spoken}: "
                "were they scaled alike?"
            )
        return found


def _same(feed: Feed, first: Feed) -> bool:
    return all(np.array_equal(array, first[name]) for name, array in feed.items() if name in first)


def _is_image(shape: tuple[int, ...]) -> bool:
    return len(shape) == 4 and (shape[1] in (1, 3) or shape[3] in (1, 3)) and max(shape[1:]) >= 8


def _are(count: int, what: str) -> str:
    return f"is {count} {what}" if count == 1 else f"are {count} {what}s"

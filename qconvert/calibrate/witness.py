"""What passes by on the way to calibration: a digest of the data, and how many samples there were."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from qconvert.calibrate.feeds import FeedSet
from qconvert.calibrate.suspicion import Suspicion
from qconvert.graph.session import Feed

# Digests of samples are added modulo this, so that their order does not matter.
MODULUS = 1 << 256


@dataclass(slots=True, kw_only=True)
class Witness:
    """Sees every sample once.

    Attributes:
        suspicion: looks for what is wrong with the set.
        total: sum modulo 2**256 of the samples' digests, which neither order nor splitting changes.
        samples: how many there were.
    """

    suspicion: Suspicion
    total: int = 0
    samples: int = 0

    @property
    def digest(self) -> str:
        """The digest of the set, 64 hexadecimal digits."""
        return f"{self.total:064x}"

    def watch(self, feeds: Iterable[Feed]) -> Iterator[Feed]:
        """Hand on ``feeds``, each once it has been seen."""
        labels = feeds.labels if isinstance(feeds, FeedSet) else None
        numbered = feeds.items() if isinstance(feeds, FeedSet) else enumerate(feeds)
        for number, feed in numbered:
            self.total = (self.total + int.from_bytes(digest_of(feed), "big")) % MODULUS
            self.suspicion.see(number, feed, None if labels is None else labels[number])
            self.samples += 1
            yield feed


def digest_of(feed: Feed) -> bytes:
    """32 bytes that stand for the names, types, shapes and values of a feed."""
    hashed = hashlib.blake2b(digest_size=32)
    for name in sorted(feed):
        array = np.ascontiguousarray(feed[name])
        hashed.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        hashed.update(array.tobytes() if array.dtype.hasobject else array.reshape(-1).view(np.uint8).data)
    return hashed.digest()

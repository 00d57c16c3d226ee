"""What a broken download, a bad disk or an attacker makes of a file, as functions of the bytes and a seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

Mutation = Callable[[bytes, np.random.Generator], bytes]

# what length fields, counts and shapes are made absurd with: ends of 7, 31, 32, 63 and 64 bits
_EXTREMES = (
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\xff" * 8,
    b"\xff\xff\xff\x7f",
    b"\x00\x00\x00\x80",
    b"\x7f",
)


def truncated(data: bytes, rng: np.random.Generator) -> bytes:
    """The beginning of the file."""
    return data[: int(rng.integers(0, len(data)))]


def flipped(data: bytes, rng: np.random.Generator) -> bytes:
    """One to eight bits the other way."""
    bad = bytearray(data)
    for _ in range(int(rng.integers(1, 9))):
        bad[int(rng.integers(0, len(bad)))] ^= 1 << int(rng.integers(0, 8))
    return bytes(bad)


def extreme(data: bytes, rng: np.random.Generator) -> bytes:
    """Some bytes replaced by the ends of the range of a number."""
    at = int(rng.integers(0, len(data)))
    value = _EXTREMES[int(rng.integers(0, len(_EXTREMES)))]
    return data[:at] + value + data[at + len(value) :]


def spliced(data: bytes, rng: np.random.Generator) -> bytes:
    """A piece of the file moved over another place of it."""
    size = int(rng.integers(1, max(2, len(data) // 4)))
    source, to = (int(rng.integers(0, len(data))) for _ in range(2))
    return data[:to] + data[source : source + size] + data[to + size :]


def repeated(data: bytes, rng: np.random.Generator) -> bytes:
    """A piece of the file many times over."""
    at, size = int(rng.integers(0, len(data))), int(rng.integers(1, 64))
    return data[:at] + data[at : at + size] * int(rng.integers(2, 200)) + data[at:]


MUTATIONS: Mapping[str, Mutation] = {m.__name__: m for m in (truncated, flipped, flipped, extreme, spliced, repeated)}

"""Weights in blocks of few bits: codes, scales and zero points of a matrix whose rows are output channels.

    w[n, k] = scale[n, b] * (code[n, k] - zero[n, b]),    b = k // block,    code in 0 .. 2**bits - 1

    symmetric     zero = 2**(bits - 1)        scale = max(hi / (2**(bits - 1) - 1), -lo / 2**(bits - 1))
    asymmetric    zero = round(-lo / scale)   scale = (hi - lo) / (2**bits - 1)

with lo <= 0 <= hi, so that zero has a code of its own and zeros stay zeros. A row whose length is no multiple of the
block ends in a shorter block. Zero points are whole numbers: ONNX Runtime takes fractional ones, too, but computes them
40 times slower (0.3 ms for 7 us, [1, 512] x [512, 512], version 1.32).

Packing: 8 / bits codes a byte along a row, the first one in the low bits, as MatMulNBits, GatherBlockQuantized and
ONNX's 4- and 2-bit types have it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from qconvert.errors import InternalError

Rows = NDArray[np.float32]
"""[N, K]: a row for each output channel."""
Ends = NDArray[np.floating]
"""Least or greatest values of blocks, [N, B]."""
_Number = TypeVar("_Number", np.float32, np.uint8)

BITS = (2, 4, 8)
# A block of zeros, or of values too small for a float32 scale.
_EMPTY = np.float32(1.0)
_LEAST_SCALE = 1e-30
# Weights that are worked on at a time.
_PART = 1 << 18


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockSpec:
    """How a weight is stored.

    Attributes:
        bits: 2, 4 or 8.
        block: weights of a row that share a scale; 0: the whole row.
        symmetric: the zero point is the middle code.
    """

    bits: int
    block: int
    symmetric: bool

    def __post_init__(self) -> None:
        if self.bits not in BITS or self.block < 0:
            raise InternalError(f"there are no blocks of {self.block} with {self.bits} bits")

    @property
    def top(self) -> int:
        """The greatest code."""
        return int(2**self.bits - 1)

    @property
    def middle(self) -> int:
        """The zero point of symmetric codes."""
        return int(2 ** (self.bits - 1))

    def size(self, columns: int) -> int:
        """Length of a block in rows of ``columns``."""
        return self.block or max(1, columns)

    def blocks(self, columns: int) -> int:
        """Blocks of a row of ``columns``."""
        return -(-columns // self.size(columns))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BlockCodes:
    """A stored weight: codes [N, K] uint8, scale [N, B] float32, zero [N, B] uint8."""

    spec: BlockSpec
    codes: NDArray[np.uint8]
    scale: NDArray[np.float32]
    zero: NDArray[np.uint8]

    def real(self) -> Rows:
        """What the codes stand for, [N, K]."""
        found: Rows = np.empty(self.codes.shape, np.float32)
        columns = self.codes.shape[1]
        for part in parts_of(self.codes.shape):
            real = found[part]
            np.subtract(self.codes[part], _along_rows(self.zero[part], columns, self.spec), out=real, dtype=np.float32)
            real *= _along_rows(self.scale[part], columns, self.spec)
        return found


def in_blocks(rows: NDArray[_Number], spec: BlockSpec) -> NDArray[_Number]:
    """[N, K] -> [N, B, size], the last block filled up with zeros."""
    size, count = spec.size(rows.shape[1]), spec.blocks(rows.shape[1])
    missing = size * count - rows.shape[1]
    padded = np.pad(rows, ((0, 0), (0, missing))) if missing else rows
    return padded.reshape(rows.shape[0], count, size)


def ends_of(rows: NDArray[np.floating], spec: BlockSpec) -> tuple[Ends, Ends]:
    """(least, greatest) of each block and of zero, [N, B] each."""
    blocks = in_blocks(rows, spec)
    return np.minimum(blocks.min(axis=2, initial=0.0), 0.0), np.maximum(blocks.max(axis=2, initial=0.0), 0.0)


def parameters(lo: Ends, hi: Ends, spec: BlockSpec) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """(scale, zero point) of blocks that reach from ``lo`` <= 0 to ``hi`` >= 0; same shapes."""
    if spec.symmetric:
        raw = np.maximum(hi / (spec.middle - 1), -lo / spec.middle)
        zero = np.full(raw.shape, spec.middle, np.uint8)
    else:
        raw = (hi - lo) / spec.top
        safe = np.where(raw < _LEAST_SCALE, 1.0, raw)
        zero = np.clip(np.rint(-lo / safe), 0, spec.top).astype(np.uint8)
    return np.where(raw < _LEAST_SCALE, _EMPTY, raw).astype(np.float32), zero


def encode(
    rows: NDArray[np.floating], scale: NDArray[np.float32], zero: NDArray[np.uint8], spec: BlockSpec
) -> BlockCodes:
    """``rows`` [N, K] rounded to the nearest codes of the given blocks."""
    codes = np.empty(rows.shape, np.uint8)
    for part in parts_of(rows.shape):
        each = np.divide(rows[part], _along_rows(scale[part], rows.shape[1], spec))
        np.rint(each, out=each)
        each += _along_rows(zero[part], rows.shape[1], spec)
        np.clip(each, 0, spec.top, out=each)
        codes[part] = each
    return BlockCodes(spec=spec, codes=codes, scale=scale, zero=zero)


def parts_of(shape: tuple[int, ...]) -> Iterator[slice]:
    """Rows of a matrix of ``shape`` in parts that stay in a processor's cache."""
    step = max(1, _PART // max(1, shape[1]))
    return (slice(i, i + step) for i in range(0, shape[0], step))


def _along_rows(values: NDArray[_Number], columns: int, spec: BlockSpec) -> NDArray[_Number]:
    """[N, B] -> [N, K]: of each weight that of its block."""
    return np.repeat(values, spec.size(columns), axis=1)[:, :columns]


def pack(codes: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """[..., K] codes -> [..., ceil(K * bits / 8)] bytes, the first code in the low bits."""
    each = 8 // bits
    if each == 1:
        return codes
    missing = -codes.shape[-1] % each
    if missing:
        codes = np.pad(codes, [(0, 0)] * (codes.ndim - 1) + [(0, missing)])
    packed = codes[..., 0::each].copy()
    for place in range(1, each):
        packed |= codes[..., place::each] << np.uint8(bits * place)
    return np.ascontiguousarray(packed)

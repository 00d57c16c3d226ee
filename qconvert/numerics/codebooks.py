"""Weights as codes of a codebook: any few values instead of evenly spaced ones.

    w[i] = scale[i // block] * book[g, code[i]],    i over a weight's rows [N, K], one row after the other

g is the codebook of the row: one in all, or one for each group of rows. Without scales they are 1.

    NF4      quantiles of a normal distribution, scaled to -1 .. 1: Dettmers et al. 2023 (QLoRA), arXiv:2305.14314
    FP4      sign, exponent of two bits, mantissa of one, over the largest: that of bitsandbytes
    BINARY   -1 and 1
    E4M3     sign, exponent of four bits with bias 7, mantissa of three, over the largest, 448: FP8 without infinities,
             Micikevicius et al. 2022, arXiv:2209.05433; its codes of NaN stand for the largest here

NF4 and FP4 are those of MatMulBnb4 of ONNX Runtime 1.32, in its order of codes (tests run the operator). The smallest
FP4 value is 1 / 192 and not 1 / 16, so it is next to useless.

Packing: 8 / bits codes a byte, the first in the *high* bits, as MatMulBnb4 has it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qconvert.errors import InternalError
from qconvert.numerics.blocks import Rows

Book = NDArray[np.float32]
"""[2**bits]: the value of each code; [G, 2**bits]: of each group of rows."""

NF4: Book = np.array(
    [
        -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
        -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
        0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
    ],
    np.float32,
)  # fmt: skip
_FP4 = np.array([0.0, 1 / 192, 2 / 3, 1.0, 1 / 3, 1 / 2, 1 / 6, 1 / 4], np.float32)
FP4: Book = np.concatenate([_FP4, -_FP4])
BINARY: Book = np.array([-1.0, 1.0], np.float32)
E4M3_MOST = 448.0


def _e4m3() -> Book:
    exponent, mantissa = np.divmod(np.arange(128), 8)
    values = np.where(exponent > 0, (1 + mantissa / 8) * 2.0 ** (exponent - 7), mantissa / 8 * 2.0**-6)
    values[-1] = E4M3_MOST
    return (np.concatenate([values, -values]) / E4M3_MOST).astype(np.float32)


E4M3: Book = _e4m3()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BookCodes:
    """A weight stored as codes of codebooks.

    Attributes:
        codes: [N, K].
        book: [G, 2**bits] float32.
        group: rows that share a codebook; 0: all.
        scale: [ceil(N K / block)] float32, or None.
        block: numbers, over all rows, that share a scale; 0 without scales.
    """

    codes: NDArray[np.uint8]
    book: Book
    group: int = 0
    scale: NDArray[np.float32] | None = None
    block: int = 0

    def __post_init__(self) -> None:
        if self.bits not in (1, 4, 8) or (self.scale is None) != (self.block == 0):
            raise InternalError(f"there are no codebooks of shape {self.book.shape} with blocks of {self.block}")

    @property
    def bits(self) -> int:
        """Of a code."""
        return int(self.book.shape[1]).bit_length() - 1

    def books(self) -> NDArray[np.int64]:
        """The codebook of each row, [N]."""
        rows = np.arange(len(self.codes))
        return rows // self.group if self.group else np.zeros_like(rows)

    def nbytes(self) -> int:
        """Of all that is stored."""
        scales = 0 if self.scale is None else self.scale.nbytes
        offsets = 4 * len(self.codes) if len(self.book) > 1 else 0
        return -(-self.codes.size * self.bits // 8) + self.book.nbytes + scales + offsets

    def real(self) -> Rows:
        """What the codes stand for, [N, K]."""
        return self.real_rows(0, len(self.codes))

    def real_rows(self, start: int, stop: int) -> Rows:
        """Rows ``start`` to ``stop`` of :meth:`real`."""
        values = self.book[self.books()[start:stop, None], self.codes[start:stop]]
        if self.scale is None:
            return values
        columns = self.codes.shape[1]
        return np.asarray(values * spread(self.scale, self.block, start, (len(values), columns)), np.float32)


def spread(scale: NDArray[np.float32], block: int, start: int, shape: tuple[int, int]) -> Rows:
    """Scales of blocks that run over all rows, for the rows ``shape`` [N, K] that begin at row ``start``.

    One for each number, [N, K]; of whole rows [N, 1].
    """
    rows, columns = shape
    if columns == block:
        return scale[start : start + rows, None]
    first = start * columns
    owner = np.arange(first, first + rows * columns) // block
    return scale[owner].reshape(shape)


def nearest(values: NDArray[np.floating], book: Book) -> NDArray[np.uint8]:
    """The code of each of ``values`` in ``book`` [2**bits]; exact zeros get the code of zero if there is one.

    Halfway between two values the lower one is taken; of equal ones, that with the least code.
    """
    order = np.argsort(book, kind="stable")
    ends = book[order].astype(np.float64)
    found = np.searchsorted((ends[1:] + ends[:-1]) / 2, np.asarray(values), side="left")
    _, first = np.unique(ends, return_index=True)
    least = np.repeat(order[first], np.diff([*first, len(ends)])).astype(np.uint8)
    return np.asarray(least[found])


def pack_high(codes: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """[...] codes, one after the other -> [ceil(n * bits / 8)] bytes, the first code in the high bits."""
    each = 8 // bits
    flat = codes.reshape(-1)
    if each == 1:
        return flat
    padded = np.pad(flat, (0, -flat.size % each)).reshape(-1, each)
    packed = np.zeros(len(padded), np.uint8)
    for place in range(each):
        packed |= padded[:, place] << np.uint8(8 - bits * (place + 1))
    return packed

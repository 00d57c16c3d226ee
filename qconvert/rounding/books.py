"""Codebooks, scales and codes of weights that are stored in uneven steps (:mod:`qconvert.numerics.codebooks`).

    fixed books    s_b = r max |w| of the block: r = 1 (``rtn``), or of least error from 1 down to 0.7 (``mse``)
    signs          s_n = sum_k h_k |w_nk| / sum_k h_k, the best scale of a row: XNOR-Net, arXiv:1603.05279
    palettes       k-means (:mod:`qconvert.rounding.kmeans`), with s_n = the root mean square of the row where that
                   gains more dB than as many bytes of finer codes would: 6.02 dB a bit

h_k = E[x_k^2] where inputs were seen, else 1; convolutions in groups have an h for each group. With second moments and
``gptq`` codes make up for each other's errors (:mod:`qconvert.rounding.compensation`), books and scales as above.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qconvert.numerics.blocks import Rows
from qconvert.numerics.codebooks import BINARY, Book, BookCodes, nearest, spread
from qconvert.rounding.compensation import RoundColumn, Vector, compensated
from qconvert.rounding.kmeans import codebook
from qconvert.rounding.method import Moments

METHODS = ("rtn", "mse", "gptq")
_SHARES = np.linspace(1.0, 0.7, 13)
# Numbers that are rounded at once.
_PART = 1 << 22
_DB_PER_BIT = 6.02
_TRIAL = 16
# A block of zeros.
_EMPTY = np.float32(1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class BookSpec:
    """How a weight is stored.

    Attributes:
        bits: of a code: 1, 4 or 8.
        book: the values of codes, [2**bits]; None: fitted to the weight.
        block: numbers that share a scale; 0: one for each row, if any.
        group: rows that share a fitted book; 0: all.
    """

    bits: int
    book: Book | None = None
    block: int = 0
    group: int = 0


def fit(rows: Rows, spec: BookSpec, method: str, moments: Moments | None) -> BookCodes:
    """``rows`` [N, K], perhaps a view of a file, as codes.

    Args:
        rows: the weight.
        spec: how it is stored.
        method: one of ``METHODS``; gptq without moments is mse.
        moments: H [K, K], or [groups, K, K] of as many groups of rows, or None.
    """
    if moments is not None:
        usable = bool(np.isfinite(moments).all()) and bool(moments.any())
        moments = moments.reshape(-1, *moments.shape[-2:]) if usable else None
    importance = _importance(rows, moments)
    if spec.book is None:
        plain = _palette(rows, spec, importance)
    else:
        block = spec.block or rows.shape[1]
        scale = _scales(rows, spec.book, block, method, importance)
        empty = np.zeros(rows.shape, np.uint8)
        plain = BookCodes(codes=empty, book=spec.book[None], scale=scale, block=block)
    if method == "gptq" and moments is not None:
        return _with(plain, _compensated(np.ascontiguousarray(rows, np.float32), plain, moments))
    return _with(plain, _nearest(rows, plain))


def _with(stored: BookCodes, codes: NDArray[np.uint8]) -> BookCodes:
    return BookCodes(codes=codes, book=stored.book, group=stored.group, scale=stored.scale, block=stored.block)


def _parts(rows: Rows, block: int = 1) -> Iterator[Rows]:
    """``rows`` a part at a time; blocks of numbers end where parts do."""
    aligned = 1 if block == rows.shape[1] else max(1, block)
    step = -(-max(1, _PART // max(1, rows.shape[1])) // aligned) * aligned
    for start in range(0, len(rows), step):
        yield np.ascontiguousarray(rows[start : start + step], np.float32)


def _blocks(values: NDArray[np.floating], block: int) -> NDArray[np.floating]:
    """[B, block], filled up with zeros."""
    flat = values.reshape(-1)
    return np.pad(flat, (0, -flat.size % block)).reshape(-1, block)


def _importance(rows: Rows, moments: Moments | None) -> Rows | None:
    """h of each number of ``rows``, [N, K]."""
    if moments is None:
        return None
    h = np.diagonal(moments, axis1=1, axis2=2).astype(np.float32)
    return np.broadcast_to(h[0], rows.shape) if len(h) == 1 else np.repeat(h, len(rows) // len(h), axis=0)


def _scales(rows: Rows, book: Book, block: int, method: str, importance: Rows | None) -> NDArray[np.float32]:
    """[B]."""
    found, start = [], 0
    for part in _parts(rows, block):
        end = start + len(part)
        weights = None if importance is None else _blocks(importance[start:end], block)
        found.append(_part_scales(_blocks(part, block), book, method, weights))
        start = end
    return np.concatenate(found)


def _part_scales(
    blocks: NDArray[np.floating], book: Book, method: str, weights: NDArray[np.floating] | None
) -> NDArray[np.float32]:
    if len(book) == len(BINARY):
        scale = np.average(np.abs(blocks), axis=1, weights=weights) if _has(weights) else np.abs(blocks).mean(axis=1)
        return scale.astype(np.float32)
    top = np.abs(blocks).max(axis=1)
    top = np.where(top > 0, top, _EMPTY).astype(np.float32)
    if method == "rtn":
        return top
    best, least = top, np.full(len(top), np.inf)
    for share in _SHARES:
        scale = (top * np.float32(share)).astype(np.float32)
        error = (book[nearest(blocks / scale[:, None], book)] * scale[:, None] - blocks) ** 2
        total = (error if weights is None else error * weights).sum(axis=1)
        better = total < least
        best, least = np.where(better, scale, best), np.where(better, total, least)
    return best


def _has(weights: NDArray[np.floating] | None) -> bool:
    return weights is not None and bool((weights.sum(axis=1) > 0).all())


def _palette(rows: Rows, spec: BookSpec, importance: Rows | None) -> BookCodes:
    """Books, and scales if they pay, which books of 16 values tell for all sizes; no codes yet."""
    scale = _root_mean_squares(rows)
    if not spec.group and scale.any():
        scale = np.where(scale > 0, scale, _EMPTY).astype(np.float32)
        step = -(-rows.size // _PART)  # of a large weight, some rows
        few, picked = rows[::step], scale[::step]
        h = None if importance is None else importance[::step]
        errors = [_error(few, _book(few, _TRIAL, h, s), s, h) for s in (None, picked)]
        gain = 10 * np.log10(max(errors[0], 1e-30) / max(errors[1], 1e-30))
        if gain > _DB_PER_BIT * 32 / rows.shape[1]:
            return _books(rows, spec, importance, scale)
    return _books(rows, spec, importance, None)


def _error(rows: Rows, book: Book, scale: NDArray[np.float32] | None, importance: Rows | None) -> float:
    divided = np.asarray(rows, np.float32) / (1 if scale is None else scale[:, None])
    error = (book[nearest(divided, book)] - divided) * (1 if scale is None else scale[:, None])
    return float((error**2 * (1 if importance is None else importance)).sum())


def _root_mean_squares(rows: Rows) -> NDArray[np.float32]:
    return np.concatenate([np.sqrt((p**2).mean(axis=1)) for p in _parts(rows)])


def _books(rows: Rows, spec: BookSpec, importance: Rows | None, scale: NDArray[np.float32] | None) -> BookCodes:
    group = spec.group or len(rows)
    runs = [slice(i, i + group) for i in range(0, len(rows), group)]
    books = [_book(rows[r], 1 << spec.bits, *(None if a is None else a[r] for a in (importance, scale))) for r in runs]
    return BookCodes(
        codes=np.zeros(rows.shape, np.uint8),
        book=np.stack(books),
        group=spec.group,
        scale=scale,
        block=0 if scale is None else rows.shape[1],
    )


def _book(rows: Rows, k: int, importance: Rows | None, scale: NDArray[np.float32] | None) -> NDArray[np.float32]:
    def parts() -> Iterator[tuple[Rows, NDArray[np.floating] | None]]:
        start = 0
        for part in _parts(rows):
            h = None if importance is None else importance[start : start + len(part)]
            if scale is None:
                yield part, h
            else:
                s = scale[start : start + len(part), None]
                yield part / s, s**2 * (1 if h is None else h) * np.ones_like(part)
            start += len(part)

    return codebook(parts, k)


def _nearest(rows: Rows, stored: BookCodes) -> NDArray[np.uint8]:
    """The nearest codes [N, K]."""
    codes, start = np.empty(rows.shape, np.uint8), 0
    books = stored.books()
    for part in _parts(rows):
        end = start + len(part)
        scale = 1 if stored.scale is None else spread(stored.scale, stored.block, start, part.shape)
        divided = part / scale
        for g in np.unique(books[start:end]):
            chosen = books[start:end] == g
            codes[start:end][chosen] = nearest(divided[chosen], stored.book[g])
        start = end
    return codes


def _compensated(rows: Rows, stored: BookCodes, moments: Moments) -> NDArray[np.uint8]:
    """Codes [N, K] that make up for each other's errors; each group of rows has its own moments."""
    books = stored.books()
    zeros = bool((stored.book == 0).any(axis=1).all())
    scales = None
    if stored.scale is not None:
        scales = np.broadcast_to(spread(stored.scale, stored.block, 0, rows.shape), rows.shape)
    each = len(rows) // len(moments)

    def rounder(run: slice) -> RoundColumn:
        groups = [(g, books[run] == g) for g in np.unique(books[run])]

        def column(k: int, values: Vector) -> tuple[NDArray[np.uint8], Vector]:
            scale = np.ones(len(values)) if scales is None else scales[run, k].astype(np.float64)
            safe = np.where(scale == 0, 1, scale)  # whatever the code, 0 it is
            codes, real = np.empty(len(values), np.uint8), np.empty(len(values))
            for g, chosen in groups:
                codes[chosen] = nearest(values[chosen] / safe[chosen], stored.book[g])
                real[chosen] = stored.book[g][codes[chosen]] * scale[chosen]
            return codes, real

        return column

    runs = [slice(i * each, (i + 1) * each) for i in range(len(moments))]
    return np.concatenate(
        [
            compensated(rows[run], h, rounder(run), zeros=zeros) if h.any() else _nearest(rows, stored)[run]
            for run, h in zip(runs, moments, strict=True)
        ]
    )

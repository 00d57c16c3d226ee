"""Text to numbers of a model's type, each rounded once.

float() rounds to float64, and rounding that to float32 can differ from rounding the text: when the float64 lies exactly
halfway between two float32 values and the text does not. Such values are decided by the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from qconvert.errors import DataError

Array = NDArray[np.generic]

_FLOATS = ("float16", "float32", "float64")
_SHOWN = 40
_TRUTH = {"0": False, "1": True, "false": False, "true": True}


def numbers(texts: Sequence[str], dtype: str, where: str) -> Array:
    """The vector [n] that n texts stand for.

    Args:
        texts: as written: "0.1", "7", "true".
        dtype: the numpy name of the type wanted; "str" takes the texts as they are.
        where: file and line, for messages.

    Raises:
        DataError: a text is no number of this type.
    """
    if dtype == "str":
        return np.array(texts, dtype=np.str_)
    if dtype in _FLOATS:
        wide = np.array(_each(texts, _float, where, "a number"), np.float64)
        if dtype == "float64":
            return wide
        return _nearest(texts, wide, np.dtype(dtype))
    if dtype == "bool":
        return np.array(_each(texts, lambda t: _TRUTH[t.strip().lower()], where, "0, 1, true or false"), np.bool_)
    if dtype.startswith(("int", "uint")):
        limits = np.iinfo(np.dtype(dtype))
        values = _each(texts, _int, where, "an integer")
        for text, value in zip(texts, values, strict=True):
            if not limits.min <= value <= limits.max:
                raise DataError(f"{where}: {text[:_SHOWN]!r} does not fit {dtype}", hint="check the data")
        return np.array(values, np.dtype(dtype))
    raise DataError(f"{where}: text cannot hold {dtype}", hint="save the arrays as .npz")


def is_number(text: str) -> bool:
    """Whether ``text`` stands for a number, NaN and infinities included."""
    try:
        _float(text)
    except ValueError:
        return False
    return True


def _each(texts: Sequence[str], parse: object, where: str, what: str) -> list[int | float]:
    done: list[int | float] = []
    try:
        for text in texts:
            done.append(parse(text))  # type: ignore[operator]
    except (ValueError, KeyError, OverflowError) as error:
        bad = texts[len(done)]
        raise DataError(
            f"{where}: value {len(done) + 1} is {'empty' if not bad.strip() else repr(bad[:_SHOWN])}, not {what}",
            hint="fill or remove it",
        ) from error
    return done


def _float(text: str) -> float:
    if "_" in text:  # Python reads 1_000 as 1000
        raise ValueError(text)
    return float(text)


def _int(text: str) -> int:
    if "_" in text:
        raise ValueError(text)
    try:
        return int(text)
    except ValueError:  # spreadsheets write 3.0
        value = float(text)
        if not value.is_integer() or abs(value) > 2**53:
            raise
        return int(value)


def _nearest(texts: Sequence[str], wide: NDArray[np.float64], dtype: np.dtype[np.generic]) -> Array:
    with np.errstate(over="ignore"):
        near = wide.astype(dtype)
        toward = np.where(wide > near, np.inf, -np.inf).astype(dtype)
        other = np.nextafter(near, toward)
    with np.errstate(invalid="ignore", over="ignore"):
        low, high = near.astype(np.float64), other.astype(np.float64)
        halfway = (wide != low) & ((low + high) / 2 == wide)
    for i in np.flatnonzero(halfway).tolist():
        text, middle = Fraction(texts[i]), Fraction(wide[i])
        if text != middle:
            pair = sorted((near[i], other[i]))
            near[i] = pair[1] if text > middle else pair[0]
    return near

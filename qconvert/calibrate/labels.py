"""Labels for evaluation: class numbers, scores, token or pixel grids; axis 0 runs over the samples.

Text files hold one number or one row a line, separated by commas, semicolons or blanks; "#" starts a comment, and a
first line of words is a header.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qconvert.calibrate.sources._arrays import read_npy, read_npz
from qconvert.errors import DataError

Labels = NDArray[np.generic]


def load_labels(path: Path | str) -> Labels:
    """The labels in a .npy file, an .npz file with one array, or a .txt or .csv file: [N] or [N, ...], numbers or bool.

    Raises:
        DataError: the file is missing, damaged or empty, of an unknown kind, or holds other things than finite numbers.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"there is no file of labels at {path}", hint="check the path")
    labels = _read(path)
    if labels.dtype.kind not in "biuf":
        raise DataError(
            f"{path}: labels must be numbers, came {labels.dtype.name}", hint="save class numbers, not names"
        )
    if labels.ndim == 0 or labels.size == 0:
        raise DataError(
            f"{path} holds no list of labels: its shape is {list(labels.shape)}", hint="give one label a sample"
        )
    bad = labels.size - int(np.count_nonzero(np.isfinite(labels)))
    if bad:
        raise DataError(f"{path} has {bad} NaN or Inf among its labels", hint="remove these samples and their labels")
    return np.require(labels, dtype=labels.dtype.newbyteorder("="), requirements=["C", "ALIGNED"])


def _read(path: Path) -> Labels:
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return read_npy(path)
    if suffix == ".npz":
        arrays = read_npz(path)
        if len(arrays) != 1:
            found = ", ".join(map(repr, arrays)) or "none"
            raise DataError(
                f"{path} must hold one array of labels, it holds {len(arrays)}: {found}", hint="save only the labels"
            )
        return next(iter(arrays.values()))
    if suffix in (".txt", ".csv"):
        return _text(path)
    raise DataError(f"{path} is no file of labels: suffix {path.suffix!r}", hint="use .npy, .npz, .txt or .csv")


def _text(path: Path) -> Labels:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as text: {error}", hint="save it as UTF-8") from error
    rows: list[list[int | float]] = []
    first = True
    for number, line in enumerate(lines, start=1):
        fields = [f for f in re.split(r"\s*[,;]\s*|\s+", line.partition("#")[0].strip()) if f]
        if not fields:
            continue
        row = [_number(field) for field in fields]
        header, first = first and all(value is None for value in row), False
        if header:
            continue
        numbers = [value for value in row if value is not None]
        if len(numbers) < len(row):
            raise DataError(
                f"{path}, line {number}: {line.strip()[:80]!r} is not numbers", hint="give class numbers, not names"
            )
        if rows and len(numbers) != len(rows[0]):
            raise DataError(
                f"{path}, line {number}: {len(numbers)} numbers, the lines before have {len(rows[0])}",
                hint="give every line the same length",
            )
        rows.append(numbers)
    whole = all(isinstance(value, int) for row in rows for value in row)
    try:
        table = np.array(rows, dtype=np.int64 if whole else np.float64)
    except OverflowError as error:
        raise DataError(f"{path} holds a number beyond 64 bits", hint="check the file") from error
    return table[:, 0] if table.ndim == 2 and table.shape[1] == 1 else table


def _number(text: str) -> int | float | None:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return None

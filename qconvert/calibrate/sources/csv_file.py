"""One .csv or .tsv file, a row a sample.

columns in order      the features of the only input, [F] or reshaped to the sizes that it fixes; a header is optional
columns by name       "name" for one value, "name[0]", "name[1]", ... or "name.0", "name.1", ... for several
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qconvert.calibrate.fingerprint import fingerprint
from qconvert.calibrate.place import Place
from qconvert.calibrate.source import SOURCES, Array, Sample, Source, SourceFactory, match_inputs
from qconvert.calibrate.sources._batches import batched, row_shape
from qconvert.calibrate.sources._lines import Lines
from qconvert.calibrate.sources._numbers import is_number, numbers
from qconvert.errors import DataError
from qconvert.graph.session import IOSpec

_SUFFIXES = (".csv", ".tsv")
_INDEXED = re.compile(r"(.+?)(?:\[(\d{1,9})\]|\.(\d{1,9}))")


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Which columns feed which input.

    Attributes:
        count: columns in all.
        feeding: input name -> its columns, in the order of its values.
        names: names of the others; () where there is no header.
        header: whether the first line is one.
        warnings: what was decided for the user.
    """

    count: int
    feeding: Mapping[str, tuple[int, ...]]
    names: tuple[str, ...] = ()
    header: bool = False
    warnings: tuple[str, ...] = ()


class Rows(Source):
    """The rows of a table as samples, parsed when they are asked for."""

    def __init__(
        self, path: Path, lines: Lines, delimiter: str, columns: Columns, interface: tuple[IOSpec, ...]
    ) -> None:
        self.name = str(path)
        self.warnings = columns.warnings
        self._lines, self._delimiter, self._columns = lines, delimiter, columns
        self._skip = int(columns.header)
        self._interface = interface
        self._fingerprint = ""

    def __len__(self) -> int:
        return max(0, len(self._lines) - self._skip)

    def __getitem__(self, index: int) -> Sample:
        at = range(len(self))[index] + self._skip
        where = f"{self.name}, line {self._lines.number(at)}"
        fields = _fields(self._lines[at], self._delimiter, where)
        if len(fields) != self._columns.count:
            first = "the header has" if self._skip else "the first line has"
            raise DataError(
                f"{where} has {len(fields)} values, {first} {self._columns.count}",
                hint="give every line the same number of values",
            )
        arrays: dict[str, Array] = {name: np.empty(0) for name in self._columns.names}  # named, not read
        for spec in self._interface:
            texts = [fields[i] for i in self._columns.feeding[spec.name]]
            arrays[spec.name] = _shaped(numbers(texts, spec.dtype, f"{where}: input {spec.name!r}"), spec)
        return Sample(arrays=arrays, origin=where, stacked=False)

    def identity(self, index: int) -> str:
        """The whole file, and which of its rows."""
        self._fingerprint = self._fingerprint or fingerprint(self._lines.path)
        return f"{self._fingerprint} [{range(len(self))[index]}]"


def _matches(path: Path) -> bool:
    """Whether ``path`` is a .csv or .tsv file."""
    return path.is_file() and path.suffix.lower() in _SUFFIXES


def _open(place: Place, interface: tuple[IOSpec, ...]) -> Source:
    """One sample a row; b rows where the model fixes the batch at b and a row does not fill it.

    Raises:
        DataError: the file cannot be read, has absurd lines, or its columns do not fit the model's inputs.
    """
    path, lines = place.path, Lines(place.path)
    if len(lines) == 0:
        return Rows(path, lines, ",", Columns(count=0, feeding={}), interface)
    first = lines[0]
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ";" if ";" in first and "," not in first else ","
    where = f"{path}, line {lines.number(0)}"
    columns = _columns(_fields(first.removeprefix("#"), delimiter, where), interface, where)
    rows = Rows(path, lines, delimiter, columns, interface)
    whole = [spec for spec in interface if _fills_batch(len(columns.feeding[spec.name]), spec)]
    return rows if whole else batched(rows, interface)


def _fields(line: str, delimiter: str, where: str) -> list[str]:
    try:
        rows: list[list[str]] = list(csv.reader([line], delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise DataError(f"{where} is no row of a table: {error}", hint="write numbers, one row a line") from error
    return [field.strip() for field in rows[0]] if rows else []


def _columns(first: Sequence[str], interface: tuple[IOSpec, ...], where: str) -> Columns:
    count = len(first)
    numeric = [is_number(field) for field in first]
    in_order = {interface[0].name: tuple(range(count))}
    if all(numeric) and interface[0].dtype != "str":
        if len(interface) > 1:
            names = ", ".join(repr(spec.name) for spec in interface)
            raise DataError(
                f"{where}: without a header, columns can feed one input only; the model has {len(interface)}: {names}",
                hint="name the columns after the inputs, name or name[0], name[1], ...",
            )
        counted = count > 2 and list(first) == [str(i) for i in range(count)]
        warning = f"{where}: 0, 1, 2, ... is taken for a header, as pandas writes it, and not for a sample"
        return Columns(count=count, feeding=in_order, header=counted, warnings=(warning,) if counted else ())
    if any(numeric) and interface[0].dtype != "str":
        at = numeric.index(False)
        what = repr(first[at][:40]) if first[at] else "empty"
        raise DataError(
            f"{where}: column {at + 1} is {what}, the others hold numbers; this is neither a header nor a sample",
            hint="a header has no numbers; remove columns that are no features, such as an index",
        )
    named = _named(first, interface)
    wanted = _features(interface[0])
    alone = len(interface) == 1 and (not named or (set(first) & set(named) and wanted == count > 1))
    if alone:  # names of features, one of which may happen to be the input's
        return Columns(count=count, feeding=in_order, header=True)
    others = [name for name in first if _base(name) not in named]
    match_inputs([*named, *others], interface, where)  # complains where an input has no column
    feeding = {name: _in_order(found, name, where) for name, found in named.items()}
    return Columns(count=count, feeding=feeding, names=tuple(others), header=True)


def _base(column: str) -> str:
    match = _INDEXED.fullmatch(column)
    return match[1] if match else column


def _named(first: Sequence[str], interface: tuple[IOSpec, ...]) -> dict[str, list[tuple[int, int]]]:
    """Input name -> (index of the value, column) of the columns named after it."""
    names = {spec.name for spec in interface}
    found: dict[str, list[tuple[int, int]]] = {}
    for column, text in enumerate(first):
        match = _INDEXED.fullmatch(text)
        if text in names:
            found.setdefault(text, []).append((0, column))
        elif match and match[1] in names:
            found.setdefault(match[1], []).append((int(match[2] or match[3]), column))
    return found


def _in_order(found: list[tuple[int, int]], name: str, where: str) -> tuple[int, ...]:
    found = sorted(found)
    if [index for index, _ in found] != list(range(len(found))):
        given = ", ".join(str(index) for index, _ in found[:8])
        raise DataError(
            f"{where}: the columns of input {name!r} are numbered {given}{' ...' if len(found) > 8 else ''}",
            hint=f"number them {name}[0], {name}[1], ... without gaps, each once",
        )
    return tuple(column for _, column in found)


def _features(spec: IOSpec) -> int | None:
    """Values in a row of this input, where its shape fixes them."""
    sizes = row_shape(spec)
    return math.prod(s for s in sizes if isinstance(s, int)) if all(isinstance(s, int) for s in sizes) else None


def _fills_batch(count: int, spec: IOSpec) -> bool:
    fixed = all(isinstance(size, int) for size in spec.shape) and len(spec.shape) > 0
    return fixed and count == math.prod(s for s in spec.shape if isinstance(s, int)) and count != _features(spec)


def _shaped(vector: Array, spec: IOSpec) -> Array:
    """[n] in the shape of a row of the input, where it can be told; the checks of feeds say what does not fit."""
    if not spec.shape:
        return vector.reshape(()) if len(vector) == 1 else vector
    row = row_shape(spec)
    if sum(not isinstance(size, int) for size in row) == 1:
        known = math.prod(size for size in row if isinstance(size, int))
        if known and len(vector) % known == 0:
            return vector.reshape([size if isinstance(size, int) else -1 for size in row])
    for sizes in (row, spec.shape):  # a row of the table may also be all rows of a fixed batch
        fixed = [size for size in sizes if isinstance(size, int)]
        if len(fixed) == len(sizes) and len(vector) == math.prod(fixed):
            return vector.reshape(fixed)
    return vector


SOURCES.add(
    "csv",
    SourceFactory(
        description="one .csv or .tsv file, a row a sample: columns in order for a model with one input, or named "
        "after the inputs",
        matches=_matches,
        open=_open,
    ),
)

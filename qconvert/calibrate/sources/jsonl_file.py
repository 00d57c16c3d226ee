"""One .jsonl file: a JSON object a line, ``{"input": nested list, ...}``; or a list, for a model with one input."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np

from qconvert.calibrate.fingerprint import fingerprint
from qconvert.calibrate.place import Place
from qconvert.calibrate.source import SOURCES, Array, Sample, Source, SourceFactory, match_inputs
from qconvert.calibrate.sources._batches import batched
from qconvert.calibrate.sources._lines import Lines
from qconvert.calibrate.sources._numbers import numbers
from qconvert.errors import DataError
from qconvert.graph.session import IOSpec

_SUFFIXES = (".jsonl", ".ndjson")
_MOST_AXES = 32  # numpy has a limit of its own; no model's input comes near


class _Number(str):
    """A number as written, so that it is rounded once, to the model's type."""

    __slots__ = ()


class JsonLines(Source):
    """The lines of a file as samples, parsed when they are asked for."""

    def __init__(self, path: Path, interface: tuple[IOSpec, ...]) -> None:
        self.name = str(path)
        self._interface = interface
        self._lines = Lines(path)
        self._fingerprint = ""

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: int) -> Sample:
        at = range(len(self))[index]
        where = f"{self.name}, line {self._lines.number(at)}"
        content = _parsed(self._lines[at], where)
        given = content if isinstance(content, dict) else {self._only(where): content}
        arrays: dict[str, Array] = {name: np.empty(0) for name in given}  # those that feed nothing are named, not read
        for spec, name in zip(self._interface, match_inputs(given, self._interface, where).values(), strict=True):
            arrays[name] = _array(given[name], spec, where)
        return Sample(arrays=arrays, origin=where, stacked=False)

    def identity(self, index: int) -> str:
        """The whole file, and which of its lines."""
        self._fingerprint = self._fingerprint or fingerprint(self._lines.path)
        return f"{self._fingerprint} [{range(len(self))[index]}]"

    def is_whole_batch(self) -> bool:
        """Whether the first line has the batch axis of the model's inputs."""
        try:
            first = self[0]
        except (DataError, IndexError):
            return False
        matched = match_inputs(first.arrays, self._interface, first.origin)
        return any(first.arrays[matched[spec.name]].ndim == len(spec.shape) for spec in self._interface if spec.shape)

    def _only(self, where: str) -> str:
        if len(self._interface) == 1:
            return self._interface[0].name
        names = ", ".join(repr(spec.name) for spec in self._interface)
        raise DataError(
            f"{where} is no object, and the model has {len(self._interface)} inputs: {names}",
            hint='write {"input": [...], ...} in each line',
        )


def _parsed(line: str, where: str) -> Any:
    try:
        return json.loads(line, parse_float=_Number, parse_int=_Number, parse_constant=_Number)
    except RecursionError as error:
        raise DataError(f"{where} is nested too deeply", hint="write arrays as nested lists") from error
    except ValueError as error:
        raise DataError(f"{where} is not JSON: {str(error)[:200]}", hint="write one object or list a line") from error


def _array(value: object, spec: IOSpec, where: str) -> Array:
    """The array that a nested list stands for, in the type of ``spec``."""
    where = f"{where}: input {spec.name!r}"
    level, shape = [value], list[int]()
    while level and isinstance(level[0], list):
        shape.append(len(level[0]))
        if len(shape) > _MOST_AXES:
            raise DataError(f"{where} is nested too deeply", hint=f"the model wants {len(spec.shape)} axes")
        if not all(isinstance(item, list) and len(item) == shape[-1] for item in level):
            raise DataError(
                f"{where}: the lists of axis {len(shape) - 1} differ in length", hint="give them all the same length"
            )
        level = list(itertools.chain.from_iterable(level))  # type: ignore[arg-type]
    wanted: type = str if spec.dtype == "str" else bool if spec.dtype == "bool" else _Number
    texts = []
    for item in level:
        if isinstance(item, _Number) or (isinstance(item, wanted) and wanted is not _Number):
            texts.append(str(item))
            continue
        shown = "null" if item is None else f"a {type(item).__name__}"
        raise DataError(f"{where} expects {spec.dtype}, came {shown}", hint="give nested lists of numbers")
    return numbers(texts, spec.dtype, where).reshape(shape)


def _matches(path: Path) -> bool:
    """Whether ``path`` is a .jsonl file."""
    return path.is_file() and path.suffix.lower() in _SUFFIXES


def _open(place: Place, interface: tuple[IOSpec, ...]) -> Source:
    """One sample a line; b lines where the model fixes the batch at b and the lines lack its axis.

    Raises:
        DataError: the file cannot be read, or has absurd lines.
    """
    source = JsonLines(place.path, interface)
    return source if source.is_whole_batch() else batched(source, interface)


SOURCES.add(
    "jsonl",
    SourceFactory(
        description='one .jsonl file, a line a sample: {"input": [...]} or, for a model with one input, [...]',
        matches=_matches,
        open=_open,
    ),
)

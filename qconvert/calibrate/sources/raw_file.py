"""A .bin file of numbers and nothing else: FILE.bin:DTYPE:SHAPE, little-endian, sample after sample. It is mapped.

pixels.bin:uint8:3x224x224      a sample is 150 528 bytes
tokens.bin:int64:128            a sample is 1024 bytes
rows.bin:float32                the shape is the one that the model's input fixes
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from qconvert.calibrate.place import Place
from qconvert.calibrate.source import SOURCES, Source, SourceFactory
from qconvert.calibrate.sources._single import the_input
from qconvert.calibrate.sources._stack import Stack
from qconvert.errors import DataError
from qconvert.graph.session import IOSpec
from qconvert.registry import suggest

_SUFFIXES = (".bin", ".raw")
_DTYPES = ("bool", "float16", "float32", "float64", *(f"{u}int{b}" for u in ("", "u") for b in (8, 16, 32, 64)))
_FORM = "FILE.bin:DTYPE:SHAPE"
_MOST_AXES = 16


def _matches(path: Path) -> bool:
    """Whether ``path`` is a .bin or .raw file."""
    return path.is_file() and path.suffix.lower() in _SUFFIXES


def _open(place: Place, interface: tuple[IOSpec, ...]) -> Source:
    """The samples of the file, one after the other.

    Raises:
        DataError: the model has several inputs, type or shape are missing or wrong, or the file's size is no multiple
            of a sample's.
    """
    name = the_input(place.path, interface, "raw data")
    word, _, form = place.qualifier.partition(":")
    sizes = [size for size in interface[0].shape[1:] if isinstance(size, int)] or [3, 224, 224]
    example = f"{place.path}:{interface[0].dtype}:{'x'.join(map(str, sizes))}"
    if not word:
        raise DataError(
            f"{place.path}: raw data do not say what they hold", hint=f"write {_FORM}, for example {example}"
        )
    if word not in _DTYPES:
        raise DataError(f"{place.text}: unknown type {word!r}", hint=suggest(word, _DTYPES))
    shape = _shape(form, place, interface[0], example)
    dtype = np.dtype(word).newbyteorder("<")
    sample, size = math.prod(shape) * dtype.itemsize, place.path.stat().st_size
    if size % sample:
        raise DataError(
            f"{place.path} has {size} bytes, no multiple of {sample}, which is a sample {list(shape)} of {word}",
            hint="check type and shape; the file may hold numbers only, no header",
        )
    stacked = (size // sample, *shape)
    array = np.memmap(place.path, dtype, "r", shape=stacked) if size else np.empty(stacked, dtype)
    if word == "bool" and np.any(array.view(np.uint8) > 1):
        raise DataError(f"{place.path} holds bytes other than 0 and 1", hint="give its type as uint8")
    return Stack(place.path, {name: array}, interface, detail=f"{word}:{'x'.join(map(str, shape))}")


def _shape(form: str, place: Place, spec: IOSpec, example: str) -> tuple[int, ...]:
    """The shape of a sample, without the axis that counts them."""
    if not form:
        fixed = [size for size in spec.shape[1:] if isinstance(size, int)]
        if len(fixed) < len(spec.shape) - 1 or not spec.shape:
            raise DataError(
                f"{place.text}: the model leaves sizes of input {spec.name!r} open: {list(spec.shape)}",
                hint=f"add the shape of a sample: {example}",
            )
        return tuple(fixed)
    sizes = form.lower().split("x")
    if len(sizes) > _MOST_AXES or not all(size.isdecimal() and len(size) < 12 and int(size) > 0 for size in sizes):
        raise DataError(f"{place.text}: {form!r} is no shape", hint=f"write sizes with x between, as in {example}")
    return tuple(int(size) for size in sizes)


SOURCES.add(
    "raw_file",
    SourceFactory(
        description=f"one .bin file of plain little-endian numbers, {_FORM}, as in pixels.bin:float32:3x224x224 "
        "(models with one input)",
        matches=_matches,
        open=_open,
        qualifier="DTYPE:SHAPE",
    ),
)

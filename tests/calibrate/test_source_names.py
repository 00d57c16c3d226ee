"""Which array feeds which input, and the order of files."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from numpy.lib import format as npy

from qconvert.calibrate.folder import natural
from qconvert.calibrate.source import match_inputs, open_source
from qconvert.errors import DataError
from qconvert.graph.session import IOSpec

X = IOSpec(name="x", dtype="float32", shape=("batch", 3))
Y = IOSpec(name="y", dtype="int64", shape=())
SEQUENCE = IOSpec(name="s", dtype="seq(tensor(float))", shape=())


def row(value: float) -> np.ndarray:
    return np.full((1, 3), value, np.float32)


def refused(path: Path, *interface: IOSpec) -> DataError:
    with pytest.raises(DataError) as caught:
        open_source(path, interface or (X,))[0]
    assert caught.value.hint
    return caught.value


def header(shape: tuple[int, ...]) -> bytes:
    stream = io.BytesIO()
    npy.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return stream.getvalue()


# ---------------------------------------------------------------- names


def test_match_inputs_suggests_the_nearest_name() -> None:
    with pytest.raises(DataError, match=r"a\.npz has no array for input 'y'.*'x', 'yy'") as caught:
        match_inputs(["x", "yy"], (X, Y), "a.npz")
    assert "is 'yy' meant?" in caught.value.hint
    with pytest.raises(DataError, match="no arrays"):
        match_inputs([], (X,), "a.npz")


def test_natural_order() -> None:
    names = ["a", "b", "a10", "a2", "a02", "10", "9"]
    wanted = ["9", "10", "a", "a02", "a2", "a10", "b"]
    assert sorted(names, key=natural) == wanted

"""Which array feeds which input, and the order of files."""

from __future__ import annotations

import pytest

from qconvert.calibrate.folder import natural
from qconvert.calibrate.source import match_inputs
from qconvert.errors import DataError
from qconvert.graph.session import IOSpec

X = IOSpec(name="x", dtype="float32", shape=("batch", 3))
Y = IOSpec(name="y", dtype="int64", shape=())


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

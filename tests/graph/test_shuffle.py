"""Channel shuffles: one Gather, the same values; what is none stays."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from networks.builder import Builder

from qconvert.graph.model import Model
from qconvert.graph.prepare.canonical import prepare
from qconvert.graph.signature import session_of


def shuffled(
    shape: list[int | str], split: list[int], perm: list[int], merged: list[int], *, twice: bool = False
) -> onnx.ModelProto:
    b = Builder(seed=1)
    x = b.node("Relu", b.input("x", shape))
    parts = b.node("Reshape", x, b.const(np.array(split)))
    moved = b.node("Transpose", parts, perm=perm, out="moved")
    b.output(b.node("Relu", b.node("Reshape", moved, b.const(np.array(merged))), out="y"))
    if twice:
        b.output(b.node("Relu", moved, out="z"))
    return b.model()


def ops_and_outputs(proto: onnx.ModelProto) -> list[str]:
    model = Model(ir=ir.from_proto(proto))
    x = np.random.default_rng(0).normal(size=(2, 12, 5, 7)).astype(np.float32)
    prepared = prepare(model, {"x": x})
    for one, other in zip(session_of(model).run({"x": x}), session_of(prepared.model).run({"x": x}), strict=True):
        assert np.array_equal(one, other)
    return [n.op_type for n in prepared.model.ir.graph]


@pytest.mark.parametrize(
    ("shape", "split", "merged"),
    [
        ([2, 12, 5, 7], [2, 3, 4, 5, 7], [2, 12, 5, 7]),
        ([2, 12, 5, 7], [-1, 2, 6, 5, 7], [2, -1, 5, 7]),
        (["n", 12, 5, 7], [0, 3, 4, 5, 7], [0, 12, 5, 7]),
    ],
)
def test_a_shuffle_is_a_gather(shape: list[int | str], split: list[int], merged: list[int]) -> None:
    assert ops_and_outputs(shuffled(shape, split, [0, 2, 1, 3, 4], merged)) == ["Relu", "Gather", "Relu"]


@pytest.mark.parametrize(
    ("perm", "merged", "twice"),
    [
        ([0, 1, 2, 4, 3], [2, 12, 7, 5], False),  # rows and columns
        ([0, 2, 1, 3, 4], [2, 6, 10, 7], False),  # merged otherwise
        ([0, 2, 1, 3, 4], [2, 12, 5, 7], True),  # what is moved is read by something else
    ],
)
def test_others_stay(perm: list[int], merged: list[int], twice: bool) -> None:
    found = ops_and_outputs(shuffled([2, 12, 5, 7], [2, 3, 4, 5, 7], perm, merged, twice=twice))
    assert "Gather" not in found
    assert "Transpose" in found

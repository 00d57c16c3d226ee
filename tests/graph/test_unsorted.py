"""Graphs whose nodes are not in order: ONNX forbids them, ONNX Runtime takes them, and tools write them."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import parser

from qconvert.errors import ModelError
from qconvert.graph.model import load
from qconvert.graph.session import open_session

TEXT = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N] x) => (float[N] y) { a = Neg (x)  b = Abs (a)  y = Sqrt (b) }"""


def test_they_are_put_in_order(tmp_path: Path) -> None:
    model = parser.parse_model(TEXT)
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([nodes[2], nodes[0], nodes[1]])
    onnx.save(model, tmp_path / "m.onnx")
    assert [n.op_type for n in load(tmp_path / "m.onnx").ir.graph] == ["Neg", "Abs", "Sqrt"]
    assert open_session(tmp_path / "m.onnx").outputs[0].name == "y"


def test_a_circle_is_no_model(tmp_path: Path) -> None:
    model = parser.parse_model(TEXT)
    model.graph.node[0].input[0] = "b"
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="not a valid ONNX model"):
        load(tmp_path / "m.onnx")


def test_what_a_body_reads_comes_before_it(tmp_path: Path) -> None:
    """Converters to float16 put the Cast of an input last, even where only the branches of an If read it."""
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[N] x, bool c) => (float[N] y) {
        y = If (c) <then_branch = t () => (float[N] p) { p = Abs (a) },
                    else_branch = e () => (float[N] q) { q = Neg (a) }>
        a = Sqrt (x)
    }"""
    onnx.save(parser.parse_model(text), tmp_path / "m.onnx")
    model = load(tmp_path / "m.onnx").clone()
    assert [n.op_type for n in model.ir.graph] == ["Sqrt", "If"]

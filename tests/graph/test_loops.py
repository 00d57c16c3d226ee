"""Loops: what the file says of their ends, and runs that are given up."""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from qconvert.errors import GivenUp, ModelError, RecipeError
from qconvert.graph.loops import check_loops, sure_to_end
from qconvert.graph.model import load
from qconvert.graph.patience import VARIABLE
from qconvert.graph.session import open_session

HEAD = '<ir_version: 8, opset_import: ["" : 17]>\ng (float[2,3] x, int64 n, bool k) => (float[2,3] y)\n'


def loop(count: str, condition: str, body: str = "u = Sigmoid (v)", start: str = "k") -> onnx.ModelProto:
    """y is x after a Loop; the body's condition is ``condition``, an expression over (on, u)."""
    inner = f"b (int64 i, bool on, float[2,3] v) => (bool go, float[2,3] u) {{ {body} go = {condition} }}"
    return parsed(
        f"many = Constant <value_int: int = 5000000000> ()\n few = Constant <value_int: int = 40> ()"
        f" yes = Constant <value: tensor = bool {{1}}> () dozens = Identity (few)"
        f" y = Loop <body: graph = {inner}> ({count}, {start}, x)"
    )


def parsed(nodes: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(HEAD + "{ " + nodes + " }")


TESTED = "Less (most, two)"
COMPUTED = "u = Sigmoid (v) most = ReduceMax <keepdims: int = 0> (u) two = Constant <value_float: float = 2.0> ()"


@pytest.mark.parametrize(
    ("model", "ends"),
    [
        (loop("few", "Identity (on)", start="yes"), True),
        (loop("dozens", TESTED, COMPUTED), True),
        (loop("n", "Identity (on)", start="yes"), False),  # as many as the input says
        (loop("many", TESTED, COMPUTED), False),  # exporters write the largest integer where the condition decides
        (loop("many", "Identity (on)"), False),  # the first condition is an input
        (loop("", TESTED, COMPUTED), False),
        (parsed("y = Relu (x)"), True),
    ],
)
def test_what_may_end_is_not_refused(model: onnx.ModelProto, ends: bool) -> None:
    check_loops(model)
    assert sure_to_end(model) == ends


@pytest.mark.parametrize("condition", ["Identity (on)", "Identity (yes)"])
@pytest.mark.parametrize("count", ["many", ""])
def test_what_cannot_end_is_refused(count: str, condition: str) -> None:
    model = loop(count, condition, start="yes")
    with pytest.raises(ModelError, match="whatever the input"):
        check_loops(model)
    assert not sure_to_end(model)


def test_a_run_without_end_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "0.5")
    path = tmp_path / "m.onnx"
    onnx.save(loop("n", "Identity (on)"), path)
    session = open_session(path)
    x = np.ones((2, 3), np.float32)
    started = time.perf_counter()
    with pytest.raises(GivenUp, match=r"m\.onnx: a run was given up after \d+\.\d s: it has a Loop"):
        session.run({"x": x, "n": np.asarray(1 << 60), "k": np.asarray(True)})
    assert time.perf_counter() - started > 0.4
    (three,) = session.run({"x": x, "n": np.asarray(3), "k": np.asarray(True)})  # the session is as good as before
    for _ in range(3):
        x = 1 / (1 + np.exp(-x))
    np.testing.assert_allclose(three, x, rtol=1e-5)


def test_no_limit_where_none_is_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(loop("n", "Identity (on)"), path)
    feed = {"x": np.ones((2, 3), np.float32), "n": np.asarray(500_000), "k": np.asarray(True)}
    plain = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    expected = plain.run(None, feed)[0]
    monkeypatch.setenv(VARIABLE, "0")
    np.testing.assert_array_equal(open_session(path).run(feed)[0], expected)


@pytest.mark.parametrize("given", ["soon", "-1", str(math.nan)])
def test_a_limit_that_is_no_number(given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, given)
    path = tmp_path / "m.onnx"
    onnx.save(loop("n", "Identity (on)"), path)
    session = open_session(path)
    with pytest.raises(RecipeError, match=VARIABLE):
        session.run({"x": np.ones((2, 3), np.float32), "n": np.asarray(1), "k": np.asarray(True)})


def test_load_says_which_file(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(loop("", "Identity (on)", start="yes"), path)
    with pytest.raises(ModelError, match=r"m\.onnx: its Loops never end"):
        load(path)

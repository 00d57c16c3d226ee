"""Tensors of two models, matched by name through fusions, whoever quantized them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from evaluate import nets
from onnx import TensorProto, helper, parser
from onnxruntime.transformers.float16 import convert_float_to_float16

from qconvert.calibrate.data import DataSpec, open_data_set
from qconvert.calibrate.feeds import FeedSet
from qconvert.evaluate.correspondence import bare, pairs
from qconvert.evaluate.tensors import TensorComparison, compare_tensors, side_by_side
from qconvert.graph.build_view import view_of
from qconvert.graph.infer import infer_types
from qconvert.graph.model import load
from qconvert.graph.optimized import named
from qconvert.graph.session import open_session
from qconvert.graph.view import GraphView
from qconvert.progress import Silent


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nets.network(tmp_path_factory.mktemp("nets") / "float.onnx")


@pytest.fixture(scope="module")
def feeds(source: Path) -> FeedSet:
    stacked = source.with_name("x.npy")
    np.save(stacked, np.concatenate([feed["x"] for feed in nets.samples()]))
    return open_data_set(DataSpec(sources=(str(stacked),)), open_session(source).inputs)


def compared(first: Path, second: Path, feeds: FeedSet, budget: int = 1 << 20) -> TensorComparison:
    return compare_tensors(load(first), load(second), feeds, Silent(), budget=budget)


def graph(path: Path) -> GraphView:
    model = named(load(path))
    infer_types(model)
    return view_of(model)


def matched(first: Path, second: Path) -> dict[str, str]:
    return {p.reference.name: p.other.name for p in pairs(graph(first), graph(second))}


def test_a_model_against_itself(source: Path, feeds: FeedSet) -> None:
    found = compared(source, source, feeds)
    assert [t.name for t in found.tensors] == ["c1", "r1", "c2", "a", "r2", "p", "f", "y"]
    assert all(t.sqnr_db == math.inf and not t.rescaled for t in found.tensors)
    assert (found.unmatched, found.samples) == ((), 8)


# ONNX Runtime absorbs both clamps, so what is inside has no partner
STATIC = {"r1", "c2", "r2", "p", "f", "y"}


@pytest.mark.parametrize("form", ["qdq", "qoperator", "dynamic"])
def test_onnxruntime(form: str, source: Path, feeds: FeedSet) -> None:
    found = compared(source, nets.by_onnxruntime(source, form), feeds)
    names = {t.name for t in found.tensors}
    assert names >= (STATIC if form != "dynamic" else {"c1", "r1", "c2", "a", "r2", "p", "f", "y"})
    assert names | set(found.unmatched) == {"c1", "r1", "c2", "a", "r2", "p", "f", "y"}
    for tensor in found.tensors:
        assert tensor.shape_mismatches == 0
        assert tensor.sqnr_db is not None
        assert 15 < tensor.sqnr_db < 80, tensor
    assert {t.op_type for t in found.tensors} >= {"Relu", "Conv", "Gemm"}


def test_the_dequantized_tensor_is_taken(source: Path) -> None:
    assert matched(source, nets.by_onnxruntime(source, "qdq"))["c2"] == "c2_DequantizeLinear_Output"
    assert matched(source, nets.by_onnxruntime(source, "qoperator"))["c2"] == "c2_quantized"


def test_half_precision(source: Path, feeds: FeedSet) -> None:
    half = source.with_name("half.onnx")
    onnx.save(convert_float_to_float16(onnx.load(source), keep_io_types=True), half)
    found = compared(source, half, feeds)
    assert {t.name for t in found.tensors} >= {"c1", "r1", "c2", "a", "r2", "p", "f"}
    assert all(t.sqnr_db is not None and 45 < t.sqnr_db < 90 for t in found.tensors)


def test_two_quantized_models(source: Path, feeds: FeedSet) -> None:
    found = compared(nets.by_onnxruntime(source, "qdq"), nets.by_onnxruntime(source, "qoperator"), feeds)
    # where a clamp is absorbed, the one form names the tensor after it and the other before it
    assert [bare(t.name) for t in found.tensors] == ["x", "c2", "p", "f", "y"]
    assert all(t.sqnr_db is not None and t.sqnr_db > 20 for t in found.tensors)


def quantized_chain(path: Path, text: str, constants: dict[str, float]) -> Path:
    """A model in ONNX text, with scalar float constants, and a zero point "z" of 0."""
    head = '<ir_version: 8, opset_import: ["" : 17]> g (float[N, 4] x) => (float[N, 4] y)'
    model = parser.parse_model(f"{head} {{{text}}}")
    for name, value in constants.items():
        model.graph.initializer.append(helper.make_tensor(name, TensorProto.FLOAT, [], [value]))
    model.graph.initializer.append(helper.make_tensor("z", TensorProto.UINT8, [], [0]))
    onnx.save(model, path)
    return path


PLAIN = "t = Mul(x, two) r = Relu(t) y = Add(r, two)"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # NNCF names what it inserts by the tensor, behind a prefix
        (
            "t = Mul(x, two) r = Relu(t) q_output_r = QuantizeLinear(r, s, z) "
            "dq_output_r = DequantizeLinear(q_output_r, s, z) y = Add(dq_output_r, two)",
            {"t": "t", "r": "dq_output_r", "y": "y"},
        ),
        # another tool's names say nothing; the graph does
        (
            "t = Mul(x, two) r = Relu(t) v17 = QuantizeLinear(r, s, z) v18 = DequantizeLinear(v17, s, z) "
            "y = Add(v18, two)",
            {"t": "t", "r": "v18", "y": "y"},
        ),
        # the saturation at code 0 is the Relu: what is dequantized stands for r
        (
            "t = Mul(x, two) v17 = QuantizeLinear(t, s, z) v18 = DequantizeLinear(v17, s, z) y = Add(v18, two)",
            {"r": "v18", "y": "y"},
        ),
        # the dequantized tensor has kept the name, its producer has another
        (
            "r_float = Mul(x, two) r_q = QuantizeLinear(r_float, s, z) r = DequantizeLinear(r_q, s, z) y = Add(r, two)",
            {"r": "r", "y": "y"},
        ),
    ],
)
def test_names_of_other_tools(text: str, expected: dict[str, str], tmp_path: Path) -> None:
    first = quantized_chain(tmp_path / "a.onnx", PLAIN, {"two": 2.0})
    second = quantized_chain(tmp_path / "b.onnx", text, {"two": 2.0, "s": 0.05})
    assert matched(first, second) == expected
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32))
    data = open_data_set(DataSpec(sources=(str(tmp_path / "x.npy"),)), open_session(first).inputs)
    found = {t.name: t for t in compared(first, second, data).tensors}
    assert found["r"].sqnr_db is not None
    assert found["r"].sqnr_db > 30


def test_a_clamp_that_is_still_there_keeps_its_tensors_apart(tmp_path: Path) -> None:
    text = "t = Mul(x, two) v1 = QuantizeLinear(t, s, z) v2 = DequantizeLinear(v1, s, z) r = Relu(v2) y = Add(r, two)"
    first = quantized_chain(tmp_path / "a.onnx", PLAIN, {"two": 2.0})
    second = quantized_chain(tmp_path / "b.onnx", text, {"two": 2.0, "s": 0.05})
    assert matched(first, second) == {"t": "v2", "r": "r", "y": "y"}


def test_channels_that_were_rescaled_are_told_from_damage(source: Path, feeds: FeedSet) -> None:
    factors = np.geomspace(0.1, 10, 6).astype(np.float32)
    column = factors.reshape(-1, 1, 1, 1)
    net = source.with_name("chain.onnx")  # without the residual, scales of r1 can be taken back in c2
    model = onnx.load(source)
    (add,) = (n for n in model.graph.node if n.op_type == "Add")
    add.input[1] = "c2"
    onnx.save(model, net)
    equalized = nets.edited(
        net,
        source.with_name("equalized.onnx"),
        w1=nets.weight(net, "w1") * column,
        b1=nets.weight(net, "b1") * factors,
        w2=nets.weight(net, "w2") / factors.reshape(1, -1, 1, 1),
    )
    found = {t.name: t for t in compared(net, equalized, feeds).tensors}
    assert [name for name, t in found.items() if t.rescaled] == ["c1", "r1"]
    assert found["r1"].sqnr_db is not None
    assert found["r1"].sqnr_db < 10
    assert found["r1"].fitted_sqnr_db is not None
    assert found["r1"].fitted_sqnr_db > 100
    damaged = nets.edited(net, source.with_name("damaged.onnx"), w1=np.roll(nets.weight(net, "w1"), 1, axis=2))
    spoilt = compared(net, damaged, feeds)
    assert not any(t.rescaled for t in spoilt.tensors)
    assert spoilt.worst is not None
    assert spoilt.worst.name in ("c1", "r1", "c2", "a")


def test_parts_change_nothing(source: Path, feeds: FeedSet) -> None:
    other = nets.by_onnxruntime(source, "qdq")
    whole, cut = compared(source, other, feeds), compared(source, other, feeds, budget=1)
    assert [t.name for t in whole.tensors] == [t.name for t in cut.tensors]
    for left, right in zip(whole.tensors, cut.tensors, strict=True):
        # an integer kernel may be cut off from its neighbours, which moves a value by one step at most
        assert left.sqnr_db == pytest.approx(right.sqnr_db, abs=1.0)


def test_an_early_value_waits_and_nothing_else() -> None:
    alive: set[str] = set()

    def run(names: str) -> Iterator[tuple[str, np.ndarray]]:
        for name in names:
            alive.add(name)
            yield name, np.zeros(1)

    values = side_by_side(run("abc"), run("CAB"), [("a", "A"), ("b", "B"), ("c", "C")])
    next(values)
    assert alive == {"a", "C", "A"}
    assert len(list(values)) == 2


def test_another_layout_is_no_number(tmp_path: Path) -> None:
    paths = []
    for name, perm in (("a", "[0, 1]"), ("b", "[1, 0]")):
        model = parser.parse_model(
            f"""<ir_version: 8, opset_import: ["" : 17]>
            g (float[2, 4] x) => (float[2, 4] y) {{ t = Transpose <perm = {perm}> (x)  n = Neg (t)
            back = Transpose <perm = {perm}> (n)  y = Neg (back) }}"""
        )
        paths.append(tmp_path / f"{name}.onnx")
        onnx.save(model, paths[-1])
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32))
    data = open_data_set(DataSpec(sources=(str(tmp_path / "x.npy"),)), open_session(paths[0]).inputs)
    found = {t.name: t for t in compared(*paths, data).tensors}
    assert (found["t"].sqnr_db, found["t"].shape_mismatches) == (None, 4)
    assert found["y"].sqnr_db == math.inf

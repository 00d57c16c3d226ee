"""Models whose weights sit in the branches of If, as a user quantizes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from end_to_end.command import Command, Ran
from networks import branches
from networks.builder import Feed, Network
from onnx import TensorProto, numpy_helper

from qconvert import branches as quantizing
from qconvert import conversion
from qconvert.errors import ModelError
from qconvert.graph.model import Model
from qconvert.graph.session import Session

LEAST_DB = 20.0
CASES: dict[str, Callable[[], Network]] = {
    make.__name__: make for make in (branches.voice, branches.mixed, branches.nested, branches.shared)
}


def stored(feeds: Sequence[Feed], folder: Path) -> Path:
    """The feeds as a folder of samples."""
    folder.mkdir()
    for i, feed in enumerate(feeds):
        np.savez(folder / f"{i:03}.npz", **feed)
    return folder


def quantized(qconvert: Command, net: Network, folder: Path, *flags: object) -> tuple[Ran, Path]:
    """What the command said about ``net``, and the place of the result."""
    model, output = folder / "model.onnx", folder / "out.onnx"
    onnx.save(net.proto, model)
    calib = stored(net.feeds, folder / "calib")
    return qconvert("quantize", model, "--calib", calib, "-o", output, "--json", *flags), output


@pytest.fixture
def by_defaults(qconvert: Command, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Ran, Path]]:
    """``quantized`` for a name of ``CASES``, without flags: one run for all tests that look at it.

    Beside the output lie model.onnx and calib/.
    """

    def made(name: str) -> tuple[Ran, Path]:
        if name not in _MADE:
            _MADE[name] = quantized(qconvert, CASES[name](), tmp_path_factory.mktemp(name))
        return _MADE[name]

    return made


_MADE: dict[str, tuple[Ran, Path]] = {}


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from graphs(attribute.g)


def ops_inside(path: Path) -> list[set[str]]:
    """The operators of every body of the model at ``path``."""
    return [{n.op_type for n in g.node} for g in list(graphs(onnx.load(path).graph))[1:]]


def ops_of_branches(path: Path) -> tuple[set[str], set[str]]:
    """The operators of then_branch and else_branch of the one If in the main graph."""
    (node,) = (n for n in onnx.load(path).graph.node if n.op_type == "If")
    found = {a.name: {n.op_type for n in a.g.node} for a in node.attribute}
    return found["then_branch"], found["else_branch"]


def as_run(path: Path) -> Path:
    """The graph that ONNX Runtime makes of the model at ``path``."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(path.with_suffix(".run.onnx"))
    ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return path.with_suffix(".run.onnx")


def sqnr(model: Path, output: Path, feeds: Sequence[Feed]) -> float:
    """Over all float outputs and all feeds, in dB."""
    pair = [ort.InferenceSession(p, providers=["CPUExecutionProvider"]) for p in (model, output)]
    signal = noise = 0.0
    for feed in feeds:
        for a, b in zip(*(s.run(None, feed) for s in pair), strict=True):
            signal += float((a.astype(np.float64) ** 2).sum())
            noise += float(((a.astype(np.float64) - b) ** 2).sum())
    return 10 * np.log10(signal / noise) if noise else np.inf


def float_weights(graph: onnx.GraphProto) -> list[str]:
    """Initializers that a Conv, Gemm or MatMul could read: at least two axes of more than one element."""
    return [
        t.name
        for g in graphs(graph)
        for t in g.initializer
        if t.data_type == TensorProto.FLOAT and sum(d > 1 for d in t.dims) > 1
    ]


@pytest.mark.parametrize("form", ["qdq", "qoperator"])
@pytest.mark.parametrize("name", CASES)
def test_branches_run_on_integers(
    name: str, form: str, qconvert: Command, tmp_path: Path, by_defaults: Callable[[str], tuple[Ran, Path]]
) -> None:
    net = CASES[name]()
    ran, output = by_defaults(name) if form == "qdq" else quantized(qconvert, net, tmp_path, "--format", form)
    assert (ran.code, ran.err) == (0, "")
    report = ran.report
    verification = report["verification"]
    assert (verification["checker"], verification["interface"]) == ("", [])
    assert verification["census"]["unfused"] == []
    assert not [n for n in report["notes"] if "stays float" in n]
    model = onnx.load(output)
    onnx.checker.check_model(model, full_check=True)
    assert [v.name for v in model.graph.input] == [v.name for v in net.proto.graph.input]
    assert list(model.graph.output) == list(net.proto.graph.output)
    kernels = {"QLinearConv", "QLinearMatMul", "QGemm", "MatMulIntegerToFloat"}
    inside = ops_inside(as_run(output))
    assert inside and all(ops & kernels for ops in inside)
    # no weight is kept in float, neither in a branch nor in the main graph; LSTM computes in float with stored ones
    assert not float_weights(model.graph)
    assert report["body_parameters"] <= 16
    assert any(t.data_type == TensorProto.INT8 for g in list(graphs(model.graph))[1:] for t in g.initializer)


@pytest.mark.parametrize("name", CASES)
def test_accuracy_on_data_not_seen(name: str, by_defaults: Callable[[str], tuple[Ran, Path]]) -> None:
    net = CASES[name]()
    ran, output = by_defaults(name)
    assert ran.code == 0
    rng = np.random.default_rng(77)
    for chosen in {tuple(v.item() for v in f.values() if np.ndim(v) == 0): f for f in net.feeds}.values():
        feeds = [
            {k: rng.standard_normal(v.shape).astype(v.dtype) if v.ndim else v for k, v in chosen.items()}
            for _ in range(8)
        ]
        assert sqnr(output.with_name("model.onnx"), output, feeds) >= LEAST_DB


@pytest.mark.parametrize("name", CASES)
def test_the_same_bytes_again(
    name: str, qconvert: Command, tmp_path: Path, by_defaults: Callable[[str], tuple[Ran, Path]]
) -> None:
    ran, first = by_defaults(name)
    model, calib, output = first.with_name("model.onnx"), first.with_name("calib"), tmp_path / "out.onnx"
    again = qconvert("quantize", model, "--calib", calib, "-o", output, "-q")
    assert (ran.code, again.code) == (0, 0)
    assert output.read_bytes() == first.read_bytes()


def test_decisions_say_where(by_defaults: Callable[[str], tuple[Ran, Path]]) -> None:
    ran, _ = by_defaults("nested")
    taken = {d["node"] for d in ran.report["decisions"] if d["quantized"]}
    assert "first/then_branch/m_Conv_0" in taken
    assert "first/then_branch/m_second/else_branch/me_Conv_2" in taken
    assert "first/else_branch/e_Conv_0" in taken


def test_a_branch_that_is_never_taken_stores_its_weights(qconvert: Command, tmp_path: Path) -> None:
    net = branches.voice()
    one = Network(proto=net.proto, feeds=branches.voice_feeds(24, rates=(16000,)))
    ran, output = quantized(qconvert, one, tmp_path)
    assert ran.code == 0
    assert "rate/else_branch: nothing there runs on integers: no calibration sample selects it" in ran.report["notes"]
    then, other = ops_of_branches(as_run(output))
    assert "QLinearConv" in then
    # float arithmetic, and nothing left to compute of what unpacks the weights
    assert not other & {"QLinearConv", "QuantizeLinear", "DequantizeLinear", "Cast", "Sub", "Mul"}
    whole = {t.name: np.prod(t.dims) for g in graphs(onnx.load(output).graph) for t in g.initializer}
    assert all(whole[name] < 512 for name in float_weights(onnx.load(output).graph))
    assert output.stat().st_size < (tmp_path / "model.onnx").stat().st_size / 2.5
    assert sqnr(tmp_path / "model.onnx", output, branches.voice_feeds(4, seed=5, rates=(8000,))) > 30


def test_patterns_reach_into_branches(qconvert: Command, tmp_path: Path) -> None:
    ran, output = quantized(
        *(qconvert, branches.mixed(), tmp_path, "--exclude", "choice/then_branch/*", "--exclude", "e_Conv_0")
    )
    assert (ran.code, ran.err) == (0, "")
    decisions = {d["node"]: d for d in ran.report["decisions"]}
    assert decisions["choice/then_branch/t_Conv_0"]["reason"] == "excluded by --exclude"
    assert decisions["choice/else_branch/e_Conv_0"]["reason"] == "excluded by --exclude"
    assert decisions["choice/else_branch/e_Conv_2"]["quantized"]
    assert {t.name for t in next(graphs(onnx.load(output).graph)).initializer if t.data_type == TensorProto.INT8}


def test_include_of_a_branch_only(qconvert: Command, tmp_path: Path) -> None:
    ran, _ = quantized(qconvert, branches.mixed(), tmp_path, "--include", "choice/then_branch/*")
    assert (ran.code, ran.err) == (0, "")
    taken = {d["node"] for d in ran.report["decisions"] if d["quantized"]}
    assert taken and all(n.startswith("choice/then_branch/") for n in taken)


def test_patterns_that_select_nothing(qconvert: Command, tmp_path: Path) -> None:
    ran, output = quantized(qconvert, branches.mixed(), tmp_path, "--exclude", "nobody")
    assert ran.code == 2
    assert "nobody" in ran.err
    assert not output.exists()


@pytest.mark.parametrize("name", ["loop_only", "never"])
def test_weights_out_of_reach_are_no_reason_to_refuse(name: str, qconvert: Command, tmp_path: Path) -> None:
    net = branches.loop_only() if name == "loop_only" else branches.voice()
    flags = ("--exclude", "Conv", "--exclude", "LSTM", "--exclude", "Unsqueeze") if name == "never" else ()
    ran, output = quantized(qconvert, net, tmp_path, *flags)
    assert ran.code == 0
    report = ran.report
    assert report["body_parameters"] > 0
    assert any(w.startswith("nothing was quantized: ") for w in report["warnings"])
    assert not [g for g in graphs(onnx.load(output).graph) for t in g.initializer if t.data_type == TensorProto.INT8]
    assert sqnr(tmp_path / "model.onnx", output, net.feeds[:4]) > 100


def test_branches_that_only_fail_together_compute_in_float(
    qconvert: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A main graph that cannot be loaded with its quantized branches is tried without them."""
    loaded = conversion.session_of

    def refuse(model: Model) -> Session:
        main = {n.op_type for n in model.ir.graph}
        inside = {n.op_type for g in model.ir.graph.subgraphs() for n in g}
        if "QuantizeLinear" in main & inside:
            raise ModelError("not like that")
        return loaded(model)

    monkeypatch.setattr(conversion, "session_of", refuse)
    ran, output = quantized(qconvert, branches.mixed(), tmp_path)
    assert (ran.code, ran.err) == (0, "")
    assert any(n.startswith("nothing in control-flow bodies runs on integers: ") for n in ran.report["notes"])
    assert not any("QuantizeLinear" in ops for ops in ops_inside(output))
    assert {n.op_type for n in onnx.load(output).graph.node} >= {"QuantizeLinear", "If"}


@pytest.mark.parametrize("stage", ["extract", "splice", "convert_and_recover"])
def test_a_failure_costs_the_branch_only(
    stage: str, qconvert: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = getattr(quantizing, stage)
    calls = []

    def fail_first(*arguments: object, **options: object) -> object:
        calls.append(stage)
        if len(calls) == 1:
            raise ValueError("an odd graph")
        return real(*arguments, **options)

    monkeypatch.setattr(quantizing, stage, fail_first)
    ran, output = quantized(qconvert, branches.voice(), tmp_path)
    assert (ran.code, ran.err) == (0, "")
    assert "rate/then_branch: nothing there runs on integers: ValueError: an odd graph" in ran.report["notes"]
    then, other = ops_of_branches(output)
    assert "QuantizeLinear" not in then
    assert "QuantizeLinear" in other


def test_nothing_to_quantize_and_no_bodies_is_refused(qconvert: Command, tmp_path: Path) -> None:
    array = numpy_helper.from_array(np.ones(3, np.float32), "one")
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", ["x", "one"], ["y"], name="add")],
        "g",
        [value("x", TensorProto.FLOAT, [1, 3])],
        [value("y", TensorProto.FLOAT, [1, 3])],
        [array],
    )
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    rng = np.random.default_rng(0)
    feeds: list[Feed] = [{"x": rng.standard_normal((1, 3)).astype(np.float32)} for _ in range(4)]
    ran, output = quantized(qconvert, Network(proto=proto, feeds=feeds), tmp_path)
    assert ran.code == 2
    assert "nothing to quantize" in ran.err
    assert not output.exists()

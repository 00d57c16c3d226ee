"""Models that compute in float16 under every scheme: the same interface, integers inside, and no larger a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from networks.all import NETWORKS
from networks.branches import voice
from networks.builder import Network
from networks.halves import halved
from onnx import TensorProto
from onnxruntime import InferenceSession, SessionOptions

import qconvert
from qconvert.calibrate.data import DataSpec
from qconvert.errors import ModelError
from qconvert.pipeline import QuantizeJob
from qconvert.quantizing import quantize
from qconvert.recipe.recipe import Recipe
from qconvert.report.model import Report

STATIC = Recipe(target="x86-vnni", placement="static", recover=("none",))


class Run:
    """A network in float16, quantized."""

    def __init__(self, net: Network, recipe: Recipe, folder: Path) -> None:
        self.net, self.source = net, folder / "model.onnx"
        self.source.write_bytes(net.proto.SerializeToString())
        self.data, self.output = folder / "calib", folder / "out.onnx"
        self.data.mkdir()
        for i, feed in enumerate(net.feeds):
            np.savez(self.data / f"{i}.npz", **feed)
        spec = DataSpec(sources=(str(self.data),))
        self.report: Report = quantize(QuantizeJob(model=self.source, calib=spec, recipe=recipe, output=self.output))
        self.proto = onnx.load(self.output)

    @property
    def share(self) -> float:
        """Size of the result as a share of the original's."""
        return self.output.stat().st_size / self.source.stat().st_size

    @property
    def sqnr_db(self) -> float:
        assert self.report.accuracy is not None
        return self.report.accuracy.comparison.fidelity.sqnr_db

    def kernels(self) -> list[str]:
        """Operators that ONNX Runtime runs."""
        options = SessionOptions()
        options.optimized_model_filepath = str(self.output.with_suffix(".optimized.onnx"))
        InferenceSession(str(self.output), options, providers=["CPUExecutionProvider"])
        return [n.op_type for n in onnx.load(options.optimized_model_filepath).graph.node]


def constants(proto: onnx.ModelProto) -> dict[str, str]:
    return {t.name: TensorProto.DataType.Name(t.data_type) for t in proto.graph.initializer}


def same_ports(run: Run) -> bool:
    before, after = run.net.proto.graph, run.proto.graph
    return [*before.input, *before.output] == [*after.input, *after.output]


@pytest.mark.parametrize("keep_io", [False, True])
def test_static_int8(keep_io: bool, tmp_path: Path) -> None:
    run = Run(halved(NETWORKS["mobilenet_v2"](), keep_io=keep_io), STATIC, tmp_path)
    assert same_ports(run)
    assert run.kernels().count("QLinearConv") >= 5
    assert run.sqnr_db > 20
    assert sum("computes in float16" in note for note in run.report.notes) == 1
    assert not run.report.verification.interface


def test_static_int8_is_what_it_is_of_the_float32_model(tmp_path: Path) -> None:
    """The weights are those of float16, so codes may differ by one; what runs where may not."""
    net = NETWORKS["resnet"]()
    (tmp_path / "half").mkdir()
    (tmp_path / "float").mkdir()
    half, real = Run(halved(net), STATIC, tmp_path / "half"), Run(net, STATIC, tmp_path / "float")
    placed = [{d.node for d in run.report.decisions if d.quantized} for run in (half, real)]
    assert placed[0] == placed[1]
    assert half.sqnr_db > real.sqnr_db - 2


def test_a_mixed_model_runs_on_integers(tmp_path: Path) -> None:
    net = halved(NETWORKS["encoder_layernorm"](), keep_io=True, blocked=["LayerNormalization", "Softmax"])
    run = Run(net, STATIC, tmp_path)
    assert same_ports(run)
    assert {"MatMulIntegerToFloat", "QLinearMatMul"} & {*run.kernels()}
    assert run.sqnr_db > 20
    assert run.share < 1


@pytest.mark.parametrize("name", ["resnet", "mobilenet_v2"])
def test_convolutions_that_stay_float_are_no_larger(name: str, tmp_path: Path) -> None:
    recipe = Recipe(target="x86-vnni", placement="static", recover=("none",), include=("Gemm",))
    run = Run(halved(NETWORKS[name]()), recipe, tmp_path)
    held = constants(run.proto)
    filters = {n.input[1] for n in run.proto.graph.node if n.op_type == "Conv"}
    casts = {n.output[0]: n.input[0] for n in run.proto.graph.node if n.op_type == "Cast"}
    large = [f for f in filters if f in casts]
    assert large and {held[casts[f]] for f in large} == {"FLOAT16"}
    assert sum(n for kind, n in run.report.output.by_kind.items() if kind.endswith(" constants")) < sum(
        n for kind, n in run.report.model.by_kind.items() if kind.endswith(" constants")
    )
    # those of the input and the output are left: ONNX Runtime computes the others when it loads the model
    assert run.kernels().count("Cast") == 2
    assert run.sqnr_db > 25


def test_branches_run_on_integers(tmp_path: Path) -> None:
    run = Run(halved(voice()), STATIC, tmp_path)
    assert same_ports(run)
    assert any(d.quantized and d.node.startswith("rate/") for d in run.report.decisions)
    assert run.sqnr_db > 20
    assert run.share < 1


@pytest.mark.parametrize(
    ("scheme", "share", "least_db"),
    [("w8", 0.75, 30), ("w4", 0.75, 10), ("dynamic", 0.75, 20), ("fp16", 1.06, 50), ("bf16", 1.06, 35)],
)
def test_other_schemes(scheme: str, share: float, least_db: float, tmp_path: Path) -> None:
    run = Run(halved(NETWORKS["autoencoder_matmul"]()), Recipe(scheme=scheme), tmp_path)
    assert same_ports(run)
    assert run.share < share
    assert run.sqnr_db > least_db


def test_schemes_that_are_mixed_in_see_the_weights(tmp_path: Path) -> None:
    recipe = Recipe(target="x86-vnni", placement="static", recover=("none",), mix=("Conv_4=w8", "Gemm=float"))
    run = Run(halved(NETWORKS["byte_classifier"]()), recipe, tmp_path)
    reasons = {d.node: d.reason for d in run.report.decisions}
    assert reasons["Conv_4"].startswith("8-bit weights, a scale for each channel")
    assert run.sqnr_db > 15


def test_without_running_it(tmp_path: Path) -> None:
    net = halved(NETWORKS["autoencoder_matmul"]())
    source, output = tmp_path / "model.onnx", tmp_path / "out.onnx"
    source.write_bytes(net.proto.SerializeToString())
    report = quantize(QuantizeJob(model=source, recipe=Recipe(scheme="w8"), output=output, measure=False))
    assert any("computes in float16" in note for note in report.notes)
    assert output.stat().st_size < 0.75 * source.stat().st_size
    before, after = (InferenceSession(str(p), providers=["CPUExecutionProvider"]) for p in (source, output))
    for feed in net.feeds:
        x, y = (np.asarray(s.run(None, dict(feed))[0], np.float32) for s in (before, after))
        assert np.abs(x - y).max() < 0.05 * np.abs(x).max()


def test_the_commands_work_on_it(tmp_path: Path) -> None:
    run = Run(halved(NETWORKS["mobilenet_v2"]()), STATIC, tmp_path)
    inspection = qconvert.inspect(run.source, recipe=STATIC)
    assert inspection.planned["Conv"] > 5
    assert inspection.savings is not None
    assert inspection.savings.float_weight_bytes <= inspection.savings.constant_bytes
    size = run.output.stat().st_size
    assert 0.85 * size < inspection.savings.estimated_bytes < 1.15 * size
    found = qconvert.sensitivity(run.source, calib=run.data, recipe=STATIC)
    assert found.groups
    assert not qconvert.check(run.output).findings
    compared = qconvert.compare(run.source, run.output, data=run.data)
    assert compared.comparison.fidelity.sqnr_db > 20


def test_targets_take_it(tmp_path: Path) -> None:
    net = halved(NETWORKS["resnet"]())
    for target in ("x86-avx2", "arm64", "tensorrt", "openvino", "qnn"):
        folder = tmp_path / target
        folder.mkdir()
        run = Run(net, Recipe(target=target, placement="static", recover=("none",)), folder)
        assert any(n.op_type == "QuantizeLinear" for n in run.proto.graph.node)
        assert run.sqnr_db > 15


def test_a_model_without_anything_to_quantize_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nothing to quantize"):
        Run(halved(NETWORKS["nothing_to_quantize"]()), STATIC, tmp_path)


def test_functions_are_known_by_their_constants(tmp_path: Path) -> None:
    """Gelu, taken apart, divides by the root of 2, which float16 rounds: ONNX Runtime fuses it all the same."""
    recipe = Recipe(target="x86-vnni", placement="static", recover=("none",), include=("Gather",))
    run = Run(halved(NETWORKS["encoder_layernorm"]()), recipe, tmp_path)
    assert "BiasGelu" in run.kernels()
    assert "Erf" not in run.kernels()


@pytest.mark.parametrize("name", ["loop", "if_branches"])
def test_where_nothing_runs_on_integers_the_original_is_written(name: str, tmp_path: Path) -> None:
    recipe = Recipe(target="x86-vnni", placement="static", recover=("none",), exclude=("*",))
    run = Run(halved(NETWORKS[name]()), recipe, tmp_path)
    assert run.share <= 1
    assert any("written as it was" in note for note in run.report.notes)
    assert same_ports(run)

"""Weights of codebooks, signs and FP8: every kind of reader, where zeros go, what is stored once, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from networks.branches import voice
from networks.builder import Builder, Network
from networks.contract import measured
from onnx import TensorProto
from schemes.runs import Feeds

from qconvert.calibrate.data import DataSpec
from qconvert.errors import ModelError, RecipeError
from qconvert.graph.census import take_census
from qconvert.graph.model import load
from qconvert.graph.prepare.canonical import prepare
from qconvert.pipeline import QuantizeJob
from qconvert.quantizing import quantize
from qconvert.recipe.recipe import Recipe
from qconvert.recover.samples import Samples
from qconvert.schemes.application import apply, least_opset
from qconvert.schemes.scheme import Converted, check_combination

# scheme -> (least SQNR in dB, most of the float file) of :func:`language_model`
SCHEMES = {
    "palette:256": (38, 0.32),
    "palette:16": (15, 0.18),
    "nf4": (16, 0.19),
    "fp4": (14, 0.19),
    "binary": (2, 0.12),
    "fp8": (27, 0.29),
}


def language_model() -> Network:
    """A table, a product, a Gemm with bias and transB, and the table turned as output matrix."""
    rng = np.random.default_rng(0)
    b = Builder(seed=1)
    table = (rng.standard_normal((97, 48)) / 7).astype(np.float32)
    x = b.node("Gather", b.const(table), b.input("ids", ["n"], TensorProto.INT64), name="embed")
    x = b.node("Relu", b.node("MatMul", x, b.const((rng.standard_normal((48, 72)) / 7).astype(np.float32)), name="up"))
    down = (rng.standard_normal((48, 72)) / 8).astype(np.float32)
    x = b.node("Gemm", x, b.const(down), b.const(rng.standard_normal(48).astype(np.float32)), transB=1, name="down")
    b.output(b.node("MatMul", x, b.const(table.T.copy()), name="head"), ["n", 97])
    return Network(proto=b.model(), feeds=[{"ids": rng.integers(0, 97, 30)} for _ in range(4)])


def converted(net: Network, recipe: Recipe, folder: Path, *, data: bool = False) -> Converted:
    check_combination(recipe)
    path = folder / "model.onnx"
    path.write_bytes(net.proto.SerializeToString())
    prepared = prepare(load(path), net.feeds[0], min_opset=least_opset(recipe))
    samples = Samples(feeds=Feeds(net.feeds), indices=range(len(net.feeds))) if data else None
    return apply(prepared, recipe, samples, trials=net.feeds)


def quality(net: Network, result: Converted) -> float:
    """With and without ONNX Runtime's optimizations."""
    return min(db for outputs in measured(net, result.model.to_bytes()) for db in outputs.values())


@pytest.mark.parametrize("scheme", SCHEMES)
def test_products_and_tables(scheme: str, tmp_path: Path) -> None:
    net = language_model()
    result = converted(net, Recipe(scheme=scheme), tmp_path)
    onnx.checker.check_model(result.model.to_bytes())
    least_db, most = SCHEMES[scheme]
    assert quality(net, result) > least_db
    assert len(result.model.to_bytes()) < most * len(net.proto.SerializeToString())
    codes = [i for i in load_graph(result).initializer if i.name.endswith("_q")]
    assert len(codes) == 3  # the table is the output matrix, too
    ops = take_census(result.model, ()).ops
    assert ops.get("MatMulBnb4", 0) == (3 if scheme in ("nf4", "fp4") else 0)
    # what decodes weights is gone once ONNX Runtime has loaded the model
    assert set(ops) <= {"Gather", "MatMul", "FusedMatMul", "Gemm", "Relu", "Add", "MatMulBnb4"}
    assert ops["Gather"] == 1


def load_graph(result: Converted) -> onnx.GraphProto:
    return onnx.load_from_string(result.model.to_bytes()).graph


def test_forms_on_request(tmp_path: Path) -> None:
    net = language_model()
    plain = converted(net, Recipe(scheme="nf4"), tmp_path)
    unfolded = converted(net, Recipe(scheme="nf4", weight_format="qdq", block=16), tmp_path)
    assert {n.domain for n in load_graph(unfolded).node} == {""}
    assert quality(net, unfolded) > quality(net, plain)
    linear = converted(net, Recipe(scheme="fp8", weight_format="qdq"), tmp_path)
    assert [n.op_type for n in load_graph(linear).node].count("DequantizeLinear") == 3
    assert quality(net, linear) > 27
    grouped = converted(net, Recipe(scheme="palette:16", block=16), tmp_path)
    assert quality(net, grouped) > quality(net, converted(net, Recipe(scheme="palette:16"), tmp_path))


def test_data_make_codes_more_exact(tmp_path: Path) -> None:
    net = language_model()
    for scheme in ("palette:16", "nf4"):
        recipe = Recipe(scheme=scheme, embeddings="float")
        found = converted(net, recipe, tmp_path, data=True)
        assert (found.method, found.samples) == ("gptq", len(net.feeds))
        assert quality(net, found) > quality(net, converted(net, recipe, tmp_path))


def test_schemes_are_mixed_by_node(tmp_path: Path) -> None:
    net = language_model()
    recipe = Recipe(scheme="w4", block=32, accuracy_level=1, mix=("up=palette:16", "down=nf4", "embed=fp8", "head=fp8"))
    result = converted(net, recipe, tmp_path)
    assert {n.decision.taken for n in result.nodes.values() if n.op_type != "Relu"} == {True}
    ops = [n.op_type for n in load_graph(result).node]
    assert (ops.count("MatMulBnb4"), ops.count("MatMulNBits")) == (1, 0)
    assert quality(net, result) > 14
    half = converted(net, Recipe(scheme="fp16", mix=("up=palette:256", "head=fp8", "embed=fp8")), tmp_path)
    assert half.nodes["down"].decision.reason == "float16"
    assert quality(net, half) > 25


@pytest.mark.parametrize(("scheme", "least_db"), [("binary", 1), ("fp8", 25)])
def test_weights_in_branches_become_small(scheme: str, least_db: float, tmp_path: Path) -> None:
    """Convolutions and LSTMs in the bodies of If; random weights, through five layers."""
    net = voice()
    result = converted(net, Recipe(scheme=scheme), tmp_path)
    assert 2.5 * len(result.model.to_bytes()) < len(net.proto.SerializeToString())
    assert quality(net, result) > least_db


def test_a_weight_read_both_ways_round(tmp_path: Path) -> None:
    """Rows cannot be output channels of both: decoded weights do not mind, scales of rows do."""
    b = Builder(seed=5)
    shared = b.const((np.random.default_rng(5).standard_normal((64, 64)) / 8).astype(np.float32))
    x = b.node("MatMul", b.input("x", ["n", 64]), shared)
    b.output(b.node("Gemm", x, shared, transB=1), ["n", 64])
    feeds = [{"x": np.random.default_rng(6).standard_normal((5, 64)).astype(np.float32)}]
    net = Network(proto=b.model(), feeds=feeds)
    for scheme in ("nf4", "palette:16", "fp8"):
        assert quality(net, converted(net, Recipe(scheme=scheme), tmp_path)) > 15
    for scheme in ("w8", "w4", "dynamic"):
        with pytest.raises(ModelError, match="both ways round"):
            converted(net, Recipe(scheme=scheme), tmp_path)


def test_a_small_weight_is_left_alone(tmp_path: Path) -> None:
    b = Builder(seed=2)
    b.output(b.node("MatMul", b.input("x", ["n", 16]), b.const(np.ones((16, 32), np.float32))), ["n", 32])
    net = Network(proto=b.model(), feeds=[{"x": np.ones((2, 16), np.float32)}])
    with pytest.raises(ModelError, match="512 numbers take less than a codebook"):
        converted(net, Recipe(scheme="palette:256"), tmp_path)


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"scheme": "palette:16", "weight_format": "nbits"}, "no operator of ONNX Runtime"),
        ({"scheme": "palette:16", "block": -1}, "takes what palette:16 saves"),
        ({"scheme": "nf4", "rounding": "awq"}, "no rounding awq"),
        ({"scheme": "nf4", "weight_format": "nbits", "block": -1}, "blocks of 16 to 256"),
        ({"scheme": "fp4", "per_channel": False}, "not one in all"),
        ({"scheme": "binary", "symmetric": False}, "no zero points"),
        ({"scheme": "binary", "embeddings": "w8"}, "no 8-bit form"),
        ({"scheme": "fp8", "block": 32}, "not for blocks"),
        ({"scheme": "fp8", "format": "qoperator"}, "no operator of ONNX Runtime"),
    ],
)
def test_what_does_not_go_together_is_refused(choices: dict[str, object], words: str) -> None:
    with pytest.raises(RecipeError, match=words) as error:
        check_combination(Recipe(**choices))  # type: ignore[arg-type]
    assert error.value.hint


def pruned(folder: Path, *, convolution: bool) -> tuple[np.ndarray, Path, Path]:
    """(which weights are zero, a model of one weight that shows it for unit inputs, calibration data)."""
    rng = np.random.default_rng(7)
    w = (rng.standard_normal((40, 40)) / 6).astype(np.float32)
    w[rng.random(w.shape) < 0.5] = 0
    b = Builder(seed=7)
    tail = ["h", "v"] if convolution else []
    x = b.input("x", ["n", 40, *tail])
    w4 = np.ascontiguousarray(w.T)[:, :, None, None]
    y = b.node("Conv", x, b.const(w4)) if convolution else b.node("MatMul", x, b.const(w))
    b.output(y, ["n", 40, *tail])
    path = folder / "pruned.onnx"
    path.write_bytes(b.model().SerializeToString())
    x_data = rng.standard_normal((24, 40, *([2, 2] if convolution else []))).astype(np.float32)
    np.savez(folder / "calib.npz", x=x_data)
    return w == 0, path, folder / "calib.npz"


RECIPES = {
    s: Recipe(scheme=s, accuracy_level=1 if s in ("w8", "w4", "w2") else 4)
    for s in ("dynamic", "w8", "w4", "w2", "fp16", "bf16", "fp8", "palette:16", "nf4", "fp4", "binary")
}


@pytest.mark.parametrize("convolution", [False, True])
def test_zeros_stay_zeros_in_every_scheme(convolution: bool, tmp_path: Path) -> None:
    zero, model, data = pruned(tmp_path, convolution=convolution)
    unit = np.eye(40, dtype=np.float32).reshape(40, 40, *([1, 1] if convolution else []))
    pass_, target = ("adaround", "x86-avx2") if convolution else ("gptq", "x86-vnni")
    static = Recipe(placement="all", recover=(pass_,), target=target)
    for name, recipe in {f"int8, {pass_}": static, **RECIPES}.items():
        if convolution and name == "dynamic":
            continue  # leaves convolutions as they are
        output = tmp_path / "out.onnx"
        calibrated = recipe.scheme == "int8"
        report = quantize(
            QuantizeJob(
                model=model,
                output=output,
                recipe=recipe,
                calib=DataSpec(sources=(str(data),)) if calibrated else None,
                force=True,
                measure=calibrated,
            )
        )
        session = ort.InferenceSession(str(output), providers=["CPUExecutionProvider"])
        result = session.run(None, {"x": unit})[0].reshape(40, 40)
        lost = int((np.abs(result[zero]) > 1e-6).sum())
        assert lost == (zero.sum() if name == "binary" else 0), name
        assert [n for n in report.notes if n.startswith(f"sparsity: {100 * zero.mean():.1f} %")], name

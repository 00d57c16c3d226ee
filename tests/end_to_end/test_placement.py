"""Measured placement: what it decides is told, and pinned by a saved recipe. No test looks at which choice is made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from end_to_end.command import SAMPLES, Command, calib_of, model_of
from networks.builder import Builder

from qconvert.graph.model import load
from qconvert.graph.signature import session_of
from qconvert.recipe.recipe_file import load_recipe


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_pinned_run_writes_the_same_bytes(sample: str, qconvert: Command, tmp_path: Path) -> None:
    one, two, recipe = tmp_path / "one.onnx", tmp_path / "two.onnx", tmp_path / "recipe.yaml"
    common = ["quantize", model_of(sample), "--calib", calib_of(sample)]
    ran = qconvert(*common, "-o", one, "--placement", "measured", "--save-recipe", recipe, "--json")
    assert ran.code == 0, ran.err
    placement = ran.report["placement"]
    assert placement["chosen"] in [t["name"] for t in placement["trials"]]
    assert placement["fp32_ms"] > 0
    pinned = load_recipe(recipe)
    assert pinned.placement == "pinned"
    assert list(pinned.pinned_float) == placement["pinned_float"]
    assert list(pinned.forms) == placement["pinned_forms"]
    formed = [d["node"] for d in ran.report["decisions"] if d["form"]]
    assert formed == sorted((n for f in placement["forms"] for n in f["nodes"]), key=formed.index)
    assert all(0 < f["form_ms"] < f["plain_ms"] for f in placement["forms"])
    timed = [d for d in ran.report["decisions"] if d["float_ms"] is not None]
    assert timed
    assert all(d["float_ms"] >= 0 and d["integer_ms"] >= 0 for d in timed)

    again = qconvert(*common, "-o", two, "--recipe", recipe, "--json")
    assert again.code == 0, again.err
    assert again.report["placement"] is None
    assert one.read_bytes() == two.read_bytes()


def test_what_is_observed_does_not_hang_on_the_placement(qconvert: Command, tmp_path: Path) -> None:
    """ONNX Runtime adds in another order where it need not show a sum, and a last bit may decide a rounding."""
    b = Builder(seed=8)
    x = b.node("Relu", b.conv(b.input("x", [1, 3, 24, 24]), 3, 16, 3))
    for _ in range(4):
        x = b.node("Relu", b.node("Add", x, b.conv(b.node("Relu", b.conv(x, 16, 16, 3)), 16, 16, 3)))
    b.output(b.conv(x, 16, 8, 3, out="y"))
    model, calib, recipe = tmp_path / "m.onnx", tmp_path / "calib.npz", tmp_path / "recipe.yaml"
    onnx.save(b.model(), model)
    np.savez(calib, x=np.random.default_rng(3).normal(0, 1, (24, 3, 24, 24)).astype(np.float32))
    common = ["quantize", model, "--calib", calib, "-o"]
    assert qconvert(*common, tmp_path / "one.onnx", "--placement", "measured", "--save-recipe", recipe).code == 0
    assert "placement: pinned" in recipe.read_text(encoding="utf-8")
    assert qconvert(*common, tmp_path / "two.onnx", "--recipe", recipe).code == 0
    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "two.onnx").read_bytes()


def test_a_recipe_of_a_model_that_went_back_to_float_as_a_whole_gives_it_again(
    qconvert: Command, tmp_path: Path
) -> None:
    """One channel is so quiet, and its weights are so large, that 8 bits hold none of the others."""
    b = Builder(seed=8)
    weight = np.random.default_rng(3).normal(0, 0.1, (64, 32)).astype(np.float32)
    weight[0] *= 3e4
    b.output(b.node("MatMul", b.input("x", ["n", 64]), b.const(weight), out="y"))
    values = np.random.default_rng(4).normal(0, 1, (48, 64)).astype(np.float32)
    values[:, 0] *= 1e-4
    model, calib, recipe = tmp_path / "m.onnx", tmp_path / "calib.npz", tmp_path / "recipe.yaml"
    onnx.save(b.model(), model)
    np.savez(calib, x=values)
    common, measured = ["quantize", model, "--calib", calib, "-o"], ["--placement", "measured", "--recover", "none"]
    ran = qconvert(*common, tmp_path / "one.onnx", *measured, "--save-recipe", recipe, "--json")
    assert ran.code == 0
    assert [d["quantized"] for d in ran.report["decisions"]] == [False]
    again = qconvert(*common, tmp_path / "two.onnx", "--recipe", recipe)
    assert again.code == 0, again.err
    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "two.onnx").read_bytes()


def test_in_float_weights_are_stored_as_integers_and_cost_no_time(qconvert: Command, tmp_path: Path) -> None:
    output, recipe, optimized = tmp_path / "q.onnx", tmp_path / "recipe.yaml", tmp_path / "optimized.onnx"
    source = model_of("digits_cnn")
    names = [n.name for n in load(source).ir.graph if n.op_type not in ("Constant", "BatchNormalization")]
    lines = ["placement: pinned", "recover: [none]", "pinned_float:", *(f"- {name!r}" for name in names)]
    recipe.write_text("\n".join(lines), encoding="utf-8")
    ran = qconvert("quantize", source, "--calib", calib_of("digits_cnn"), "-o", output, "--recipe", recipe, "--json")
    assert ran.code == 0, ran.err
    assert output.stat().st_size < 0.4 * source.stat().st_size
    assert ran.report["accuracy"]["comparison"]["fidelity"]["sqnr_db"] > 30
    session_of(load(output), optimized_path=optimized)
    ops = {n.op_type for n in onnx.load_model(str(optimized), load_external_data=False).graph.node}
    # weights are unpacked when the model is loaded
    assert not ops & {"Cast", "Mul", "DequantizeLinear", "QuantizeLinear"}


def test_forms_are_written_as_a_recipe_says(qconvert: Command, tmp_path: Path) -> None:
    output, recipe = tmp_path / "q.onnx", tmp_path / "recipe.yaml"
    recipe.write_text("placement: static\nforms: ['MatMul=fused', 'Softmax=bounded']\n", encoding="utf-8")
    source, data = model_of("digits_transformer"), calib_of("digits_transformer")
    ran = qconvert(
        "quantize", source, "--calib", data, "-o", output, "--recipe", recipe, "--target", "x86-vnni", "--json"
    )
    assert ran.code == 0, ran.err
    fused = {d["node"] for d in ran.report["decisions"] if d["form"] == "fused"}
    assert fused
    nodes = {n.name: n.op_type for n in load(output).ir.graph}
    assert {nodes[name] for name in fused} == {"MatMulIntegerToFloat"}
    assert "Max" in nodes.values()
    assert ran.report["accuracy"]["comparison"]["fidelity"]["sqnr_db"] > 20


def test_ranges_hold_what_any_placement_may_ask_for(qconvert: Command, tmp_path: Path) -> None:
    source, ranges, recipe = model_of("digits_cnn"), tmp_path / "r.npz", tmp_path / "recipe.yaml"
    assert qconvert("calibrate", source, "--calib", calib_of("digits_cnn"), "-o", ranges).code == 0
    nodes = [n.name for n in load(source).ir.graph if n.op_type in ("Conv", "MaxPool", "GlobalAveragePool")]
    for i, name in enumerate(nodes):
        recipe.write_text(f"placement: pinned\nrecover: [none]\npinned_float: [{name!r}]\n", encoding="utf-8")
        ran = qconvert("quantize", source, "--ranges", ranges, "-o", tmp_path / f"{i}.onnx", "--recipe", recipe)
        assert ran.code == 0, ran.err


@pytest.mark.parametrize(
    ("recipe", "says"),
    [
        ("placement: pinned\npinned_float: [no_such_node]\n", "no_such_node"),
        ("placement: static\npinned_float: [x]\n", "means nothing with placement static"),
        ("forms: [no_such_node=fused]\n", "'no_such_node' matches no node"),
        ("forms: [Conv=fused]\n", "has the form 'fused'"),
        ("forms: [Conv]\n", "forms cannot hold 'Conv'"),
    ],
)
def test_wrong_pins_are_refused(recipe: str, says: str, qconvert: Command, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe, encoding="utf-8")
    output = tmp_path / "q.onnx"
    ran = qconvert(
        "quantize", model_of("digits_cnn"), "--calib", calib_of("digits_cnn"), "-o", output, "--recipe", path
    )
    assert ran.code == 2
    assert says in ran.err
    assert not output.exists()


def test_recurrent_weights_are_stored_by_default(qconvert: Command, tmp_path: Path) -> None:
    source, output = model_of("digits_gru"), tmp_path / "q.onnx"
    ran = qconvert("quantize", source, "--calib", calib_of("digits_gru"), "-o", output, "--json")
    assert ran.code == 0, ran.err
    assert output.stat().st_size < 0.35 * source.stat().st_size
    assert ran.report["accuracy"]["comparison"]["fidelity"]["sqnr_db"] > 20
    (gru,) = (d for d in ran.report["decisions"] if d["op_type"] == "GRU")
    assert gru["quantized"] and "weights stored as integers" in gru["reason"]


def both_directions(folder: Path) -> tuple[Path, Path]:
    """A model of an LSTM in both directions and a product, and data for it."""
    b = Builder(opset=17)
    x = b.input("x", [40, 1, 64])
    w, r = b.weight(2, 384, 64, fan_in=128), b.weight(2, 384, 96, fan_in=128)
    (y,) = b.nodes_out("LSTM", x, w, r, outs=["y"], hidden_size=96, direction="bidirectional")
    y = b.node("Reshape", b.node("Transpose", y, perm=[2, 0, 1, 3]), b.ints(1, 40, 192))
    b.output(b.matmul(y, 192, 10, out="logits"), [1, 40, 10])
    onnx.save(b.model(), folder / "m.onnx")
    steps = np.random.default_rng(0).normal(0, 0.4, (24, 40, 1, 64))
    np.savez(folder / "calib.npz", x=np.tanh(np.cumsum(steps, axis=1)).astype(np.float32))
    return folder / "m.onnx", folder / "calib.npz"


def test_an_lstm_in_both_directions_by_default(qconvert: Command, tmp_path: Path) -> None:
    """Whether its form is measured to be faster is the machine's affair; it has to be small and true in any case."""
    (source, data), output = both_directions(tmp_path), tmp_path / "q.onnx"
    ran = qconvert("quantize", source, "--calib", data, "-o", output, "--placement", "measured", "--json")
    assert ran.code == 0, ran.err
    assert output.stat().st_size < 0.35 * source.stat().st_size
    assert ran.report["accuracy"]["comparison"]["fidelity"]["sqnr_db"] > 20
    (lstm,) = (d for d in ran.report["decisions"] if d["op_type"] == "LSTM")
    assert lstm["quantized"] and "integer" in lstm["reason"]
    assert {n.op_type for n in load(output).ir.graph} & {"LSTM", "DynamicQuantizeLSTM"}


def test_a_budget_takes_back_what_is_stored_of_an_lstm(qconvert: Command, tmp_path: Path) -> None:
    (source, data), output, again = both_directions(tmp_path), tmp_path / "q.onnx", tmp_path / "again.onnx"
    common = ["quantize", source, "--calib", data]
    ran = qconvert(*common, "-o", output, "--placement", "measured", "--json")
    wanted = ran.report["accuracy"]["comparison"]["fidelity"]["sqnr_db"] + 1.5  # bytes can
    ran = qconvert(
        *common, "-o", output, "--force", "--json", "--placement", "measured", "--min-sqnr", f"{wanted:.2f}",
        "--save-recipe", tmp_path / "recipe.yaml",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert ran.report["accuracy"]["comparison"]["fidelity"]["sqnr_db"] >= wanted - 0.01
    (node,) = (n for n in load(output).ir.graph if "LSTM" in n.op_type)
    assert node.op_type == "LSTM"
    assert qconvert(*common, "-o", again, "--recipe", tmp_path / "recipe.yaml").code == 0
    assert output.read_bytes() == again.read_bytes()


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_recurrent_weights_that_bytes_cannot_hold_get_two(kind: str, qconvert: Command, tmp_path: Path) -> None:
    """Of each row one weight is 400 times the others, and what it is multiplied with is 0: 8 bits leave nothing."""
    source, data, output = tmp_path / "m.onnx", tmp_path / "calib.npz", tmp_path / "q.onnx"
    b = Builder(seed=2, opset=17)
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind] * 48
    w = b.rng.normal(0, 0.15, (1, gates, 32)).astype(np.float32)
    w[:, :, 5] = 60.0
    x = b.input("x", [20, 1, 32])
    (y,) = b.nodes_out(kind, x, b.const(w), b.weight(1, gates, 48, fan_in=96), outs=["y"], hidden_size=48)
    b.output(b.matmul(b.node("Reshape", y, b.ints(20, 48)), 48, 10, out="logits"), [20, 10])
    onnx.save(b.model(), source)
    steps = np.tanh(np.cumsum(np.random.default_rng(0).normal(0, 0.4, (24, 20, 1, 32)), axis=1)).astype(np.float32)
    steps[..., 5] = 0
    np.savez(data, x=steps)
    ran = qconvert("quantize", source, "--calib", data, "-o", output, "--placement", "measured", "--json")
    assert ran.code == 0, ran.err
    (decision,) = (d for d in ran.report["decisions"] if d["op_type"] == kind)
    assert decision["quantized"] and "16 bits" in decision["reason"]
    assert 0.4 * source.stat().st_size < output.stat().st_size < 0.65 * source.stat().st_size
    assert any("back in float" in note for note in ran.report["notes"])
    found = ran.report["accuracy"]["comparison"]["fidelity"]["sqnr_db"]
    assert found is None or found > 20


def test_a_model_for_which_integers_do_not_pay_comes_out_the_same_again(qconvert: Command, tmp_path: Path) -> None:
    """Its weights are too small to be stored as integers, so nothing is quantized, and the recipe says so."""
    b = Builder(seed=1)
    b.output(b.relu(b.matmul(b.input("x", ["n", 4]), 4, 4)))
    model, calib, recipe = tmp_path / "tiny.onnx", tmp_path / "calib.npz", tmp_path / "recipe.yaml"
    model.write_bytes(b.model().SerializeToString())
    np.savez(calib, x=np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32))
    outs = [tmp_path / "one.onnx", tmp_path / "two.onnx"]
    common = ["quantize", model, "--calib", calib]
    ran = qconvert(*common, "-o", outs[0], "--placement", "measured", "--save-recipe", recipe, "--json")
    assert ran.code == 0, ran.err
    again = qconvert(*common, "-o", outs[1], "--recipe", recipe, "--json")
    assert again.code == 0, again.err
    assert outs[0].read_bytes() == outs[1].read_bytes()

"""Whole runs for targets that are not this machine: what is written, refused, reported, and repeated."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from click.testing import CliRunner, Result

from qconvert.cli import run as run_cli
from qconvert.cli.quantize import command
from qconvert.cli.targets import command as targets_command
from qconvert.recipe.recipe_file import load_recipe
from qconvert.targets import TARGETS
from qconvert.targets.auto import detected

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
CNN, TRANSFORMER = (ROOT / "sample_models" / f"{name}.onnx" for name in ("digits_cnn", "digits_transformer"))
DATA = ROOT / "calibration_data"


def quantize(model: Path, output: Path, *options: str) -> Result:
    data = DATA / model.stem / "calib.npz"
    arguments = [str(model), "--calib", str(data), "-o", str(output), "--recover", "none", "--json", *options]
    return CliRunner().invoke(command, arguments, catch_exceptions=False)


def test_a_microcontroller_gets_integers_at_both_ends(tmp_path: Path) -> None:
    report = json.loads(quantize(CNN, tmp_path / "q.onnx", "--target", "tinyml").stdout)
    assert report["target"]["here"] is False
    assert report["verification"]["census"] is None
    assert not [w for w in report["warnings"] if "slower" in w]
    model = onnx.load(tmp_path / "q.onnx")
    ends = [*model.graph.input, *model.graph.output]
    assert {v.type.tensor_type.elem_type for v in ends} == {onnx.TensorProto.INT8}
    ports = {p["name"]: p for p in report["integer_ports"]}
    assert set(ports) == {v.name for v in ends}
    props = {p.key: json.loads(p.value) for p in model.metadata_props if p.key.startswith("qconvert:")}
    assert props[f"qconvert:input:{model.graph.input[0].name}"]["scale"] == ports[model.graph.input[0].name]["scale"]
    # by the numbers in the metadata alone, the model is as good as the original
    held = np.load(DATA / "digits_cnn" / "calib.npz")
    name = model.graph.input[0].name
    samples = held[name] if name in held else held[held.files[0]]
    x = np.asarray(samples[:1], np.float32)
    port = ports[name]
    codes = np.clip(np.rint(x / port["scale"]) + port["zero_point"], -128, 127).astype(np.int8)
    found = ort.InferenceSession(tmp_path / "q.onnx").run(None, {name: codes})[0]
    wanted = ort.InferenceSession(CNN).run(None, {name: x})[0]
    back = ports[model.graph.output[0].name]
    real = back["scale"] * (found.astype(np.float32) - back["zero_point"])
    assert 10 * np.log10((wanted**2).sum() / ((wanted - real) ** 2).sum()) > 20


def test_a_microcontroller_cannot_run_a_transformer(tmp_path: Path) -> None:
    output = tmp_path / "q.onnx"
    data = DATA / "digits_transformer" / "calib.npz"
    result = run_cli(["quantize", str(TRANSFORMER), "--calib", str(data), "-o", str(output), "--target", "tinyml"])
    assert result == 2
    assert not output.exists()


def test_the_refusal_lists_the_operators(tmp_path: Path) -> None:
    from qconvert.errors import ModelError

    with pytest.raises(ModelError, match=r"operators cannot run on .*LayerNormalization") as error:
        quantize(TRANSFORMER, tmp_path / "q.onnx", "--target", "tinyml")
    assert "qconvert targets tinyml" in error.value.hint


def test_an_excluded_operator_is_refused_where_there_is_no_float(tmp_path: Path) -> None:
    from qconvert.errors import ModelError

    with pytest.raises(ModelError, match="excluded by --exclude"):
        quantize(CNN, tmp_path / "q.onnx", "--target", "tinyml", "--exclude", "Gemm")


@pytest.mark.parametrize(
    "options", [("--format", "qoperator"), ("--activations", "uint8"), ("--asymmetric",)], ids=lambda o: o[0]
)
def test_what_tensorrt_cannot_run_is_bad_usage(options: tuple[str, ...], tmp_path: Path) -> None:
    output = tmp_path / "q.onnx"
    data = str(DATA / "digits_cnn" / "calib.npz")
    assert run_cli(["quantize", str(CNN), "--calib", data, "-o", str(output), "--target", "tensorrt", *options]) == 2
    assert not output.exists()


def test_the_text_says_what_was_measured_where(tmp_path: Path) -> None:
    output, data = tmp_path / "q.onnx", str(DATA / "digits_cnn" / "calib.npz")
    arguments = [str(CNN), "--calib", data, "-o", str(output), "--recover", "none"]
    other = CliRunner().invoke(command, [*arguments, "--target", "tensorrt"], catch_exceptions=False).stdout
    assert "latency is that of this machine" in " ".join(other.split())
    here = CliRunner().invoke(command, [*arguments, "--force"], catch_exceptions=False).stdout
    assert f"{detected().target}: " in here
    assert "detected" in here
    assert "latency is that of this machine" not in " ".join(here.split())


def test_a_saved_recipe_names_the_target_and_makes_the_same_bytes(tmp_path: Path) -> None:
    saved = tmp_path / "r.yaml"
    quantize(CNN, tmp_path / "a.onnx", "--save-recipe", str(saved))
    recipe = load_recipe(saved)
    assert recipe.target == detected().target
    assert None not in (recipe.activations, recipe.weights, recipe.symmetric, recipe.per_channel)
    quantize(CNN, tmp_path / "b.onnx", "--recipe", str(saved))
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


# ---- qconvert targets


def test_the_list_names_all() -> None:
    result = CliRunner().invoke(targets_command, [], catch_exceptions=False)
    assert all(name in result.stdout for name in TARGETS.names())
    assert f"auto is {detected().target} here" in result.stdout
    documents = json.loads(CliRunner().invoke(targets_command, ["--json"], catch_exceptions=False).stdout)
    assert [d["name"] for d in documents] == list(TARGETS.names())
    assert sum(d["here"] for d in documents) == 1


@pytest.mark.parametrize("name", TARGETS.names())
def test_a_target_says_why(name: str) -> None:
    text = CliRunner().invoke(targets_command, [name], catch_exceptions=False).stdout
    assert text.isascii()
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 120
    assert "[1]" in text.split("Sources")[1]
    document = json.loads(CliRunner().invoke(targets_command, [name, "--json"], catch_exceptions=False).stdout)
    assert {"Conv", "Add", "Softmax"} <= set(document["capabilities"])
    assert all(c["reason"] or c["integer"] for c in document["capabilities"].values())


def test_an_unknown_name_is_bad_usage() -> None:
    assert run_cli(["targets", "abacus"]) == 2

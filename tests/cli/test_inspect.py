"""``qconvert inspect``: the stage behind it, and the command."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import TensorProto, helper, numpy_helper, parser
from rich.console import Console

from qconvert.calibrate.data import DataSpec
from qconvert.cli import run as qconvert
from qconvert.cli.inspect import command, show
from qconvert.errors import ModelError, RecipeError
from qconvert.graph.model import load
from qconvert.graph.quantized import quantized_ops
from qconvert.inspection import Inspection, inspect_model
from qconvert.pipeline import QuantizeJob
from qconvert.quantizing import quantize
from qconvert.recipe.recipe import Recipe

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "sample_models"
NAMES = ["digits_cnn", "digits_transformer", "digits_gru"]


def written(tmp_path: Path, text: str, **initializers: np.ndarray) -> Path:
    """A model from ONNX text; arrays become initializers of the main graph."""
    model = parser.parse_model(text)
    model.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in initializers.items())
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    return path


def shown(inspection: Inspection, width: int = 100, *, verbose: bool = False) -> str:
    file = io.StringIO()
    show(inspection, Console(file=file, width=width, color_system=None), verbose=verbose)
    return file.getvalue()


def run(*arguments: str) -> Result:
    return CliRunner().invoke(command, list(arguments), catch_exceptions=False)


# ---- the sample models


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_is_described(name: str) -> None:
    path = SAMPLES / f"{name}.onnx"
    proto = onnx.load(path)
    inspection = inspect_model(path, Recipe())
    assert [t.name for t in inspection.inputs] == [v.name for v in proto.graph.input]
    assert [t.name for t in inspection.outputs] == [v.name for v in proto.graph.output]
    assert inspection.opset == 17
    assert sum(inspection.ops.values()) == len(proto.graph.node)
    assert inspection.bytes == path.stat().st_size == sum(inspection.by_kind.values())
    assert inspection.producer.startswith("pytorch")
    assert not inspection.obstacle
    assert not inspection.quantized_ops
    assert sum(inspection.planned.values()) == sum(d.quantized for d in inspection.decisions)
    assert all(d.reason for d in inspection.decisions)


def test_types_and_shapes() -> None:
    inspection = inspect_model(SAMPLES / "digits_transformer.onnx", Recipe())
    assert [(t.dtype, t.shape) for t in inspection.inputs] == [("int64", ("batch", "sequence"))] * 2
    assert [(t.dtype, t.shape) for t in inspection.outputs] == [("float32", ("batch", 10))]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_estimate_is_near_the_real_file(name: str, tmp_path: Path) -> None:
    output = tmp_path / "out.onnx"
    data = ROOT / "calibration_data" / name / "calib.npz"
    job = QuantizeJob(
        model=SAMPLES / f"{name}.onnx",
        calib=DataSpec(sources=(str(data),)),
        output=output,
        recipe=Recipe(placement="static"),  # what inspect plans: it measures nothing
    )
    quantize(job)
    savings = inspect_model(SAMPLES / f"{name}.onnx", Recipe()).savings
    assert savings is not None
    assert savings.estimated_bytes == pytest.approx(output.stat().st_size, rel=0.1)
    assert savings.integer_weight_bytes < savings.float_weight_bytes < savings.constant_bytes

    again = inspect_model(output, Recipe())
    assert again.quantized_ops == ("DequantizeLinear", "QuantizeLinear")
    assert again.savings is None
    assert "quantized already" in again.obstacle
    assert "Quantized already" in shown(again)
    assert "FP32 model" in shown(again)


def test_the_recipe_counts() -> None:
    path = SAMPLES / "digits_cnn.onnx"
    without = inspect_model(path, Recipe(exclude=("Conv",)))
    assert "Conv" not in without.planned
    assert "excluded by --exclude" in {d.reason for d in without.decisions}
    with pytest.raises(RecipeError, match="matches no node"):
        inspect_model(path, Recipe(exclude=("Cnov",)))
    with pytest.raises(RecipeError, match="unknown target"):
        inspect_model(path, Recipe(target="abacus"))


# ---- models that cannot be run, or hold odd things


def test_an_operator_that_onnx_runtime_lacks(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """<ir_version: 8, opset_import: ["" : 17, "acme" : 1]>
        g (float[N, 4] x) => (float[N, 3] y) { h = acme.Mystery(x)  y = MatMul(h, w) }""",
        w=np.ones((4, 3), np.float32),
    )
    inspection = inspect_model(path, Recipe())
    assert inspection.ops == {"acme:Mystery": 1, "MatMul": 1}
    assert inspection.domains == {"acme": 1}
    assert {d.op_type: d.reason for d in inspection.decisions}["Mystery"] == "operator of the domain acme, left alone"
    assert "acme 1" in shown(inspection)
    assert "Mystery" in inspection.refusal
    assert "qconvert quantize" not in shown(inspection)


@pytest.mark.parametrize("form", ["text", "json"])
def test_what_onnx_runtime_refuses_is_shown_and_refused(
    form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(
        tmp_path,
        """<ir_version: 8, opset_import: ["" : 17, "acme" : 1]>
        g (float[N, 4] x) => (float[N, 3] y) { h = acme.Mystery(x)  y = MatMul(h, w) }""",
        w=np.ones((4, 3), np.float32),
    )
    assert qconvert(["inspect", str(path), *(["--json"] if form == "json" else [])]) == 2
    printed = capsys.readouterr()
    if form == "json":
        assert "Mystery" in json.loads(printed.out)["refusal"]
    else:
        assert "acme:Mystery" in printed.out
    assert printed.err.startswith(f"error: {path}: ONNX Runtime ")
    assert "hint:" in printed.err
    # and it is refused by the next step in the same way
    assert qconvert(["check", str(path)]) == 2
    assert capsys.readouterr().err.startswith(f"error: {path}: ONNX Runtime ")


def test_bodies_and_their_weights(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[2, 2] x, bool c) => (float[2, 2] y) {
            h = MatMul(x, w)
            y = If(c) <then_branch = t () => (float[2, 2] a) <float[2, 2] v = {1, 2, 3, 4}> { a = MatMul(h, v) },
                       else_branch = e () => (float[2, 2] b) { b = Relu(h) }>
        }""",
        w=np.ones((2, 2), np.float32),
    )
    inspection = inspect_model(path, Recipe())
    assert [(b.op_type, b.parameters) for b in inspection.bodies] == [("If", 4)]
    assert inspection.ops == {"MatMul": 2, "If": 1, "Relu": 1}
    assert "4 float parameters inside" in shown(inspection)


def test_functions_are_looked_into(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """<ir_version: 8, opset_import: ["" : 17, "f" : 1]>
        g (float[N, 4] x) => (float[N, 3] y) { y = f.twice(x, w) }
        <domain: "f", opset_import: ["" : 17]> twice (a, b) => (c) { d = MatMul(a, b)  c = Add(d, d) }""",
        w=np.ones((4, 3), np.float32),
    )
    inspection = inspect_model(path, Recipe())
    assert inspection.functions == 1
    assert inspection.ops == {"f:twice": 1, "MatMul": 1, "Add": 1}
    assert {d.op_type for d in inspection.decisions} == {"Gemm", "Add"}


def test_weights_among_the_inputs_are_no_inputs(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """<ir_version: 3, opset_import: ["" : 13]>
        g (float[N, 4] x, float[4, 3] w) => (float[N, 3] y) { y = MatMul(x, w) }""",
        w=np.ones((4, 3), np.float32),
    )
    assert [t.name for t in inspect_model(path, Recipe()).inputs] == ["x"]


def test_a_model_that_cannot_be_prepared_is_still_described(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """<ir_version: 8, opset_import: ["" : 7, "acme" : 1]>
        g (float[N, 4] x) => (float[N, 3] y) { h = Upsample <mode = "strange"> (x)  y = MatMul(h, w) }""",
        w=np.ones((4, 3), np.float32),
    )
    inspection = inspect_model(path, Recipe())
    assert inspection.ops == {"Upsample": 1, "MatMul": 1}
    assert "cannot be prepared" in inspection.obstacle
    assert "Cannot be quantized" in shown(inspection)


def test_nothing_to_gain_is_said(tmp_path: Path) -> None:
    path = written(tmp_path, '<ir_version: 8, opset_import: ["" : 17]> g (float[N] x) => (float[N] y) { y = Sin(x) }')
    inspection = inspect_model(path, Recipe())
    assert not inspection.planned
    assert "would not help" in shown(inspection)


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_text("hello")
    with pytest.raises(ModelError, match="not an ONNX model"):
        inspect_model(tmp_path / "m.onnx", Recipe())
    with pytest.raises(ModelError, match="no such file"):
        inspect_model(tmp_path / "none.onnx", Recipe())


# ---- quantized already


@pytest.mark.parametrize(
    "op",
    """QuantizeLinear DequantizeLinear DynamicQuantizeLinear QLinearConv QLinearMatMul MatMulInteger ConvInteger
    com.microsoft.QLinearAdd com.microsoft.QGemm com.microsoft.MatMulNBits com.microsoft.DynamicQuantizeMatMul
    com.microsoft.MatMulIntegerToFloat com.microsoft.QAttention com.microsoft.GatherBlockQuantized
    com.microsoft.DynamicQuantizeLSTM com.microsoft.MatMulBnb4 trt.TRT_INT8QuantizeLinear""".split(),
)
def test_quantized_operators_are_seen_everywhere(op: str, tmp_path: Path) -> None:
    domain, _, name = op.rpartition(".")
    node = helper.make_node(name, ["x"], ["y"], domain=domain)
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    x, c = (
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [1]),
        helper.make_tensor_value_info("c", TensorProto.BOOL, []),
    )
    body = helper.make_graph([node], "body", [], [out])
    branch = helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body)
    opsets = [
        helper.make_opsetid("", 17),
        helper.make_opsetid("f", 1),
        *([helper.make_opsetid(domain, 1)] if domain else []),
    ]
    function = helper.make_function("f", "F", ["x"], ["y"], [node], opsets)
    call = helper.make_node("F", ["x"], ["y"], domain="f")
    models = [
        helper.make_model(helper.make_graph([node], "g", [x], [out]), opset_imports=opsets),
        helper.make_model(helper.make_graph([branch], "g", [x, c], [out]), opset_imports=opsets),
        helper.make_model(helper.make_graph([call], "g", [x], [out]), opset_imports=opsets, functions=[function]),
    ]
    for i, model in enumerate(models):
        path = tmp_path / f"{i}.onnx"
        path.write_bytes(model.SerializeToString())
        assert quantized_ops(load(path)) == (name,)


@pytest.mark.parametrize("name", NAMES)
def test_float_models_are_float(name: str) -> None:
    assert quantized_ops(load(SAMPLES / f"{name}.onnx")) == ()


@pytest.mark.parametrize(
    "op", ["com.microsoft.QuickGelu", "MaxPool", "Cast", "com.microsoft.Attention", "acme.Quantile"]
)
def test_other_operators_are_not_mistaken(op: str, tmp_path: Path) -> None:
    domain, _, name = op.rpartition(".")
    info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in "xy"]
    graph = helper.make_graph([helper.make_node(name, ["x"], ["y"], domain=domain)], "g", info[:1], info[1:])
    (tmp_path / "m.onnx").write_bytes(helper.make_model(graph).SerializeToString())
    assert quantized_ops(load(tmp_path / "m.onnx")) == ()


# ---- the command


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_the_text_fits_and_tells_what_matters(name: str, width: int) -> None:
    text = shown(inspect_model(SAMPLES / f"{name}.onnx", Recipe()), width)
    assert text.isascii()
    assert max(len(line.rstrip()) for line in text.splitlines()) <= min(width, 120)
    for words in (f"{name}.onnx", "opset 17", "Would run on integers", "would become about", "qconvert quantize"):
        assert words in text


def test_an_unusual_path_is_quoted() -> None:
    inspection = replace(inspect_model(SAMPLES / "digits_gru.onnx", Recipe()), path="my models/a.onnx")
    assert "qconvert quantize 'my models/a.onnx' --calib DATA" in shown(inspection)


def test_verbose_names_every_node() -> None:
    result = run(str(SAMPLES / "digits_gru.onnx"), "-v")
    squeezed = "".join(result.stdout.split())
    for decision in inspect_model(SAMPLES / "digits_gru.onnx", Recipe()).decisions:
        assert decision.node in squeezed


@pytest.mark.parametrize("name", NAMES)
def test_json_is_one_document(name: str) -> None:
    result = run(str(SAMPLES / f"{name}.onnx"), "--json")
    document = json.loads(result.stdout)
    assert result.exit_code == 0
    assert result.stderr == ""
    assert document["obstacle"] == ""
    assert len(document["decisions"]) > 0
    assert document["savings"]["estimated_bytes"] < document["bytes"]


def test_a_recipe_file_is_taken(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("exclude: [Conv]\n")
    document = json.loads(run(str(SAMPLES / "digits_cnn.onnx"), "--json", "--recipe", str(tmp_path / "r.yaml")).stdout)
    assert "Conv" not in document["planned"]


def test_the_example_in_the_help_runs() -> None:
    text = run("--help").stdout
    example = next(line for line in text.splitlines() if line.strip().startswith("qconvert inspect")).split()
    result = subprocess.run([sys.executable, "-m", *example], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "Would run on integers" in result.stdout


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from qconvert.cli.inspect import command\n"
        "try: command(['--help'])\nexcept SystemExit: pass\n"
        "print(*{'numpy', 'onnx', 'onnx_ir', 'onnxruntime', 'rich'} & set(sys.modules), file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stderr.strip() == ""


# ---- other schemes


@pytest.mark.parametrize(
    ("scheme", "mix"), [("w4", ()), ("fp16", ()), ("dynamic", ()), ("palette:16", ()), ("w8", ("Gemm=w4",))]
)
def test_another_scheme_is_shown_as_it_turns_out(scheme: str, mix: tuple[str, ...], tmp_path: Path) -> None:
    path, output = SAMPLES / "digits_transformer.onnx", tmp_path / "out.onnx"
    recipe = Recipe(scheme=scheme, mix=mix)
    inspection = inspect_model(path, recipe)
    report = quantize(QuantizeJob(model=path, output=output, recipe=recipe))
    assert inspection.savings is not None
    assert inspection.savings.estimated_bytes == pytest.approx(output.stat().st_size, rel=0.02)
    assert {d.node for d in inspection.decisions if d.quantized} == {d.node for d in report.decisions if d.quantized}
    assert f"--scheme {scheme}" in shown(inspection)


def test_a_static_scheme_with_others_mixed_in() -> None:
    path = SAMPLES / "digits_transformer.onnx"
    alone = inspect_model(path, Recipe())
    mixed = inspect_model(path, Recipe(mix=("Gemm=w4",)))
    (gemm,) = [d for d in mixed.decisions if d.op_type == "Gemm"]
    assert gemm.quantized and "4-bit weights" in gemm.reason
    assert alone.savings is not None and mixed.savings is not None
    assert mixed.savings.integer_weight_bytes < alone.savings.integer_weight_bytes
    assert "scheme int8; Gemm=w4" in " ".join(shown(mixed).split())


def test_what_a_scheme_cannot_convert_is_an_obstacle(tmp_path: Path) -> None:
    text = '<ir_version: 8, opset_import: ["" : 17]> g (float[2,3] x) => (float[2,3] y) { y = Relu (x) }'
    inspection = inspect_model(written(tmp_path, text), Recipe(scheme="w4"))
    assert "nothing for w4 to convert" in inspection.obstacle
    assert not inspection.decisions and inspection.savings is None


def test_a_scheme_is_refused_what_it_cannot_be() -> None:
    with pytest.raises(RecipeError, match="QOperator"):
        inspect_model(SAMPLES / "digits_cnn.onnx", Recipe(scheme="w4", format="qoperator"))


def test_a_dry_run_reads_and_says_what_would_be_planned(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("version: 1\nscheme: w4\n")
    done = run(str(SAMPLES / "digits_cnn.onnx"), "--recipe", str(recipe), "--dry-run")
    assert done.exit_code == 0
    assert "scheme    w4" in done.stdout and "nothing was written" in done.stdout and "Conv" not in done.stdout
    recipe.write_text("version: 1\nscheme: w4\nformat: qoperator\n")
    assert qconvert(["inspect", str(SAMPLES / "digits_cnn.onnx"), "--recipe", str(recipe), "--dry-run"]) == 2
    assert qconvert(["inspect", str(tmp_path / "none.onnx"), "--dry-run"]) == 2

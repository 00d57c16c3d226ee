"""``import qconvert``: the functions behind the commands, typed, documented, and cheap to import."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import typing
from dataclasses import fields, replace
from pathlib import Path

import click
import numpy as np
import pytest

import qconvert
from qconvert.api.arguments import Choices, data_of
from qconvert.cli import COMMANDS, cli
from qconvert.recipe.recipe import Recipe

ROOT = Path(__file__).resolve().parents[2]
CNN = ROOT / "sample_models" / "digits_cnn.onnx"
DATA = ROOT / "calibration_data" / "digits_cnn"
FUNCTIONS = "quantize calibrate merge inspect compare evaluate bench check convert sensitivity tune".split()

# what a flag is called as an argument; None: only a command line needs it
RENAMED = {
    "format_": "format",
    "recipe_file": "recipe",
    "form": "to",
    "no_measure": "measure",
    "dims": "dims",
    "as_json": None,
    "verbose": None,
    "quiet": None,
    "dry_run": None,  # a forecast is for people
    "save_recipe": None,  # qconvert.tune returns the recipe
    "pareto": None,  # so it does the front
    "fail_on": None,  # qconvert.check returns the findings
    "require_speedup": None,  # fail_if
}


def test_importing_is_cheap() -> None:
    code = (
        "import sys, qconvert; dir(qconvert); qconvert.quantize; qconvert.evaluate; qconvert.DataError\n"
        "print(*{'numpy', 'onnx', 'onnx_ir', 'onnxruntime', 'click', 'rich', 'yaml'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_stays_one_when_packages_of_its_name_are_imported(name: str) -> None:
    import qconvert.calibrate.feeds
    import qconvert.evaluate.gates
    import qconvert.sensitivity.analysis

    function = getattr(qconvert, name)
    assert inspect.isfunction(function)
    assert function.__module__.startswith("qconvert.api.")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_arguments_are_typed_and_documented(name: str) -> None:
    function = getattr(qconvert, name)
    assert function.__doc__
    signature = inspect.signature(function)
    assert all(p.annotation is not inspect.Parameter.empty for p in signature.parameters.values())
    assert signature.return_annotation not in (inspect.Signature.empty, "None")
    if "as in :func:" not in function.__doc__ and "those of :func:" not in function.__doc__:
        told = function.__doc__.partition("Args:")[2]
        missing = [p for p in signature.parameters if not re.search(rf"\b{p}\b", told or function.__doc__)]
        assert not missing or name == "merge"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_flag_has_its_argument(name: str) -> None:
    assert name in COMMANDS
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    known = {*inspect.signature(getattr(qconvert, name)).parameters, *(f.name for f in fields(Recipe))}
    if name == "calibrate":
        known.add("shard")  # (i, n) there, called part
    if name == "quantize":
        known |= {"max_drop", "min_sqnr", "time_budget"}  # qconvert.tune
    flags = {p.name: RENAMED.get(p.name or "", p.name) for p in command.params}
    assert {flag for flag, argument in flags.items() if argument is not None and argument not in known} == set()


def test_choices_are_the_fields_of_a_recipe() -> None:
    assert list(typing.get_type_hints(Choices)) == [f.name for f in fields(Recipe)]


def test_a_source_for_each_input() -> None:
    assert data_of({"a": "x.npy", "b": Path("y")}).sources == ("a=x.npy", "b=y")
    assert data_of(Path("z")).sources == ("z",)
    assert data_of(["a=x", "b=y"]).sources == ("a=x", "b=y")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> qconvert.Report:
    output = tmp_path_factory.mktemp("api") / "<b>&.onnx"
    return qconvert.quantize(
        CNN,
        output,
        calib={"image": DATA / "calib.npz"},
        eval_data=DATA / "eval.npz",
        labels=DATA / "labels.npy",
        samples=16,
        fail_if=["top1_drop > 50%", "size_ratio > 10%"],
        method="minmax",
        recover=["none"],
        placement="static",
    )


def test_a_broken_gate_leaves_the_result(report: qconvert.Report) -> None:
    assert [verdict.broken for verdict in report.gates] == [False, True]
    with pytest.raises(qconvert.GateMissed, match="size_ratio > 10%"):
        qconvert.require(report)
    assert report.recipe["method"] == "minmax"
    assert Path(report.output.path).exists()


def test_a_notebook_shows_tiles(report: qconvert.Report) -> None:
    html = report._repr_html_()
    assert "Size" in html and "top1" in html and "BROKEN" in html
    assert "&lt;b&gt;&amp;.onnx" in html and "<b>&.onnx" not in html
    assert "prefers-color-scheme: dark" in html
    assert "<script" not in html and "http" not in html
    assert len(html) < 10_000


def test_a_notebook_shows_tables_of_the_other_results(tmp_path: Path) -> None:
    model = tmp_path / "<i>&.onnx"
    model.write_bytes(CNN.read_bytes())
    data, labels = DATA / "eval.npz", DATA / "labels.npy"
    gates = ["top1 < 101%"]
    results = (
        (qconvert.compare(CNN, model, data=data, labels=labels, tensors=False, fail_if=["top1_drop > -1%"]), "SQNR"),
        (qconvert.evaluate(model, data=data, labels=labels, fail_if=gates), "top1"),
        (qconvert.bench(CNN, model, rounds=3, fail_if=["speedup < 100"]), "median"),
    )
    for result, word in results:
        html = result._repr_html_()
        assert html is not None and word in html and "BROKEN" in html and "<table>" in html
        assert "&lt;i&gt;&amp;.onnx" in html and "<i>" not in html
        assert "<script" not in html and "http" not in html and len(html) < 20_000


def test_a_notebook_shows_what_has_no_report(tmp_path: Path) -> None:
    model = tmp_path / "<i>&.onnx"
    model.write_bytes(CNN.read_bytes())
    inspection = qconvert.inspect(model)
    damaged = replace(inspection, refusal="<b>no", obstacle="so it is", savings=None, decisions=())
    sensitivity = qconvert.sensitivity(
        model, calib=DATA / "calib.npz", samples=8, method="minmax", recover=["none"], placement="static"
    )
    for result, words in (
        (inspection, ("would become about", "joins integer operators", "float32 [batch, 1, 8, 8]")),
        (damaged, ("cannot be quantized: so it is", "&lt;b&gt;no")),
        (qconvert.check(model), ("1 finding", "not quantized", "[unquantized]")),
        (
            sensitivity,
            ("groups on integers", "dB", "Gemm", " us"),
        ),
    ):
        html = result._repr_html_()
        assert html is not None and "<table>" in html
        assert [word for word in words if word not in html] == []
        assert "&lt;i&gt;&amp;.onnx" in html and "<i>" not in html and "<b>" not in html
        assert "<script" not in html and "http" not in html and len(html) < 20_000


def test_a_report_is_saved_by_its_suffix(report: qconvert.Report, tmp_path: Path) -> None:
    report.save(tmp_path / "r.md")
    assert (tmp_path / "r.md").read_text(encoding="utf-8").startswith("## qconvert quantize")
    with pytest.raises(qconvert.OutputError, match="exists"):
        report.save(tmp_path / "r.md")
    with pytest.raises(qconvert.RecipeError, match=r"\.docx"):
        report.save(tmp_path / "r.docx")


def test_errors_are_those_of_the_documentation(tmp_path: Path) -> None:
    with pytest.raises(qconvert.RecipeError, match="unknown key 'mehtod'"):
        qconvert.inspect(CNN, mehtod="mse")  # type: ignore[call-arg]
    with pytest.raises(qconvert.ModelError, match="no such file"):
        qconvert.evaluate(tmp_path / "none.onnx", data="random:2")
    with pytest.raises(qconvert.DataError, match="image"):
        qconvert.evaluate(CNN, data=DATA.parent / "digits_gru" / "calib.npz")
    with pytest.raises(qconvert.RecipeError, match="unknown form 'qdp'"):
        qconvert.convert(CNN, to="qdp")
    with pytest.raises(qconvert.RecipeError, match="unknown isa 'vni'"):
        qconvert.check(CNN, isa="vni")
    with pytest.raises(AttributeError, match="quantise"):
        _ = qconvert.quantise  # type: ignore[attr-defined]


def test_shares_merge_to_the_whole(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", image=np.load(DATA / "calib.npz")["image"][:8])
    for i in (1, 2):
        qconvert.calibrate(CNN, tmp_path / f"{i}.npz", calib=tmp_path / "d.npz", part=(i, 2), method="minmax")
    qconvert.calibrate(CNN, tmp_path / "whole.npz", calib=tmp_path / "d.npz", method="minmax")
    qconvert.merge([tmp_path / "2.npz", tmp_path / "1.npz"], tmp_path / "merged.npz")
    assert (tmp_path / "merged.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()


def test_an_array_in_place_of_a_name_is_refused_with_what_to_do(tmp_path: Path) -> None:
    array = np.zeros((4, 1, 8, 8), np.float32)
    for source in (array, {"image": array}, [array]):
        with pytest.raises(qconvert.DataError, match="not as ndarray") as caught:
            qconvert.quantize(CNN, tmp_path / "out.onnx", calib=source)  # type: ignore[arg-type]
        assert "np.savez" in caught.value.hint


def test_a_search_writes_its_reports(tmp_path: Path) -> None:
    tuned = qconvert.tune(
        CNN,
        tmp_path / "out.onnx",
        calib=DATA / "calib.npz",
        samples=24,
        points=2,
        reports=[tmp_path / "r.html"],
        recover=["none"],
        placement="static",
    )
    assert tuned.report.front is not None and len(tuned.report.front.points) == len(tuned.front.points) == 2
    assert "Speed against accuracy" in (tmp_path / "r.html").read_text()

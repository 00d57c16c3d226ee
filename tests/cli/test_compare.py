"""``qconvert compare`` and ``evaluate``: what they print, write and exit with; and the gates of all commands."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnx
import pytest
from end_to_end.command import ROOT, Command, Ran, command, eval_of, labels_of, model_of
from onnx import numpy_helper

import qconvert.report.document

CNN = model_of("digits_cnn")
DATA = ("--data", eval_of("digits_cnn"))
LABELS = ("--labels", labels_of("digits_cnn"))
SCHEMAS = Path(qconvert.report.document.__file__).with_name("schema")


@pytest.fixture
def qconvert(capsys: pytest.CaptureFixture[str]) -> Command:
    return command(capsys)


@pytest.fixture(scope="module")
def coarse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The convolution net with 3-bit weights: quantized by nobody, and worse."""
    path = tmp_path_factory.mktemp("coarse") / "coarse.onnx"
    model = onnx.load(CNN)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.ndim > 1 and values.dtype == np.float32:
            step = np.float32(np.abs(values).max() / 3)
            tensor.CopyFrom(numpy_helper.from_array(np.round(values / step) * step, tensor.name))
    onnx.save(model, path)
    return path


def valid(ran: Ran) -> dict[str, Any]:
    """The JSON document on stdout, which its schema describes."""
    document = ran.report
    schema = json.loads((SCHEMAS / f"{document['command']}.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema).validate(document)
    return document


# ---- compare


def test_compare_tells_where_and_on_what(qconvert: Command, coarse: Path) -> None:
    ran = qconvert("compare", CNN, coarse, *DATA, *LABELS, "--samples", 500)
    assert ran.code == 0, ran.err
    assert "digits_cnn.onnx -> coarse.onnx" in ran.out
    assert "drop, 95 % confidence" in ran.out
    assert "eval.npz[" in ran.out
    assert "The worst 10 of" in ran.out
    assert ran.err == ""


@pytest.mark.slow
def test_the_document(qconvert: Command, coarse: Path) -> None:
    document = valid(qconvert("compare", CNN, coarse, *DATA, *LABELS, "--json"))
    assert (document["schema_version"], document["command"]) == (1, "compare")
    metric = document["comparison"]["metric"]
    assert metric["interval"]["low"] <= metric["drop"] <= metric["interval"]["high"]
    worst = document["comparison"]["worst_samples"]
    assert len(worst) == 5
    assert worst[0]["drop"] == 100
    assert all(s["name"] == f"{eval_of('digits_cnn')}[{s['number']}]" for s in worst)
    tensors = document["tensors"]["tensors"]
    assert not document["tensors"]["unmatched"]
    assert tensors[0]["sqnr_db"] > tensors[-1]["sqnr_db"]
    lean = valid(qconvert("compare", CNN, coarse, *DATA, "--samples", 20, "--no-tensors", "--json"))
    assert (lean["tensors"], lean["comparison"]["metric"], lean["samples"]) == (None, None, 20)


def test_few_samples_are_said_to_be_few(qconvert: Command, coarse: Path, tmp_path: Path) -> None:
    with np.load(eval_of("digits_cnn")) as stored:
        (name,) = stored.files
        np.savez(tmp_path / "few.npz", **{name: stored[name][:40]})
    np.save(tmp_path / "few.npy", np.load(labels_of("digits_cnn"))[:40])
    ran = qconvert(
        "compare", CNN, coarse, "--data", tmp_path / "few.npz", "--labels", tmp_path / "few.npy", "--no-tensors"
    )
    assert "40 samples are too few to tell a drop of 1 point of top1" in " ".join(ran.out.split())


def test_bad_samples_take_their_labels_along(qconvert: Command, tmp_path: Path) -> None:
    with np.load(eval_of("digits_cnn")) as stored:
        (name,) = stored.files
        images = stored[name][:30].astype(np.float32)
    images[3] = np.nan
    np.savez(tmp_path / "some.npz", **{name: images})
    np.save(tmp_path / "some.npy", np.load(labels_of("digits_cnn"))[:30])
    arguments = ("--data", tmp_path / "some.npz", "--labels", tmp_path / "some.npy", "--skip-bad", 1, "--json")
    document = valid(qconvert("evaluate", CNN, *arguments))
    assert (document["samples"], document["metric"]["samples"], len(document["skipped_samples"])) == (29, 29, 1)
    assert document["metric"]["value"] == 100
    assert valid(qconvert("compare", CNN, CNN, *arguments))["comparison"]["metric"]["samples"] == 29


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("compare", CNN, model_of("digits_gru"), *DATA), "the models take different inputs"),
        (("compare", CNN, "none.onnx", *DATA), "none.onnx: no such file"),
        (("compare", CNN, CNN, *DATA, "--metric", "top1"), "the metric top1 needs --labels"),
        (("compare", CNN, CNN, *DATA, "--fail-if", "top5_drop > 1%"), "the metric top5 needs --labels"),
        (("evaluate", CNN, *DATA, "--fail-if", "top1_drop > 1%"), "there is no quantity 'top1_drop'"),
        (("compare", CNN, CNN, *DATA, "--fail-if", "top1_drp > 1%"), "did you mean 'top1_drop'"),
        (("compare", CNN, CNN, *DATA, *LABELS, "--metric", "top1", "--fail-if", "psnr < 1"), "one metric"),
        (("compare", CNN, CNN, *DATA, "--report", "a.docx"), "no report can be written as .docx"),
        (("compare", CNN, CNN, *DATA, "--report", CNN, "--force"), "no report can be written as .onnx"),
        (("bench", CNN, "--fail-if", "speedup < 1"), "there is no quantity 'speedup'"),
    ],
)
def test_bad_usage(arguments: tuple[object, ...], words: str, qconvert: Command) -> None:
    ran = qconvert(*arguments)
    assert ran.code == 2, ran.out
    assert words in ran.err
    assert ran.out == ""


# ---- evaluate


def test_evaluate(qconvert: Command) -> None:
    document = valid(qconvert("evaluate", CNN, *DATA, *LABELS, "--json"))
    metric = document["metric"]
    assert metric["name"] == "top1"
    assert metric["interval"]["low"] < metric["value"] < metric["interval"]["high"]
    missed = round(500 * (1 - metric["value"] / 100))
    assert [s["score"] for s in document["worst_samples"]] == [0.0] * missed
    assert [o["nonfinite"] for o in document["outputs"]] == [0]
    plain = qconvert("evaluate", CNN, *DATA, "--samples", 10)
    assert plain.code == 0
    assert "digits_cnn.onnx: 10 samples" in plain.out


# ---- gates, reports, summaries


@pytest.mark.slow
def test_a_broken_gate_comes_after_everything_is_written(
    qconvert: Command, coarse: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = tmp_path / "step.md"
    summary.write_text("before\n", encoding="utf-8")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    gates = ("--fail-if", "top1_drop > 0.5%", "--fail-if", "size_ratio > 110%", "--fail-if", "tensor_sqnr < 90")
    forms = {suffix: tmp_path / f"report.{suffix}" for suffix in ("md", "xml", "json", "txt")}
    reports = [part for path in forms.values() for part in ("--report", path)]
    ran = qconvert("compare", CNN, coarse, *DATA, *LABELS, *gates, *reports, "--github-summary")
    assert ran.code == 3
    assert "top1_drop > 0.5% (top1_drop is" in ran.err
    assert "tensor_sqnr < 90" in ran.err
    assert "size_ratio" not in ran.err
    assert "digits_cnn.onnx -> coarse.onnx" in ran.out
    markdown = forms["md"].read_text(encoding="utf-8")
    assert markdown.count("| BROKEN |") == 2
    assert summary.read_text(encoding="utf-8") == f"before\n{markdown}"
    assert ET.parse(forms["xml"]).getroot().get("failures") == "2"
    assert [g["broken"] for g in json.loads(forms["json"].read_text(encoding="utf-8"))["gates"]] == [True, False, True]
    assert "BROKEN" in forms["txt"].read_text(encoding="utf-8")
    again = qconvert("compare", CNN, coarse, *DATA, "--report", forms["md"])
    assert again.code == 2
    assert "exists" in again.err


def test_a_summary_needs_a_place(qconvert: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    ran = qconvert("compare", CNN, CNN, *DATA, "--github-summary")
    assert ran.code == 2
    assert "GITHUB_STEP_SUMMARY is not set" in ran.err


def test_quantize_writes_the_model_and_then_fails(qconvert: Command, tmp_path: Path) -> None:
    output, report = tmp_path / "out.onnx", tmp_path / "r.xml"
    calib = ROOT / "calibration_data" / "digits_cnn" / "calib.npz"
    job = ("quantize", CNN, "--calib", calib, "--samples", 16, "--recover", "none", "--method", "minmax", "-o", output)
    typo = qconvert(*job, "--fail-if", "sqrn < 20")
    assert typo.code == 2
    assert "did you mean 'sqnr'?" in typo.err
    unlabelled = qconvert(*job, "--fail-if", "top1_drop > 0.5%")
    assert unlabelled.code == 2
    assert "needs --eval and --labels" in unlabelled.err
    assert not output.exists()
    ran = qconvert(*job, "--fail-if", "size_ratio > 10%", "--fail-if", "sqnr < 5", "--report", report, "--json")
    assert ran.code == 3
    assert "--fail-if: size_ratio > 10% (size_ratio is 30." in ran.err
    assert output.exists()
    document = valid(ran)
    assert [(g["gate"], g["broken"]) for g in document["gates"]] == [("size_ratio > 10%", True), ("sqnr < 5", False)]
    assert ET.parse(report).getroot().get("failures") == "1"


@pytest.mark.slow
def test_bench_names_the_model_that_breaks_a_gate(qconvert: Command, coarse: Path, tmp_path: Path) -> None:
    report = tmp_path / "b.json"
    gates = ("--fail-if", "size_ratio < 5", "--fail-if", "load_ms > 100000")
    ran = qconvert("bench", CNN, coarse, "--rounds", 3, *gates, "--report", report, "--json")
    assert ran.code == 3
    assert "size_ratio < 5 (size_ratio of coarse.onnx is" in ran.err
    assert valid(ran) == json.loads(report.read_text(encoding="utf-8"))
    shown = qconvert("bench", CNN, coarse, "--rounds", 3, *gates)
    assert "BROKEN" in shown.out


@pytest.mark.parametrize("name", ["compare", "evaluate"])
def test_help_imports_nothing_heavy(name: str) -> None:
    code = (
        f"import sys; from qconvert.cli.{name} import command\n"
        "try: command(['--help'])\nexcept SystemExit: pass\n"
        "print(*{'numpy', 'onnx', 'onnx_ir', 'onnxruntime', 'rich'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr.strip() == ""
    assert f"qconvert {name} sample_models" in done.stdout

"""``qconvert quantize --scheme`` and ``qconvert convert`` on the sample models, from the command line on."""

from __future__ import annotations

from pathlib import Path

import pytest
from end_to_end.command import Command, calib_of, eval_of, labels_of, model_of


@pytest.mark.parametrize(
    ("scheme", "share", "least_db"),
    [("dynamic", 0.4, 25.0), ("w8", 0.4, 30.0), ("w4", 0.35, 12.0), ("fp16", 0.6, 45.0), ("bf16", 0.6, 40.0)],
)
def test_every_scheme_on_a_transformer(
    scheme: str, share: float, least_db: float, qconvert: Command, tmp_path: Path
) -> None:
    sample, output = "digits_transformer", tmp_path / "out.onnx"
    data = ("--eval", eval_of(sample), "--labels", labels_of(sample))
    ran = qconvert("quantize", model_of(sample), "--scheme", scheme, *data, "-o", output, "--json")
    assert ran.code == 0, ran.err
    report = ran.report
    assert report["output"]["bytes"] < share * report["model"]["bytes"]
    comparison = report["accuracy"]["comparison"]
    assert comparison["fidelity"]["sqnr_db"] > least_db
    assert comparison["metric"]["quantized"] > comparison["metric"]["reference"] - 2
    assert report["calibration"]["samples"] == 0
    assert not report["verification"]["interface"]


@pytest.mark.parametrize("suffix", ["html", "md", "json", "txt"])
@pytest.mark.parametrize("flags", [(), ("--no-measure",)])
def test_every_form_of_report(flags: tuple[str, ...], suffix: str, qconvert: Command, tmp_path: Path) -> None:
    report, output = tmp_path / f"report.{suffix}", tmp_path / "out.onnx"
    ran = qconvert("quantize", model_of("digits_gru"), "--scheme", "w8", *flags, "-o", output, "--report", report)
    assert ran.code == 0, ran.err
    assert "w8" in report.read_text()


def test_without_data_the_report_warns(qconvert: Command, tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(model_of("digits_gru").read_bytes())
    ran = qconvert("quantize", model, "--scheme", "w8")
    assert ran.code == 0, ran.err
    assert "random data" in ran.out
    assert "With weights of fewer bits" in ran.out
    assert (tmp_path / "model.w8.onnx").exists()


def test_a_saved_recipe_gives_the_same_bytes(qconvert: Command, tmp_path: Path) -> None:
    sample, recipe = "digits_transformer", tmp_path / "recipe.yaml"
    first, second = tmp_path / "1.onnx", tmp_path / "2.onnx"
    base = ("quantize", model_of(sample), "--calib", calib_of(sample), "-q")
    choices = ("--scheme", "w4", "--block", "16", "--rounding", "awq", "--mix", "Gemm=w8")
    assert qconvert(*base, *choices, "-o", first, "--save-recipe", recipe).code == 0
    assert qconvert(*base, "--recipe", recipe, "-o", second).code == 0
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--scheme", "dynamic", "--format", "qoperator"), "one form"),
        (("--scheme", "w4", "--format", "qoperator"), "--scheme w4 has no QOperator form"),
        (("--scheme", "w4", "--weight-format", "nbits", "--block", "-1"), "give --block 32"),
        (("--scheme", "w4", "--exclude", "Comv"), "no such node"),
        (("--scheme", "fp16", "--block", "32"), "fp16, which has no blocks"),
        (("--scheme", "dynamic", "--rounding", "hqq"), "schemes that know it: "),
        (("--scheme", "w8", "--rounding", "gptq"), "rounds to nearest"),
        (("--scheme", "w4", "--method", "entropy"), "int8"),
        (("--scheme", "int8", "--weight-format", "nbits"), "nf4, palette:16"),
        (
            (
                "--scheme",
                "int8",
            ),
            "nothing to calibrate with",
        ),
        (("--no-measure",), "use --scheme w8"),
    ],
)
def test_what_cannot_be_is_refused(flags: tuple[str, ...], words: str, qconvert: Command, tmp_path: Path) -> None:
    output = tmp_path / "out.onnx"
    ran = qconvert("quantize", model_of("digits_cnn"), *flags, "-o", output)
    assert ran.code == 2
    assert words in ran.err.replace("\n", " ")
    assert not output.exists()


def test_convert_there_and_back(qconvert: Command, tmp_path: Path) -> None:
    sample, made, back = "digits_cnn", tmp_path / "int8.onnx", tmp_path / "float.onnx"
    assert qconvert("quantize", model_of(sample), "--calib", calib_of(sample), "-o", made, "-q").code == 0
    ran = qconvert("convert", made, "--to", "float", "-o", back, "--data", eval_of(sample))
    assert ran.code == 0, ran.err
    assert "larger" in ran.out
    ran = qconvert("convert", made, "--to", "qoperator", "-o", tmp_path / "qop.onnx", "--data", eval_of(sample))
    assert ran.code == 0, ran.err
    assert qconvert("convert", back, "--to", "qdq", "-o", tmp_path / "no.onnx").code == 2

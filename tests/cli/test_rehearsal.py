"""``--dry-run`` of quantize, compare, evaluate, bench: says what would be done, fails as they do, writes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from qconvert.cli import run

ROOT = Path(__file__).resolve().parents[2]
CNN = str(ROOT / "sample_models" / "digits_cnn.onnx")
DATA = ROOT / "calibration_data" / "digits_cnn"
SAMPLES = ("--data", str(DATA / "eval.npz"))
LABELS = ("--labels", str(DATA / "labels.npy"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ("compare", CNN, CNN, *SAMPLES, *LABELS, "--fail-if", "top1_drop > 1%"),
            ("500 of ", "metric    top1\n", "fail if top1_drop > 1%", "500 runs of each model; the tensors inside"),
        ),
        (("compare", CNN, CNN, *SAMPLES, "--no-tensors", "--samples", "7"), ("7 of ", "metric    none", "7 runs")),
        (("evaluate", CNN, *SAMPLES, *LABELS, "--metric", "top5"), ("metric    top5\n", "500 runs of each model")),
        (("bench", CNN, CNN, "--batch", "2"), ("image: float32 [2, 1, 8, 8]", "made from the inputs", "about 5.0 s")),
        (("bench", CNN, *SAMPLES, "--rounds", "3"), ("3 runs of each model",)),
        (
            ("quantize", CNN, "--calib", str(DATA / "calib.npz"), "--fail-if", "sqnr < 20"),
            ("scheme    int8\n", "fail if sqnr < 20", "samples   88 of", "measured  on 12 samples", "output    "),
        ),
        (("quantize", CNN, "--scheme", "w4", "--mix", "Gemm=w8"), ("scheme    w4, Gemm=w8\n", "output    ")),
    ],
    ids=lambda value: " ".join(v for v in value if v.isalnum()),
)
def test_what_would_be_done(
    arguments: tuple[str, ...], says: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.html"
    assert run([*arguments, "--report", str(report), "--dry-run"]) == 0
    printed = capsys.readouterr()
    assert [part for part in (*says, f"report    {report}", "nothing was written") if part not in printed.out] == []
    assert not report.exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("compare", CNN, str(ROOT / "sample_models" / "digits_gru.onnx"), *SAMPLES), "different inputs"),
        (("evaluate", CNN, *SAMPLES, *LABELS, "--fail-if", "tpo1 < 90"), "did you mean 'top1'"),
        (("evaluate", CNN, "--data", str(DATA / "calib.npz"), *LABELS), "100"),
        (("bench", CNN, "--report", "bench.docx"), ".docx"),
        (("bench", str(DATA / "none.onnx")), "no such file"),
        (("quantize", CNN), "--calib DATA"),
        (("quantize", CNN, "--calib", str(DATA / "calib.npz"), "--fail-if", "tpo1 < 90"), "did you mean 'top1'"),
        (("quantize", CNN, "--calib", str(DATA / "calib.npz"), "--report", "r.docx"), ".docx"),
        (("quantize", CNN, "--calib", str(DATA / "calib.npz"), "-o", CNN), "is the model itself"),
        (("quantize", CNN, "--scheme", "w8", "--labels", str(DATA / "labels.npy")), "--labels needs --eval"),
        (("quantize", CNN, "--scheme", "fp16", "--calib", "nowhere"), "nowhere"),
    ],
    ids=lambda value: "" if isinstance(value, str) else value[0],
)
def test_it_fails_as_the_command_does(
    arguments: tuple[str, ...],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run([*arguments, "--dry-run"]) == 2
    rehearsed = capsys.readouterr()
    assert says in rehearsed.err
    assert run(list(arguments)) == 2
    assert capsys.readouterr().err == rehearsed.err
    assert list(tmp_path.iterdir()) == []

"""--track: a function of the user's, an entry point, and what becomes of failures."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import qconvert
from qconvert.cli import run

ROOT = Path(__file__).resolve().parents[2]
CNN = ROOT / "sample_models" / "digits_cnn.onnx"
DATA = ROOT / "calibration_data" / "digits_cnn"

MODULE = """
runs = []

def log(run):
    print("talk")
    runs.append(run)

def fails(run):
    raise OSError("no server")
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a module of trackers, and a data set."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_trackers.py").write_text(MODULE)
    np.savez(tmp_path / "d.npz", image=np.load(DATA / "eval.npz")["image"][:12])
    np.save(tmp_path / "labels.npy", np.load(DATA / "labels.npy")[:12])
    monkeypatch.delitem(sys.modules, "own_trackers", raising=False)
    return tmp_path


def test_a_run_is_logged(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["evaluate", str(CNN), "--data", "d.npz", "--labels", "labels.npy", "--report", "r.md", "--json"]
    assert run([*arguments, "--track", "python:own_trackers:log"]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("{") and "talk" in printed.err
    (logged,) = sys.modules["own_trackers"].runs
    assert (logged.command, logged.name) == ("evaluate", "digits_cnn.onnx")
    assert logged.metrics["top1"] == 100.0 and logged.metrics["nonfinite"] == 0
    assert logged.parameters["data"] == "d.npz" and logged.parameters["samples"] == "12"
    assert logged.artifacts == (Path("r.md"),) and (place / "r.md").exists()


def test_quantize_logs_the_recipe_and_the_model() -> None:
    report = qconvert.quantize(
        CNN,
        "out.onnx",
        calib="d.npz",
        scheme="fp16",
        reports=["r.json"],
        track=["python:own_trackers:log"],
        track_model=True,
    )
    (logged,) = sys.modules["own_trackers"].runs
    assert logged.parameters["recipe.scheme"] == "fp16" and logged.parameters["output.sha256"] == report.output.sha256
    assert logged.artifacts == (Path("r.json"), Path("out.onnx"))
    assert 0.4 < logged.metrics["size_ratio"] < 0.6


def test_a_failure_is_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["evaluate", str(CNN), "--data", "d.npz", "--track", "python:own_trackers:fails"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "the run was not logged with --track python:own_trackers:fails" in out
    assert "no server" in out


@pytest.mark.parametrize(
    ("track", "says"),
    [
        ("mlfow", ("unknown tracker", "'mlflow'")),
        ("python:own_trackers", ("names no function",)),
        ("python:own_trackers:lok", ("no function 'lok'",)),
        ("python:no_such_module:log", ("no_such_module",)),
    ],
)
def test_what_cannot_be_used_is_refused_first(
    track: str, says: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["evaluate", str(CNN), "--data", "d.npz", "--report", "r.md", "--track", track]) == 2
    said = capsys.readouterr()
    assert said.out == "" and not Path("r.md").exists()
    assert [word for word in says if word not in said.err] == []


def test_a_package_can_offer_one(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = place / "ours-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Name: ours\nVersion: 1\n")
    (folder / "entry_points.txt").write_text("[qconvert.trackers]\nours = own_trackers:log\n")
    monkeypatch.syspath_prepend(str(place))
    qconvert.evaluate(CNN, data="d.npz", track=["ours"])
    assert [r.command for r in sys.modules["own_trackers"].runs] == ["evaluate"]


def test_mlflow_that_is_missing_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)  # as if it were not installed
    assert run(["evaluate", str(CNN), "--data", "d.npz", "--track", "mlflow"]) == 2
    assert "pip install 'qconvert[mlflow]'" in capsys.readouterr().err

"""--track mlflow with a real MLflow and a store in a folder: `make test-mlflow`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from qconvert.cli import run

ROOT = Path(__file__).resolve().parents[2]
CNN = ROOT / "sample_models" / "digits_cnn.onnx"
DATA = ROOT / "calibration_data" / "digits_cnn"


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    np.savez(tmp_path / "d.npz", image=np.load(DATA / "calib.npz")["image"][:12])
    return MlflowClient()


def test_quantize_logs_parameters_metrics_report_and_model(client: MlflowClient) -> None:
    arguments = f"quantize {CNN} --calib d.npz --scheme fp16 --report r.html --track mlflow:digits --track-model -q"
    assert run([*arguments.split(), "-o", "out.onnx"]) == 0
    experiment = client.get_experiment_by_name("digits")
    assert experiment is not None
    (logged,) = client.search_runs([experiment.experiment_id])
    assert logged.info.status == "FINISHED"
    assert logged.info.run_name == "digits_cnn.onnx -> out.onnx"
    assert logged.data.params["recipe.scheme"] == "fp16"
    assert 0.4 < logged.data.metrics["size_ratio"] < 0.6
    assert logged.data.metrics["sqnr"] > 40
    files = {item.path: item.file_size for item in client.list_artifacts(logged.info.run_id)}
    assert files == {"r.html": Path("r.html").stat().st_size, "out.onnx": Path("out.onnx").stat().st_size}


def test_bench_logs_in_the_default_experiment(client: MlflowClient) -> None:
    assert run(["bench", str(CNN), str(CNN), "--rounds", "3", "--track", "mlflow"]) == 0
    experiment = client.get_experiment_by_name("qconvert")
    assert experiment is not None
    (logged,) = client.search_runs([experiment.experiment_id])
    assert any(name.endswith("speedup") for name in logged.data.metrics)


def test_a_server_that_is_not_there_is_refused_before_any_work(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert run(["evaluate", str(CNN), "--data", "d.npz", "--report", "r.md", "--track", "mlflow"]) == 2
    assert "--track mlflow" in capsys.readouterr().err and not Path("r.md").exists()

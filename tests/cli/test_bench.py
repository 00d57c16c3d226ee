"""``qconvert bench``: the stage behind it, what it prints, its gate. No test looks at a time's value."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import numpy_helper, parser
from rich.console import Console

from qconvert.cli import run as run_cli
from qconvert.cli.bench import command, show
from qconvert.errors import GateMissed, ModelError, RecipeError
from qconvert.evaluate.benchmark import BenchJob, Benchmark, FedInput, ModelTiming, benchmark, labels
from qconvert.evaluate.footprint import Footprint, measure_footprint
from qconvert.evaluate.latency import Latency, Speedup

ROOT = Path(__file__).resolve().parents[2]
CNN = ROOT / "sample_models" / "digits_cnn.onnx"
GOLDEN = ROOT / "tests" / "golden" / "bench"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(command, [str(a) for a in arguments])


def matmul(path: Path, width: int) -> Path:
    """x [N, 4] through a matrix of ``width`` columns and back."""
    model = parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[N, 4] x) => (float[N, 4] y) { h = MatMul(x, a)  y = MatMul(h, b) }"""
    )
    for name, shape in (("a", (4, width)), ("b", (width, 4))):
        model.graph.initializer.append(numpy_helper.from_array(np.ones(shape, np.float32), name))
    onnx.save(model, path)
    return path


# ---- the stage


@pytest.mark.slow
def test_two_models_are_paired(tmp_path: Path) -> None:
    small, large = matmul(tmp_path / "small.onnx", 4), matmul(tmp_path / "large.onnx", 2_000_000)
    found = benchmark(BenchJob(models=(small, large), rounds=5, batch=3))
    assert [m.name for m in found.models] == ["small.onnx", "large.onnx"]
    assert found.rounds == 5
    assert found.samples == 3
    assert found.inputs == (FedInput(name="x", dtype="float32", shape=(3, 4)),)
    assert found.data == ""
    first, second = found.models
    assert first.ratio == Speedup(median=1.0, p10=1.0, p90=1.0)
    for m in found.models:
        assert m.latency.p10_ms <= m.latency.median_ms <= m.p95_ms
        assert m.samples_per_second == pytest.approx(3e3 / m.latency.median_ms)
    # 64 MB of weights, and each model is measured alone
    assert second.footprint.model_mb > 64
    assert first.footprint.model_mb < 64


def test_data_are_run() -> None:
    data = ROOT / "calibration_data" / "digits_cnn" / "calib.npz"
    found = benchmark(BenchJob(models=(CNN,), data=data, rounds=3))
    assert found.data == str(data)
    assert found.feeds == 8
    assert found.assumed == {}
    with pytest.raises(RecipeError, match="--dim"):
        BenchJob(models=(CNN,), data=data, dims={"batch": 2})


def test_a_shorter_sequence_is_tried() -> None:
    found = benchmark(BenchJob(models=(ROOT / "sample_models" / "digits_transformer.onnx",), rounds=3))
    assert found.assumed == {"batch": 1, "sequence": 64}


def test_a_model_that_cannot_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.onnx: no such file"):
        benchmark(BenchJob(models=(CNN, tmp_path / "none.onnx")))
    (tmp_path / "bad.onnx").write_text("hello")
    with pytest.raises(ModelError, match=r"bad\.onnx is not an ONNX model"):
        benchmark(BenchJob(models=(CNN, tmp_path / "bad.onnx")))
    with pytest.raises(ModelError, match="process of its own"):
        measure_footprint(tmp_path / "bad.onnx", {})


def test_names_tell_the_models_apart() -> None:
    assert labels([Path("a/m.onnx"), Path("b/m.onnx"), Path("c.onnx")]) == ["a/m.onnx", "b/m.onnx", "c.onnx"]
    assert labels([Path("m.onnx"), Path("m.onnx")]) == ["m.onnx #1", "m.onnx #2"]


# ---- the text


def timing(name: str, median: float, ratio: float, *, spread: float = 0.05, peak: float = 70.25) -> ModelTiming:
    return ModelTiming(
        name=name,
        path=f"models/{name}",
        bytes=1_000_000,
        latency=Latency(median_ms=median, p10_ms=median * 0.98, p90_ms=median * 1.03, runs=500),
        p95_ms=median * 1.25,
        spread=spread,
        samples_per_second=8e3 / median,
        footprint=Footprint(load_ms=12.3, peak_mb=peak, model_mb=peak / 7),
        ratio=Speedup(median=ratio, p10=ratio * 0.95, p90=ratio * 1.1),
    )


def result(*models: ModelTiming, **changes: object) -> Benchmark:
    values: dict[str, object] = {
        "models": models,
        "rounds": 500,
        "threads": 0,
        "samples": 8,
        "data": "",
        "feeds": 1,
        "inputs": (FedInput(name="image", dtype="float32", shape=(8, 3, 224, 224)),),
        "assumed": {"H": 224, "W": 224},
    }
    return Benchmark(**{**values, **changes})  # type: ignore[arg-type]


RESULTS = {
    "pair": result(timing("fp32.onnx", 12.5, 1.0), timing("int8.onnx", 4.0, 3.1), timing("slow.onnx", 1500, 0.008)),
    "one": result(
        timing("a_rather_long_name_of_a_model.int8.onnx", 0.0312, 1.0, spread=0.6, peak=0.0),
        threads=2,
        data="calib/",
        feeds=8,
        assumed={},
    ),
}


def text(found: Benchmark, width: int) -> str:
    file = io.StringIO()
    show(found, Console(file=file, width=width, color_system=None))
    return "".join(f"{line.rstrip()}\n" for line in file.getvalue().splitlines())


@pytest.mark.parametrize("name", RESULTS)
@pytest.mark.parametrize("width", [80, 120])
def test_golden(name: str, width: int) -> None:
    got, golden = text(RESULTS[name], width), GOLDEN / f"{name}-{width}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(got, encoding="utf-8")
    assert got == golden.read_text(encoding="utf-8"), "if the new text is meant: UPDATE_GOLDEN=1 make unit"
    assert got.isascii()
    assert max(map(len, got.splitlines())) <= width


# ---- the command


def test_json_is_one_document() -> None:
    found = run(CNN, "--rounds", 3, "--json")
    document = json.loads(found.stdout)
    assert found.exit_code == 0
    assert found.stderr == ""
    assert document["rounds"] == 3
    assert document["models"][0]["footprint"]["load_ms"] > 0


@pytest.mark.slow
def test_the_gate(capfd: pytest.CaptureFixture[str]) -> None:
    missed = run(CNN, CNN, "--rounds", 3, "--require-speedup", 100)
    assert isinstance(missed.exception, GateMissed)
    assert "digits_cnn.onnx #2" in missed.exception.message
    assert run_cli(["bench", str(CNN), str(CNN), "--rounds", "3", "--require-speedup", "100"]) == 3
    assert "2 models" in capfd.readouterr().out  # what was measured is told all the same
    assert run(CNN, CNN, "--rounds", 3, "--require-speedup", 0.001).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--seconds", 1, "--rounds", 3], "exclude each other"),
        (["--require-speedup", 2], "second model"),
        (["--dim", "batch"], "NAME=SIZE"),
        (["--dim", "batch=-1"], "NAME=SIZE"),
        ([], "Missing argument"),
    ],
)
def test_bad_usage(arguments: list[object], words: str) -> None:
    found = run(*([CNN] if arguments else []), *arguments)
    assert found.exit_code == 2
    assert words in found.stderr


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from qconvert.cli.bench import command\n"
        "try: command(['--help'])\nexcept SystemExit: pass\n"
        "print(*{'numpy', 'onnx', 'onnx_ir', 'onnxruntime', 'rich'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr.strip() == ""
    assert "qconvert bench sample_models" in done.stdout

"""``qconvert check``: what it prints, its gate, its JSON."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from diagnose import nets
from rich.console import Console

from qconvert.cli.check import command, show
from qconvert.diagnose.diagnosis import Diagnosis
from qconvert.diagnose.finding import Finding, Severity
from qconvert.diagnose.isa import Isa
from qconvert.errors import DataError, GateMissed, ModelError
from qconvert.graph.census import Census

ROOT = Path(__file__).resolve().parents[2]
CNN = ROOT / "sample_models" / "digits_cnn.onnx"
GOLDEN = ROOT / "tests" / "golden" / "check"

CENSUS = Census(
    nodes=20,
    integer_kernels=13,
    quantize=1,
    dequantize=1,
    weights_dequantized=0,
    unfused=(),
    boundaries=("x", "y"),
    ops={"QLinearConv": 13},
)
SATURATION = Finding(
    check="saturation",
    severity=Severity.ERROR,
    what="sums of two products can saturate in 16 bits on x86 without VNNI",
    nodes=("conv1", "conv2"),
    cost="96 of 512 channels can. On 16 samples the outputs have an SQNR of 12.1 dB against exact sums",
    cure="quantize for such processors (target: x86-avx2 in a recipe)",
)
ISLANDS = Finding(
    check="islands",
    severity=Severity.WARNING,
    what="integer results go back to float for Erf",
    nodes=tuple(f"/a/rather/long/name/of/a/block.{i}/erf/DequantizeLinear" for i in range(1200)),
    cost="31 % of the time, 1.25 ms a run (measured)",
    cure="quantize these operators where ONNX Runtime has an integer kernel for them",
    share=0.31,
)
WEIGHTS = Finding(
    check="float-weights",
    severity=Severity.NOTE,
    what="weights are float in the file",
    nodes=("[red]odd[/red]",),
    cost="1,024 bytes, 1 % of all constants; as 8-bit integers 768 less",
    cure="quantize the operators that read them",
    bytes=768,
)


def diagnosis(*findings: Finding, **changes: object) -> Diagnosis:
    values: dict[str, object] = {
        "path": "models/net.int8.onnx",
        "bytes": 123_456,
        "isa": Isa.AVX2,
        "quantized": True,
        "census": CENSUS,
        "milliseconds": 4.03,
        "findings": findings,
    }
    return Diagnosis(**{**values, **changes})  # type: ignore[arg-type]


CASES = {
    "ill": diagnosis(SATURATION, ISLANDS, WEIGHTS, notes=("bodies of If were not examined",)),
    "sound": diagnosis(isa=Isa.VNNI),
    "notes": diagnosis(WEIGHTS, milliseconds=0.0),
}


def text(found: Diagnosis, width: int, *, verbose: bool = False) -> str:
    file = io.StringIO()
    show(found, Console(file=file, width=width, color_system=None), verbose=verbose)
    return "".join(f"{line.rstrip()}\n" for line in file.getvalue().splitlines())


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("width", [80, 120])
def test_golden(name: str, width: int) -> None:
    got, golden = text(CASES[name], width), GOLDEN / f"{name}-{width}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(got, encoding="utf-8")
    assert got == golden.read_text(encoding="utf-8"), "if the new text is meant: UPDATE_GOLDEN=1 make unit"
    assert got.isascii()


@pytest.mark.parametrize("name", ["sound", "notes"])
def test_a_clean_model_is_told_so_in_one_line(name: str) -> None:
    [line] = text(CASES[name], 60).splitlines()
    assert "nothing to mend" in line


def test_verbose_names_every_node_and_shows_notes() -> None:
    shown = text(CASES["ill"], 120, verbose=True)
    assert "block.1199/" in shown
    assert "[red]odd[/red]" in shown
    assert "float-weights" not in text(CASES["ill"], 120)


# ---- the command


def run(*arguments: object) -> Result:
    return CliRunner().invoke(command, [str(a) for a in arguments])


def test_json_is_one_document(tmp_path: Path) -> None:
    found = run(nets.depthwise().save(tmp_path), "--json", "--isa", "vnni")
    document = json.loads(found.stdout)
    assert found.exit_code == 0
    assert document["isa"] == "vnni"
    assert document["quantized"]
    [finding] = [f for f in document["findings"] if f["check"] == "depthwise-scales"]
    assert finding["severity"] == "warning"
    assert finding["nodes"] == ["n_c1"]


def test_the_gate(tmp_path: Path) -> None:
    ill, sound = nets.depthwise().save(tmp_path, "ill.onnx"), nets.sound().save(tmp_path, "sound.onnx")
    missed = run(ill, "--fail-on", "warning", "--isa", "vnni")
    assert isinstance(missed.exception, GateMissed)
    assert "depthwise-scales" in missed.exception.message
    assert "depthwise-scales" in missed.stdout
    assert run(ill, "--fail-on", "error", "--isa", "vnni").exit_code == 0
    assert run(sound, "--fail-on", "warning", "--isa", "avx2").exit_code == 0
    assert isinstance(run(CNN, "--fail-on", "warning").exception, GateMissed)


def test_a_dry_run_says_what_would_be_examined(tmp_path: Path) -> None:
    ill = nets.depthwise().save(tmp_path, "ill.onnx")
    done = run(ill, "--dry-run", "--isa", "avx2", "--fail-on", "warning")
    assert done.exit_code == 0, done.output
    assert "quantized (" in done.stdout and "x86 without VNNI" in done.stdout
    assert "depthwise-scales" in done.stdout  # a check that would run; its finding is not told
    assert "cure" not in done.stdout and "nothing was written" in done.stdout
    wrong = ROOT / "calibration_data" / "digits_gru" / "calib.npz"
    assert isinstance(run(CNN, "--dry-run", "--data", wrong).exception, DataError)
    assert isinstance(run(tmp_path / "none.onnx", "--dry-run").exception, ModelError)


def test_help_imports_nothing_heavy_and_its_example_runs() -> None:
    code = (
        "import sys; from qconvert.cli.check import command\n"
        "try: command(['--help'])\nexcept SystemExit: pass\n"
        "print(*{'numpy', 'onnx', 'onnx_ir', 'onnxruntime', 'rich'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr.strip() == ""
    assert "qconvert check sample_models/digits_cnn.onnx" in done.stdout
    found = run(CNN)
    assert found.exit_code == 0
    assert "not quantized" in found.stdout

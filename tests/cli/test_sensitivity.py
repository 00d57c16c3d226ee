"""What ``qconvert sensitivity`` and the front of ``qconvert tune`` print."""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from qconvert.cli.budget_options import show_front
from qconvert.cli.sensitivity import command, document, show
from qconvert.evaluate.compare import MetricResult
from qconvert.sensitivity.analysis import GroupDamage, Sensitivity
from qconvert.sensitivity.scores import GroupScores
from qconvert.tuning.front import Front, Point, dominated

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"

GROUPS = (
    GroupDamage(
        name="/features/block.3/expand/Conv",
        op_type="Conv",
        nodes=("/features/block.3/expand/Conv", "/features/block.3/expand/Relu"),
        noise=3.1e-3,
        sqnr_db=25.1,
        weight_rounding=4e-4,
        weight_clipping=1e-6,
        activation_rounding=2.1e-3,
        activation_clipping=6e-4,
        drop=1.25,
        extra_us=431.0,
    ),
    GroupDamage(
        name="[red]odd[/red]",
        op_type="Add",
        nodes=("[red]odd[/red]",),
        noise=0.0,
        sqnr_db=math.inf,
        weight_rounding=0.0,
        weight_clipping=0.0,
        activation_rounding=0.0,
        activation_clipping=0.0,
        drop=0.0,
        extra_us=2.5,
    ),
)
FOUND = Sensitivity(
    model="models/net.onnx",
    groups=GROUPS,
    sqnr_db=24.0,
    together=4e-3,
    summed=4.1e-3,
    additivity_db=0.1,
    sources=3,
    samples=8,
    runs=80,
    source="calib/",
)
SCORES = GroupScores(name="top1", unit="%", reference=71.9, quantized=70.3, samples=128, drops=(1.25, 0.0))
DAMAGES = {
    "plain": FOUND,
    "scored": replace(
        FOUND, metric=SCORES, additivity_db=7.0, groups=GROUPS * 10, notes=("branches were not examined",)
    ),
}

POINT = Point(
    corner=0,
    price=0.0,
    float_nodes=(),
    integer_nodes=40,
    estimated_us=812.0,
    expected_db=21.0,
    latency_ms=1.31,
    speedup=1.86,
    sqnr_db=21.4,
    metric=MetricResult(name="top1", reference=71.9, quantized=70.3, drop=1.6, unit="%", samples=500),
    weight_bytes=470_000,
    shortfall=1.1,
)
BETTER = replace(POINT, corner=3, price=5300.0, float_nodes=("a", "b"), estimated_us=900.0, sqnr_db=27.0, shortfall=0.0)
WORSE = replace(POINT, corner=5, price=9100.0, float_nodes=("a", "b", "c"), estimated_us=990.0, sqnr_db=26.8)
FRONTS = {
    "kept": Front(
        points=(POINT, BETTER, replace(WORSE, on_front=False)),
        chosen=3,
        corners=12,
        budget="--max-drop 0.5%",
        met=True,
        samples=500,
        seconds=31.2,
        complete=True,
        additivity_db=0.4,
    ),
    "missed": Front(
        points=(replace(POINT, metric=None),),
        chosen=0,
        corners=1,
        budget="--min-sqnr 40",
        met=False,
        samples=32,
        seconds=2.0,
        complete=False,
        additivity_db=0.0,
    ),
}


def text(print_it: Callable[[Console], None], width: int) -> str:
    file = io.StringIO()
    print_it(Console(file=file, width=width, color_system=None))
    return "".join(f"{line.rstrip()}\n" for line in file.getvalue().splitlines())


def compare(got: str, golden: Path) -> None:
    if os.environ.get("UPDATE_GOLDEN"):
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(got, encoding="utf-8")
    assert got == golden.read_text(encoding="utf-8"), "if the new text is meant: UPDATE_GOLDEN=1 make unit"
    assert got.isascii()


@pytest.mark.parametrize("name", DAMAGES)
@pytest.mark.parametrize("width", [80, 120])
def test_sensitivity(name: str, width: int) -> None:
    got = text(lambda console: show(DAMAGES[name], console), width)
    compare(got, GOLDEN / "sensitivity" / f"{name}-{width}.txt")


@pytest.mark.parametrize("name", FRONTS)
@pytest.mark.parametrize("width", [80, 120])
def test_front(name: str, width: int) -> None:
    compare(text(lambda console: show_front(FRONTS[name], console), width), GOLDEN / "tune" / f"{name}-{width}.txt")


def test_verbose_shows_every_group() -> None:
    shown = text(lambda console: show(DAMAGES["scored"], console, verbose=True), 120)
    assert shown.count("block.3") == 10
    assert "more: -v" not in shown


def test_a_point_that_another_beats_is_off_the_front() -> None:
    points = (POINT, BETTER, WORSE)
    assert [dominated(p, points) for p in points] == [False, False, True]


def test_json_is_one_document() -> None:
    calib = ROOT / "calibration_data" / "digits_cnn" / "calib.npz"
    arguments = [str(ROOT / "sample_models" / "digits_cnn.onnx"), "--calib", str(calib), "--recover", "none", "--json"]
    found = json.loads(CliRunner().invoke(command, arguments).stdout)
    noises = [g["noise"] for g in found["groups"]]
    assert noises == sorted(noises, reverse=True)
    assert abs(found["additivity_db"]) < 2
    assert found["metric"] is None
    plain = document(FOUND)
    assert isinstance(plain, dict)
    assert plain["groups"][1]["sqnr_db"] is None

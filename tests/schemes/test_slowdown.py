"""A model that became slower says by which kernels, and what to do."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from networks.builder import Builder

from qconvert.cli import run
from qconvert.evaluate.latency import measure_latency, speedup, thread_clock
from qconvert.graph.model import load
from qconvert.graph.prepare.canonical import prepare
from qconvert.graph.signature import session_of
from qconvert.recipe.recipe import Recipe
from qconvert.schemes.application import apply, least_opset
from qconvert.schemes.slowdown import slowdown

LAYERS, WIDTH = 6, 256


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Products of 256 x 256, for 4 rows at once."""
    b = Builder(seed=3)
    x = b.input("x", [4, WIDTH])
    for i in range(LAYERS):
        x = b.node("Tanh", b.node("MatMul", x, b.weight(WIDTH, WIDTH, fan_in=WIDTH), name=f"product{i}"))
    b.output(x, [4, WIDTH])
    path = tmp_path_factory.mktemp("source") / "model.onnx"
    path.write_bytes(b.model().SerializeToString())
    return path


@pytest.mark.parametrize(
    ("choices", "operator", "cure"),
    [
        ({"scheme": "nf4"}, "6 MatMulBnb4 take", "--weight-format qdq"),
        ({"scheme": "fp8", "weight_format": "qdq"}, "6 DequantizeLinear take", "--weight-format unpack"),
        ({"scheme": "w2", "accuracy_level": 1}, "6 MatMulNBits take", "--scheme w4"),
    ],
)
def test_what_loses_time_is_named_and_the_cure_cures(
    choices: dict[str, object], operator: str, cure: str, source: Path
) -> None:
    feed = {"x": np.random.default_rng(0).standard_normal((4, WIDTH)).astype(np.float32)}
    made = {}
    recipe = Recipe(**choices)  # type: ignore[arg-type]
    for name, r in (("slow", recipe), ("cured", cured(recipe, cure))):
        prepared = prepare(load(source), feed, min_opset=least_opset(r))
        made[name] = apply(prepared, r).model
    said = slowdown(prepared.model, made["slow"], feed, recipe)
    assert len(said) == 1, said
    assert operator in said[0] and "product" in said[0] and cure in said[0]
    sessions = {name: session_of(model, threads=1) for name, model in made.items()}
    times = measure_latency(sessions, feed, seconds=0.3, clock=thread_clock())
    assert speedup(times["slow"], times["cured"]).median > 1.2


def cured(recipe: Recipe, cure: str) -> Recipe:
    option, value = cure.removeprefix("--").replace("-", "_").split(" ")
    return replace(recipe, **{option: value}, accuracy_level=4)


def test_every_report_says_so(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["quantize", str(source), "--scheme", "nf4", "--calib", "random:8", "-o", str(tmp_path / "out.onnx")]
    pages = [tmp_path / f"report.{suffix}" for suffix in ("html", "json", "md")]
    code = run([*line, *(part for page in pages for part in ("--report", str(page)))])
    shown = " ".join(capsys.readouterr().out.split())
    assert code == 0
    assert "6 MatMulBnb4 take" in shown and "--weight-format qdq" in shown
    assert all("6 MatMulBnb4 take" in page.read_text() for page in pages)
    assert any("MatMulBnb4" in w for w in json.loads(pages[1].read_text())["warnings"])

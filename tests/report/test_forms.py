"""Markdown, JUnit and text of every command's result: golden files, and what no name may do to them."""

from __future__ import annotations

import math
import os
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qconvert.evaluate.benchmark import Benchmark
from qconvert.evaluate.comparison import ModelComparison
from qconvert.evaluate.evaluation import Evaluation
from qconvert.evaluate.gates import parse_gate
from qconvert.evaluate.metric import METRICS
from qconvert.report.model import Report
from qconvert.report.quantities import judged, quantities, values
from qconvert.report.renderer import RENDERERS
from qconvert.report.renderers.markdown import escaped
from qconvert.report.result import KINDS, command_of

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "reports"
NAMES = ("classifier", "detector", "comparison", "evaluation", "timings")
# the text of quantize is in tests/golden/console
CASES = [
    *((name, form) for name in NAMES for form in ("markdown", "junit")),
    *((name, "text") for name in NAMES[2:]),
]


@pytest.mark.parametrize(("name", "form"), CASES)
def test_golden(name: str, form: str, request: pytest.FixtureRequest) -> None:
    renderer = RENDERERS.get(form)
    got, golden = renderer.render(request.getfixturevalue(name)), GOLDEN / f"{name}{renderer.suffixes[0]}"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(got, encoding="utf-8")
    assert got == golden.read_text(encoding="utf-8"), "if the new text is meant: UPDATE_GOLDEN=1 make unit"
    assert got.isascii()


# ---- Markdown


def cells(line: str) -> int:
    """Cells of a row, as GitHub counts them: bars that are not escaped."""
    return len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) - 1


@given(st.text(max_size=30))
def test_a_name_stays_one_cell_and_no_markup(name: str) -> None:
    shown = escaped(name)
    assert "\n" not in shown
    assert cells(f"| {shown} |") == 1
    assert not re.search(r"(?<!\\)(?:\\\\)*[<`\[*]", shown)
    assert re.sub(r"\\([\\`*_{}\[\]<>#|~&@!])", r"\1", shown) == " ".join(name.split())


def test_rows_have_as_many_cells_as_their_heading(comparison: ModelComparison) -> None:
    tables: list[list[int]] = [[]]
    for line in RENDERERS.get("markdown").render(comparison).splitlines():
        if line.startswith("|"):
            tables[-1].append(cells(line))
        elif tables[-1]:
            tables.append([])
    assert [len(set(widths)) for widths in tables if widths] == [1, 1, 1, 1]


# ---- JUnit


def test_a_case_a_gate(comparison: ModelComparison) -> None:
    root = ET.fromstring(RENDERERS.get("junit").render(comparison))
    suite = root.find("testsuite")
    assert suite is not None
    assert (suite.get("tests"), suite.get("failures")) == ("3", "2")
    failed = [case.get("name") for case in suite.iter("testcase") if case.find("failure") is not None]
    assert failed == ["not speedup < 2", "not agreement < 99%"]
    assert {p.get("name"): p.get("value") for p in suite.iter("property")}["top1_drop"] == repr(
        comparison.comparison.metric.drop if comparison.comparison.metric else None
    )


@given(st.text(max_size=20))
def test_any_name_can_be_written(name: str) -> None:
    result = _plain(name)
    ET.fromstring(RENDERERS.get("junit").render(result).encode("utf-8", "surrogatepass"))


def _plain(name: str) -> Benchmark:
    from qconvert.evaluate.benchmark import ModelTiming
    from qconvert.evaluate.footprint import Footprint
    from qconvert.evaluate.latency import Latency, Speedup

    timing = ModelTiming(
        name=name,
        path=name,
        bytes=1,
        latency=Latency(median_ms=1.0, p10_ms=1.0, p90_ms=1.0, runs=3),
        p95_ms=1.0,
        spread=0.0,
        samples_per_second=1.0,
        footprint=Footprint(load_ms=1.0, peak_mb=0.0, model_mb=0.0),
        ratio=Speedup(median=1.0, p10=1.0, p90=1.0),
    )
    return Benchmark(models=(timing,), rounds=3, threads=0, samples=1, data="", feeds=1, inputs=(), assumed={})


# ---- quantities


def test_every_value_is_a_quantity(
    classifier: Report, comparison: ModelComparison, evaluation: Evaluation, timings: Benchmark
) -> None:
    for result in (classifier, comparison, evaluation, timings):
        known = {q.name for q in quantities(command_of(result))}
        for found in values(result).values():
            assert set(found) <= known
            # what is missing belongs to metrics that were not computed
            metrics = {q.name for q in quantities(command_of(result)) if q.metric}
            assert known - set(found) <= metrics


def test_every_metric_can_be_gated() -> None:
    for command in ("quantize", "compare"):
        names = {q.name for q in quantities(command)}
        assert names >= {f"{m}{end}" for m in METRICS.names() for end in ("", "_drop")}
        assert "perplexity_ratio" in names
        assert "top1_ratio" not in names
    assert {q.name for q in quantities("evaluate")} >= set(METRICS.names())
    assert {"speedup", "size_ratio"} <= {q.name for q in quantities("bench")}
    assert "speedup" not in {q.name for q in quantities("bench", models=1)}
    assert all(len({q.name for q in quantities(c)}) == len(quantities(c)) for c in KINDS)


def test_values(comparison: ModelComparison, timings: Benchmark, evaluation: Evaluation) -> None:
    (found,) = values(comparison).values()
    assert found["top1"] == 99.2
    assert found["size_ratio"] == pytest.approx(120_400 / 420_100)
    assert found["tensor_sqnr"] == 33.0  # a rescaled tensor counts without the scales
    assert found["agreement"] == 0.998
    assert list(values(timings)) == ["int8.onnx"]
    assert values(timings)["int8.onnx"]["speedup"] == 1.824
    assert values(evaluation)[""]["top1"] == 99.4


def test_judging(comparison: ModelComparison, timings: Benchmark) -> None:
    known = quantities("compare")
    gates = tuple(parse_gate(t, known) for t in ("top1_drop > 0.1%", "sqnr < 30", "psnr < 20"))
    assert [v.broken for v in judged(comparison, gates).gates] == [True, False, True]
    (verdict,) = judged(timings, (parse_gate("speedup < 2", quantities("bench")),)).gates
    assert (verdict.model, verdict.broken, verdict.value) == ("int8.onnx", True, 1.824)


def test_equal_infinite_errors_are_a_ratio_of_one(comparison: ModelComparison) -> None:
    metric = comparison.comparison.metric
    assert metric is not None
    broken = replace(metric, name="mse", reference=math.inf, quantized=math.inf, drop=0.0, higher_is_better=False)
    (found,) = values(replace(comparison, comparison=replace(comparison.comparison, metric=broken))).values()
    assert found["mse_ratio"] == 1.0

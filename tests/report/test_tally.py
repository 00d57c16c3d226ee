"""Counts and words that all forms of the report share."""

from __future__ import annotations

from pathlib import Path

import pytest

from qconvert.evaluate.compare import MetricResult
from qconvert.inspection import inspect_model
from qconvert.recipe.recipe import Recipe
from qconvert.report.model import NodeDecision, Report
from qconvert.report.renderers import phrases, tally

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"


@pytest.mark.parametrize("model", ["digits_cnn", "digits_transformer", "digits_gru"])
def test_every_node_is_counted_once(model: str) -> None:
    decisions = inspect_model(SAMPLES / f"{model}.onnx", Recipe()).decisions
    counted = sum(g.nodes for g in (*tally.taken(decisions), *tally.left_float(decisions)))
    assert counted == len(decisions)


def test_shape_arithmetic_is_one_line_at_the_end() -> None:
    decisions = inspect_model(SAMPLES / "digits_transformer.onnx", Recipe()).decisions
    groups = tally.left_float(decisions)
    # the reasons are the planner's words: this fails when they change
    assert groups[-1].reason == tally.SHAPES
    assert groups[-1].nodes > 3
    assert {"Shape", "Gather", "Slice"} <= dict(groups[-1].ops).keys()
    assert groups[0].ops[0][0] == "MatMul"


def test_costly_operators_come_first_and_are_never_shapes(detector: Report) -> None:
    groups = tally.left_float(detector.decisions)
    assert [g.ops[0][0] for g in groups] == ["Conv", "Loop", "Add", "Gather"]
    half = NodeDecision(node="c", op_type="Conv", quantized=False, reason="it computes no float32 values")
    assert tally.left_float([half])[0].reason == half.reason


def test_absorbed_nodes_are_one_group(classifier: Report) -> None:
    groups = tally.taken(classifier.decisions)
    assert [(g.reason, g.ops) for g in groups] == [
        ("integer kernel", (("Conv", 9), ("Gemm", 1))),
        ("joins integer operators", (("Add", 2),)),
        ("absorbed into the operator before", (("Relu", 5),)),
    ]


def test_lists_of_operators() -> None:
    ops = (("Conv", 9), ("Gemm", 1), ("Add", 1))
    assert tally.listed(ops) == "9 Conv, 1 Gemm, 1 Add"
    assert tally.listed(ops, {"Conv": 10, "Gemm": 1, "Add": 4}) == "9 of 10 Conv, 1 of 1 Gemm, 1 of 4 Add"
    assert tally.listed(ops, most=2) == "9 Conv, 1 Gemm, ..."


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (999_499, "999 kB"),
        (999_600, "1.00 MB"),
        (3_200_000_000, "3.20 GB"),
    ],
)
def test_sizes(count: int, words: str) -> None:
    assert phrases.size(count) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.0, "0"),
        (0.09996, "0.100"),
        (12.34, "12.3"),
        (-12.36, "-12.4"),
        (440.4, "440"),
        (5e-7, "5.00e-07"),
        (2e9, "2.00e+09"),
    ],
)
def test_three_digits(value: float, words: str) -> None:
    assert phrases.significant(value) == words


@pytest.mark.parametrize(
    ("share", "words"), [(1.0, "100 %"), (0.99999, "99.9 %"), (0.998, "99.8 %"), (0.00001, "0.1 %"), (0.0, "0 %")]
)
def test_all_is_said_only_of_all(share: float, words: str) -> None:
    assert phrases.percent(share) == words


@pytest.mark.parametrize(
    ("unit", "drop", "words"),
    [
        ("%", 0.2, "0.2 points worse"),
        ("%", 0.01, "0.01 points worse"),
        ("%", -0.4, "0.4 points better"),
        ("%", 0.0, "unchanged"),
        ("dB", 0.31, "0.31 dB worse"),
        ("", 0.0123, "0.012 worse"),
        ("", float("inf"), "worse"),
    ],
)
def test_change_of_a_metric(unit: str, drop: float, words: str) -> None:
    metric = MetricResult(name="m", reference=1.0, quantized=1.0, drop=drop, unit=unit, samples=1)
    assert phrases.metric_change(metric) == words


def test_sizes_by_kind_add_up(classifier: Report) -> None:
    rows = phrases.sizes_by_kind(classifier.model, classifier.output)
    assert rows[0][0] == "float32 constants"
    assert rows[-1] == ("other", 0, 30)
    assert sum(r[1] for r in rows) == sum(classifier.model.by_kind.values())
    assert sum(r[2] for r in rows) == sum(classifier.output.by_kind.values())

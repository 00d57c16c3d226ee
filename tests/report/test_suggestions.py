"""What to try next follows from the report."""

from __future__ import annotations

from dataclasses import replace

from qconvert.report.model import Report
from qconvert.report.renderers.suggestions import suggestions


def said(report: Report) -> str:
    return "\n".join(f"{s.text} {s.command}" for s in suggestions(report))


def with_drop(report: Report, drop: float) -> Report:
    comparison = report.accuracy.comparison
    assert comparison.metric is not None
    metric = replace(comparison.metric, drop=drop)
    return replace(report, accuracy=replace(report.accuracy, comparison=replace(comparison, metric=metric)))


def test_a_good_model_is_only_to_be_measured_where_it_will_run(classifier: Report) -> None:
    (only,) = suggestions(classifier)
    assert only.command == "qconvert bench models/digits.onnx out/digits.int8.onnx"


def test_a_bad_one_has_its_faults_named_the_failed_check_first(detector: Report) -> None:
    text = said(detector)
    assert suggestions(detector)[0].text.startswith("A check failed")
    for part in ("1 sample is few", "--method auto", "not faster", "calibration has seen", "--labels LABELS"):
        assert part in text


def test_a_drop_is_pursued_once_it_is_telling(classifier: Report) -> None:
    assert "--method minmax" in said(with_drop(classifier, 0.6))
    assert "--method" not in said(with_drop(classifier, 0.4))
    assert "--method" not in said(with_drop(classifier, -3.0))


def test_a_fast_run_that_lost_accuracy_is_to_be_made_by_default(classifier: Report) -> None:
    hurried = replace(with_drop(classifier, 0.6), recipe={**classifier.recipe, "effort": "fast"})
    assert suggestions(hurried)[0].command.endswith("--effort default")
    assert "--effort" not in said(with_drop(classifier, 0.6))


def test_layers_known_to_do_harm_are_named_the_worst_first(classifier: Report) -> None:
    decisions = tuple(
        replace(d, node=f"n {i}", sqnr_db=50.0 - i if d.quantized else None) for i, d in enumerate(classifier.decisions)
    )
    text = said(replace(with_drop(classifier, 2.0), decisions=decisions))
    assert "--exclude 'n 16' --exclude 'n 15' --exclude 'n 14'" in text

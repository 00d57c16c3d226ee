"""The tiles at the top of the page: one figure each, what it was before, and whether that is good."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qconvert.report.html.rows import Kind, Row
from qconvert.report.model import AccuracyReport, Report
from qconvert.report.renderers import phrases


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """A figure.

    Attributes:
        label: what it is.
        value: the figure, large.
        detail: below it.
        mood: class of ``style.css``: "good", "bad" or "".
    """

    label: str
    value: str
    detail: str
    mood: str = ""


def tiles_of(report: Report, rows: Sequence[Row]) -> list[Tile]:
    """Size, speed, accuracy, likeness, coverage, checks."""
    before, after = report.model.bytes, report.output.bytes
    accuracy, latency = report.measured
    ratio = latency.speedup.median
    slower = ratio < 1 - phrases.SAME_SPEED
    faster = ratio > 1 + phrases.SAME_SPEED
    tiles = [
        Tile(
            label="Size",
            value=phrases.size_change(before, after),
            detail=f"{phrases.size(before)} → {phrases.size(after)}",
            mood="good" if after < before else "bad",
        ),
        Tile(
            label="Speed",
            value=phrases.speed_change(ratio),
            detail=f"{phrases.milliseconds(latency.fp32.median_ms)} → "
            f"{phrases.milliseconds(latency.quantized.median_ms)}, {phrases.threads(latency.threads)}",
            mood="bad" if slower else "good" if faster else "",
        ),
    ]
    tiles += _accuracy(accuracy)
    arithmetic = [r for r in rows if r.kind is not Kind.SHAPES]
    integer = sum(r.kind is not Kind.FLOAT for r in arithmetic)
    tiles.append(
        Tile(
            label="On integers", value=f"{integer} of {len(arithmetic)}", detail="operations that were float arithmetic"
        )
    )
    v = report.verification
    problems = [*([v.checker] if v.checker else []), *([] if v.loads else ["does not load"]), *v.interface]
    tiles.append(
        Tile(
            label="Checks",
            value="failed" if problems else "passed",
            detail="; ".join(problems) or "valid ONNX, loads, same inputs and outputs",
            mood="bad" if problems else "good",
        )
    )
    return tiles


def _accuracy(accuracy: AccuracyReport) -> list[Tile]:
    comparison = accuracy.comparison
    metric, fidelity = comparison.metric, comparison.fidelity
    found = []
    if metric is not None:
        found.append(
            Tile(
                label=metric.name,
                value=phrases.metric_value(metric, metric.quantized),
                detail=f"{phrases.metric_change(metric)}, FP32 {phrases.metric_value(metric, metric.reference)}",
            )
        )
    elif fidelity.top1_agreement is not None:
        found.append(
            Tile(label="Same top-1 class", value=phrases.percent(fidelity.top1_agreement), detail="of samples, as FP32")
        )
    return [
        *found,
        Tile(label="SQNR", value=phrases.decibels(fidelity.sqnr_db), detail=f"cosine similarity {fidelity.cosine:.5f}"),
    ]

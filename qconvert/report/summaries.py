"""From results to summaries: which figures are shown, in which words."""

from __future__ import annotations

import math
from collections.abc import Iterator

from qconvert.evaluate.benchmark import Benchmark
from qconvert.evaluate.compare import Comparison
from qconvert.evaluate.comparison import ComparedModel, ModelComparison
from qconvert.evaluate.evaluation import Evaluation
from qconvert.evaluate.fidelity import FidelityReport
from qconvert.evaluate.latency import Latency, Speedup
from qconvert.evaluate.tensors import TensorComparison, TensorFidelity
from qconvert.report.model import Report
from qconvert.report.notebook import reasons
from qconvert.report.quantities import values
from qconvert.report.renderers import phrases
from qconvert.report.renderers.facts import Fact, Level, facts, gate_facts
from qconvert.report.result import Result, command_of
from qconvert.report.summary import Grid, Summary

MAX_TENSORS = 10
_MAX_OUTPUTS = 8


def summary_of(result: Result, *, everything: bool = False) -> Summary:
    """``result`` in words and tables.

    Args:
        result: of any command.
        everything: every tensor, in the order of the graph, in place of the worst few.
    """
    if isinstance(result, Report):
        subject = f"{phrases.file_name(result.model.path)} -> {phrases.file_name(result.output.path)}"
        headline, grids = phrases.headline(result), tuple(_of_report(result))
        told, seconds = facts(result), sum(result.seconds.values())
    elif isinstance(result, ModelComparison):
        subject = " -> ".join(phrases.file_name(m.path) for m in (result.reference, result.other))
        headline, grids = _compared(result, subject), tuple(_of_models(result, everything))
        told, seconds = [*gate_facts(result.gates), *_facts_of_models(result)], result.seconds
    elif isinstance(result, Evaluation):
        subject = phrases.file_name(result.path)
        headline, grids = _evaluated(result), tuple(_of_evaluation(result))
        told, seconds = [*gate_facts(result.gates), *_facts_of_data(result)], result.seconds
    else:
        subject = ", ".join(m.name for m in result.models)
        headline, grids = _timed(result), tuple(_of_benchmark(result))
        told, seconds = [*gate_facts(result.gates), *_facts_of_benchmark(result)], 0.0
    return Summary(
        command=command_of(result),
        subject=subject,
        headline=headline,
        grids=grids,
        gates=result.gates,
        values=values(result),
        facts=tuple(told),
        seconds=seconds,
    )


# ---- two models


def _of_report(report: Report) -> Iterator[Grid]:
    latency = report.latency
    if report.accuracy is not None and latency is not None:
        comparison = report.accuracy.comparison
        yield _changes(
            (report.model.bytes, report.output.bytes),
            comparison,
            (latency.fp32, latency.quantized),
            latency.speedup,
            phrases.threads(latency.threads),
        )
        yield from _outputs(comparison.fidelity)
    yield from reasons(report.decisions, "What runs where, and why")


def _of_models(result: ModelComparison, everything: bool) -> Iterator[Grid]:
    yield _changes(
        (result.reference.bytes, result.other.bytes),
        result.comparison,
        (result.reference.latency, result.other.latency),
        result.speedup,
        phrases.threads(result.threads),
        columns=("first", "second"),
    )
    yield from _outputs(result.comparison.fidelity)
    yield from _worst_samples(result.comparison)
    if result.tensors is not None and result.tensors.tensors:
        yield _tensors(result.tensors, everything)


def _changes(
    sizes: tuple[int, int],
    comparison: Comparison,
    latencies: tuple[Latency, Latency],
    ratio: Speedup,
    threads: str,
    columns: tuple[str, str] = ("before", "after"),
) -> Grid:
    """First, second, change."""
    metric, fidelity = comparison.metric, comparison.fidelity
    rows = [("size", *(phrases.size(n) for n in sizes), phrases.size_change(*sizes))]
    if metric is not None:
        both = (phrases.metric_value(metric, v) for v in (metric.reference, metric.quantized))
        label = f"{metric.name}, {phrases.count(metric.samples, 'sample')}"
        rows.append((label, *both, phrases.metric_change(metric)))
        if metric.interval is not None:
            rows.append(("  drop, 95 % confidence", "", "", phrases.drop_interval(metric)))
    several = len(fidelity.outputs) > 1
    rows.append(("SQNR", "", phrases.decibels(fidelity.sqnr_db), "all outputs" if several else ""))
    if several:
        rows.append(("  worst output", "", phrases.decibels(fidelity.worst_sqnr_db), fidelity.worst_output or ""))
    rows.append(("cosine similarity", "", f"{fidelity.cosine:.5f}", "mean of the outputs" if several else ""))
    rows.append(("largest error", "", phrases.significant(fidelity.max_abs_error), ""))
    if fidelity.top1_agreement is not None:
        rows.append(("same top-1 class", "", phrases.percent(fidelity.top1_agreement), "of samples"))
    times = (phrases.milliseconds(latency.median_ms) for latency in latencies)
    rows.append((f"latency, {threads}", *times, phrases.speed_change(ratio.median)))
    spreads = (phrases.spread(latency.p10_ms, latency.p90_ms) for latency in latencies)
    runs = phrases.count(latencies[0].runs, "run")
    rows.append((f"  p10..p90 of {runs}", *spreads, f"{ratio.p10:.2f}x..{ratio.p90:.2f}x"))
    return Grid(columns=("", *columns, "change"), rows=tuple(rows), numeric=2)


def _outputs(fidelity: FidelityReport) -> Iterator[Grid]:
    """A row for each output, the worst first, where there are several."""
    if len(fidelity.outputs) < 2:
        return
    worst = sorted(fidelity.outputs, key=lambda o: (o.sqnr_db is None, o.sqnr_db or 0.0))
    yield Grid(
        title=_first("outputs", len(worst), _MAX_OUTPUTS),
        columns=("output", "SQNR", "cosine", "largest error"),
        rows=tuple(
            (
                o.name,
                phrases.decibels(o.sqnr_db),
                _cosine(o.cosine),
                phrases.significant(o.max_abs_error) if o.numeric else ("equal" if o.equal else "differs"),
            )
            for o in worst[:_MAX_OUTPUTS]
        ),
        numeric=3,
    )


def _worst_samples(comparison: Comparison) -> Iterator[Grid]:
    found, metric = comparison.worst_samples, comparison.metric
    if not found:
        return
    scored = metric is not None and any(s.drop is not None for s in found)
    yield Grid(
        title="Samples that differ most",
        columns=("sample", "SQNR", *((f"{metric.name} drop",) if scored and metric is not None else ())),
        rows=tuple(
            (s.name, phrases.decibels(s.sqnr_db), *((phrases.significant(s.drop or 0.0),) if scored else ()))
            for s in found
        ),
        numeric=2,
    )


def _tensors(found: TensorComparison, everything: bool) -> Grid:
    """The tensors inside: the worst first, or all in the order of the graph."""
    shown = list(found.tensors)
    if not everything:
        known = [t for t in shown if t.fitted_sqnr_db is not None]
        shown = sorted(known, key=lambda t: t.fitted_sqnr_db or 0.0)[:MAX_TENSORS]
    title = "Tensors in the order of the graph" if everything else _first("tensors", len(found.tensors), MAX_TENSORS)
    return Grid(
        title=title,
        columns=("tensor", "SQNR", "cosine", "largest error", "made by"),
        rows=tuple(
            (t.name, _tensor_db(t), _cosine(t.cosine), phrases.significant(t.max_abs_error), t.op_type) for t in shown
        ),
        numeric=3,
    )


def _tensor_db(tensor: TensorFidelity) -> str:
    if tensor.sqnr_db is None:
        return "other shape"
    # what equalization rescaled is judged without the scales
    return f"{phrases.decibels(tensor.fitted_sqnr_db)}{' *' if tensor.rescaled else ''}"


def _compared(result: ModelComparison, subject: str) -> str:
    sizes, speed = (result.reference.bytes, result.other.bytes), result.speedup.median
    return phrases.change(subject, sizes, speed, result.comparison)


def _facts_of_models(result: ModelComparison) -> Iterator[Fact]:
    yield Fact(label="models", text="; ".join(map(_model, (result.reference, result.other))))
    tensors = result.tensors
    if tensors is not None:
        known, total = len(tensors.tensors), len(tensors.tensors) + len(tensors.unmatched)
        text = (
            f"{known} of {total} tensors of the first model are in the second too, compared on "
            f"{phrases.count(tensors.samples, 'sample')}"
        )
        if any(t.rescaled for t in tensors.tensors):
            text += "; * equal but for a scale a channel, which was allowed for"
        yield Fact(label="tensors", text=text)
    yield from _facts_of_data(result)


def _model(model: ComparedModel) -> str:
    ops = ", ".join(model.quantized_ops[:3]) + (" ..." if len(model.quantized_ops) > 3 else "")
    return f"{phrases.file_name(model.path)} is {f'quantized ({ops})' if ops else 'float'}"


def _facts_of_data(result: ModelComparison | Evaluation) -> Iterator[Fact]:
    yield Fact(label="data", text=f"{phrases.count(result.samples, 'sample')} of {result.source}")
    if result.skipped_samples:
        yield Fact(label="skipped", text=f"{phrases.count(len(result.skipped_samples), 'bad sample')}")
    notes = result.notes if isinstance(result, ModelComparison) else ()
    yield from (Fact(label="note", text=note) for note in notes)
    yield from (Fact(label="warning", text=warning, level=Level.WARNING) for warning in result.warnings)
    yield Fact(label="time", text=f"{result.seconds:.1f} s", level=Level.QUIET)


# ---- one model


def _evaluated(result: Evaluation) -> str:
    name, metric = phrases.file_name(result.path), result.metric
    taken = f"{phrases.milliseconds(result.latency.median_ms)}, {phrases.size(result.bytes)}"
    if metric is None:
        return f"{name}: {phrases.count(result.samples, 'sample')}, {taken}"
    value = phrases.value_of(metric.value, metric.unit)
    return f"{name}: {metric.name} {value} on {phrases.count(metric.samples, 'sample')}, {taken}"


def _of_evaluation(result: Evaluation) -> Iterator[Grid]:
    metric, latency = result.metric, result.latency
    rows = []
    if metric is not None:
        label = f"{metric.name}, {phrases.count(metric.samples, 'sample')}"
        interval = metric.interval
        around = (
            ""
            if interval is None
            else (
                f"{phrases.value_of(interval.low, metric.unit)} to {phrases.value_of(interval.high, metric.unit)}"
                f" ({interval.confidence:.0%} confidence)"
            )
        )
        rows.append((label, phrases.value_of(metric.value, metric.unit), around))
    spread = f"p10..p90 {phrases.spread(latency.p10_ms, latency.p90_ms)}, {phrases.count(latency.runs, 'run')}"
    rows.append((f"latency, {phrases.threads(result.threads)}", phrases.milliseconds(latency.median_ms), spread))
    kind = f"quantized ({', '.join(result.quantized_ops[:3])})" if result.quantized_ops else "float"
    rows.append(("size", phrases.size(result.bytes), kind))
    yield Grid(columns=("", "value", ""), rows=tuple(rows), numeric=1)
    yield Grid(
        title="Outputs",
        columns=("output", "mean", "least", "greatest", "NaN or Inf", "type and shape"),
        rows=tuple(
            (
                o.name,
                "" if o.mean is None else phrases.significant(o.mean),
                *(("", "") if o.range is None else map(phrases.significant, o.range)),
                f"{o.nonfinite:,}",
                f"{o.dtype} {list(o.shape)}",
            )
            for o in result.outputs
        ),
        numeric=4,
    )
    if result.worst_samples and metric is not None:
        yield Grid(
            title="Samples scored worst",
            columns=("sample", metric.name),
            rows=tuple((s.name, phrases.value_of(s.score, metric.unit)) for s in result.worst_samples),
            numeric=1,
        )


# ---- timings


def _timed(result: Benchmark) -> str:
    threads = phrases.threads(result.threads)
    models, rounds = phrases.count(len(result.models), "model"), phrases.count(result.rounds, "round")
    return f"{models}, {rounds}, {threads}, {phrases.count(result.samples, 'sample')} a run"


def _of_benchmark(result: Benchmark) -> Iterator[Grid]:
    first = result.models[0]
    yield Grid(
        columns=("model", "size", "median", "p10..p90", "speed", "p10..p90 of speed", "load", "memory"),
        rows=tuple(
            (
                m.name,
                phrases.size(m.bytes),
                phrases.milliseconds(m.latency.median_ms),
                phrases.spread(m.latency.p10_ms, m.latency.p90_ms),
                "1" if m is first else f"{phrases.significant(m.ratio.median)}x",
                "" if m is first else f"{m.ratio.p10:.2f}x..{m.ratio.p90:.2f}x",
                phrases.milliseconds(m.footprint.load_ms),
                f"{m.footprint.model_mb:,.1f} MB" if m.footprint.peak_mb else "unknown",
            )
            for m in result.models
        ),
        numeric=7,
    )


def _facts_of_benchmark(result: Benchmark) -> Iterator[Fact]:
    shapes = ", ".join(f"{i.name} {i.dtype} {list(i.shape)}" for i in result.inputs)
    source = f"{phrases.count(result.feeds, 'feed')} of {result.data}" if result.data else "made from the signature"
    yield Fact(label="inputs", text=f"{source}: {shapes}")
    yield from (Fact(label="warning", text=warning, level=Level.WARNING) for warning in result.warnings)


def _first(what: str, total: int, most: int) -> str:
    return f"{what.capitalize()}, the worst first" if total <= most else f"The worst {most} of {total} {what}"


def _cosine(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else f"{value:.5f}"

"""The quantities that --fail-if and JUnit properties name, and their values in a result."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

from qconvert.evaluate.benchmark import Benchmark
from qconvert.evaluate.compare import Comparison
from qconvert.evaluate.comparison import ModelComparison
from qconvert.evaluate.evaluation import Evaluation
from qconvert.evaluate.gates import Gate, Quantity, Verdict, judge
from qconvert.evaluate.metric import METRICS
from qconvert.report.model import Report
from qconvert.report.result import Result

R = TypeVar("R", bound=Result)

_SIZE = Quantity(name="size_mb", unit="MB", what="size of the second model's files, 1 MB = 1,000,000 bytes")
_RATIO = Quantity(name="size_ratio", unit="share", what="size of the second model relative to the first's")
_SPEEDUP = Quantity(name="speedup", unit="x", what="how many times as fast the second model is as the first, median")
_LATENCY = Quantity(name="latency_ms", unit="ms", what="median run time of the second model")
_FIDELITY = (
    Quantity(name="sqnr", unit="dB", what="SQNR of all outputs together"),
    Quantity(name="worst_sqnr", unit="dB", what="SQNR of the output that differs most"),
    Quantity(name="cosine", unit="", what="cosine similarity of the outputs, mean"),
    Quantity(name="max_abs_error", unit="", what="largest difference of any output"),
    Quantity(name="agreement", unit="share", what="samples to which both models give the same top-1 class"),
)
_TENSORS = (Quantity(name="tensor_sqnr", unit="dB", what="SQNR of the tensor inside that differs most"),)
_BENCH = (
    Quantity(name="p95_ms", unit="ms", what="95th percentile of the run time"),
    Quantity(name="samples_per_second", unit="", what="throughput at the median run time"),
    Quantity(name="load_ms", unit="ms", what="time to load the model"),
    Quantity(name="memory_mb", unit="MB", what="memory that loading and one run add to a fresh process"),
)
_NONFINITE = Quantity(name="nonfinite", unit="", what="NaN and infinite values among the outputs")


def quantities(command: str, *, models: int = 2) -> tuple[Quantity, ...]:
    """What a gate of ``command`` can be about.

    Args:
        command: "quantize", "compare", "evaluate" or "bench".
        models: how many models take part; what is relative to the first needs a second.
    """
    if command == "bench":
        relative = (_SPEEDUP, _RATIO) if models > 1 else ()
        return (*relative, _LATENCY, *_BENCH, _SIZE)
    if command == "evaluate":
        return (*_of_metrics(compared=False), _SIZE, _LATENCY, _NONFINITE)
    inside = _TENSORS if command == "compare" else ()
    return (*_of_metrics(compared=True), *_FIDELITY, *inside, _RATIO, _SIZE, _SPEEDUP, _LATENCY)


def values(result: Result) -> dict[str, dict[str, float]]:
    """Model -> quantity -> value, in the quantity's unit; "" is the model of a result that is about one.

    Quantities that a run does not have (no labels, no class scores) are left out.
    """
    if isinstance(result, Benchmark):
        return _of_benchmark(result)
    if isinstance(result, Evaluation):
        metric = result.metric
        own = {metric.name: metric.value} if metric is not None else {}
        nonfinite = sum(output.nonfinite for output in result.outputs)
        rest = {"size_mb": result.bytes / 1e6, "latency_ms": result.latency.median_ms, "nonfinite": float(nonfinite)}
        return {"": {**own, **rest}}
    if isinstance(result, Report):
        sizes, times = (result.model.bytes, result.output.bytes), result.latency
        speed = {"speedup": times.speedup.median, "latency_ms": times.quantized.median_ms}
        return {"": {**_of_comparison(result.accuracy.comparison), **_sizes(*sizes), **speed}}
    return {"": _of_models(result)}


def judged(result: R, gates: tuple[Gate, ...]) -> R:
    """``result`` with what became of ``gates``."""
    verdicts: tuple[Verdict, ...] = ()
    for model, found in values(result).items():
        verdicts += judge(gates, found, model=model)
    return replace(result, gates=verdicts)


def _of_metrics(*, compared: bool) -> tuple[Quantity, ...]:
    found = []
    for metric in METRICS:
        # a bare metric that is better when higher is a correlation, at most 1
        unit = metric.unit or ("share" if metric.higher_is_better else "")
        name, of = metric.name, " of the second model" if compared else ""
        found.append(Quantity(name=name, unit=unit, what=f"{name}{of}", metric=name))
        if compared:
            worse = f"how much worse {name} is for the second model"
            found.append(Quantity(name=f"{name}_drop", unit=unit, what=worse, metric=name))
        if compared and not metric.higher_is_better:
            relative = f"{name} of the second model relative to the first's"
            found.append(Quantity(name=f"{name}_ratio", unit="share", what=relative, metric=name))
    return tuple(found)


def _of_comparison(comparison: Comparison) -> dict[str, float]:
    fidelity, metric = comparison.fidelity, comparison.metric
    found = {
        "sqnr": fidelity.sqnr_db,
        "worst_sqnr": fidelity.worst_sqnr_db,
        "cosine": fidelity.cosine,
        "max_abs_error": fidelity.max_abs_error,
    }
    if fidelity.top1_agreement is not None:
        found["agreement"] = fidelity.top1_agreement
    if metric is not None:
        found |= {metric.name: metric.quantized, f"{metric.name}_drop": metric.drop}
        if not metric.higher_is_better:
            same = metric.quantized == metric.reference
            found[f"{metric.name}_ratio"] = 1.0 if same else _ratio(metric.quantized, metric.reference)
    return found


def _of_models(result: ModelComparison) -> dict[str, float]:
    worst = result.tensors.worst if result.tensors is not None else None
    inside = {"tensor_sqnr": worst.fitted_sqnr_db} if worst is not None and worst.fitted_sqnr_db is not None else {}
    speed = {"speedup": result.speedup.median, "latency_ms": result.other.latency.median_ms}
    return {
        **_of_comparison(result.comparison),
        **inside,
        **_sizes(result.reference.bytes, result.other.bytes),
        **speed,
    }


def _of_benchmark(result: Benchmark) -> dict[str, dict[str, float]]:
    first, *others = result.models
    found: dict[str, dict[str, float]] = {}
    for model in others or [first]:
        relative = {"speedup": model.ratio.median, "size_ratio": _ratio(model.bytes, first.bytes)} if others else {}
        taken = model.footprint
        found[model.name] = {
            **relative,
            "latency_ms": model.latency.median_ms,
            "p95_ms": model.p95_ms,
            "samples_per_second": model.samples_per_second,
            "load_ms": taken.load_ms,
            **({"memory_mb": taken.model_mb} if taken.peak_mb else {}),
            "size_mb": model.bytes / 1e6,
        }
    return found


def _sizes(first: int, second: int) -> Mapping[str, float]:
    return {"size_ratio": _ratio(second, first), "size_mb": second / 1e6}


def _ratio(second: float, first: float) -> float:
    return second / first if first else math.inf

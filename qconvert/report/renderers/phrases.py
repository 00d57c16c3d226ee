"""How numbers of a report are said, in every form that people read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from qconvert.evaluate.compare import Comparison, MetricResult
from qconvert.report.model import FileSize, Report

# A speed-up nearer to 1 than this is within what two measurements of the same model differ by.
SAME_SPEED = 0.03


def significant(value: float, digits: int = 3) -> str:
    """``value`` rounded to ``digits`` digits, without exponent between 0.001 and a million: 0.171, 12.6, 440."""
    if not math.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    if not 1e-3 <= abs(value) < 1e6:
        return f"{value:.{digits - 1}e}"
    exponent = int(f"{value:.{digits - 1}e}".partition("e")[2])  # after rounding: 0.9996 is 1.00
    decimals = max(0, digits - 1 - exponent)
    return f"{value:.{decimals}f}"


def size(count: int) -> str:
    """Bytes in decimal units: 982 B, 12.6 kB, 440 kB, 1.02 MB."""
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB"):
        if value < 999.5:
            break
        value, unit = value / 1000, larger
    return f"{count} B" if unit == "B" else f"{significant(value)} {unit}"


def count(number: int, noun: str, plural: str = "") -> str:
    """1 sample, 2 samples, 1,197 samples."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def size_change(before: int, after: int) -> str:
    """3.5x smaller, 1.2x larger, same size."""
    ratio = before / after if after else math.inf
    if f"{ratio:.2f}" == "1.00":
        return "same size"
    return f"{_times(ratio)} smaller" if ratio > 1 else f"{_times(1 / ratio)} larger"


def sizes_by_kind(before: FileSize, after: FileSize) -> list[tuple[str, int, int]]:
    """(kind, bytes before, bytes after), the largest first; what is under 1 % of both files is summed as "other"."""
    pairs = {k: (before.by_kind.get(k, 0), after.by_kind.get(k, 0)) for k in (*before.by_kind, *after.by_kind)}
    small = {k for k, (b, a) in pairs.items() if b < before.bytes / 100 and a < after.bytes / 100}
    rows = [(k, b, a) for k, (b, a) in pairs.items() if k not in small]
    rows.sort(key=lambda row: -max(row[1:]))
    rest = [pairs[k] for k in small]
    return [*rows, *([("other", sum(b for b, _ in rest), sum(a for _, a in rest))] if rest else [])]


def speed_change(ratio: float) -> str:
    """1.8x faster, 1.2x slower, same speed."""
    if abs(ratio - 1) < SAME_SPEED:
        return "same speed"
    return f"{_times(ratio)} faster" if ratio > 1 else f"{_times(1 / ratio)} slower"


def _times(ratio: float) -> str:
    return f"{ratio:.2f}x" if ratio < 1.095 else (f"{ratio:.1f}x" if ratio < 9.95 else f"{ratio:.0f}x")


def decibels(value: float | None) -> str:
    """38.2 dB; "exact" without any error, "nothing in common" at minus infinity, "not numeric" without a number."""
    if value is None:
        return "not numeric"
    if math.isinf(value) or math.isnan(value):
        return "exact" if value > 0 else "nothing in common"
    return f"{value:.1f} dB"


def percent(share: float) -> str:
    """99.8 % for 0.998; 100 % only for all, 0 % only for none."""
    value = 100 * share
    if value in (0.0, 100.0):
        return f"{value:.0f} %"
    return f"{min(max(value, 0.1), 99.9):.1f} %"


def metric_value(metric: MetricResult, value: float) -> str:
    """A metric's value with its unit."""
    return value_of(value, metric.unit)


def value_of(value: float, unit: str) -> str:
    """The value of a metric: 99.4 %, 26.44 dB, 0.8202."""
    if not math.isfinite(value):
        return "infinite"
    if unit == "%":
        return f"{value:.1f} %"
    return f"{value:.2f} {unit}" if unit else significant(value, 4)


def metric_change(metric: MetricResult) -> str:
    """0.2 points worse, 0.013 better, unchanged."""
    if metric.drop == 0:
        return "unchanged"
    direction = "worse" if metric.drop > 0 else "better"
    if not math.isfinite(metric.drop):
        return direction
    amount = abs(metric.drop)
    if metric.unit == "%":
        return f"{amount:.1f} points {direction}" if amount >= 0.05 else f"{amount:.2f} points {direction}"
    return f"{amount:.2f} {metric.unit} {direction}" if metric.unit else f"{significant(amount, 2)} {direction}"


def drop_interval(metric: MetricResult) -> str:
    """0.4 points better to 0.8 points worse; "" where there is none."""
    if metric.interval is None:
        return ""
    ends = (replace(metric, drop=end) for end in (metric.interval.low, metric.interval.high))
    return " to ".join(metric_change(end) for end in ends)


def milliseconds(value: float) -> str:
    """0.171 ms, 12.6 ms, 3.20 s."""
    return f"{significant(value)} ms" if value < 1000 else f"{significant(value / 1000)} s"


def spread(low: float, high: float) -> str:
    """0.301..0.351 in the unit that :func:`milliseconds` gives the higher; 1.49..1.60 s."""
    if high < 1000:
        return f"{significant(low)}..{significant(high)}"
    return f"{significant(low / 1000)}..{significant(high / 1000)} s"


def threads(number: int) -> str:
    """1 thread, 4 threads, default threads."""
    return count(number, "thread") if number else "default threads"


_SCHEMES = {
    "dynamic": "dynamic: int8 weights (a scale a channel), activations quantized as the model runs",
    "fp16": "fp16: float16 weights and arithmetic",
    "bf16": "bf16: bfloat16 weights, float32 arithmetic",
    "fp8": "fp8: E4M3 weights (a scale a channel), float arithmetic",
    "binary": "binary: signs of weights and a scale a channel, float arithmetic",
}
_CODEBOOKS = {"nf4": "4-bit NormalFloat weights", "fp4": "4-bit floating-point weights"}


def scheme(name: str, recipe: Mapping[str, object]) -> str:
    """w4: 4-bit weights (asymmetric), blocks of 32, nbits; what is mixed in behind it."""
    text = _SCHEMES.get(name, "")
    block = recipe.get("block")
    if name in _CODEBOOKS:
        blocks = "a scale a channel" if block == -1 else f"blocks of {block or 64}"
        text = f"{name}: {_CODEBOOKS[name]}, {blocks}, float arithmetic"
    elif name.startswith("palette:"):
        books = f"a codebook for each {block} output channels" if block else "a codebook for each"
        text = f"{name}: weights of {name.rpartition(':')[2]} values, {books}, float arithmetic"
    elif not text:
        blocks = "the usual blocks" if not block else "a scale a channel" if block == -1 else f"blocks of {block}"
        symmetry = "symmetric" if recipe.get("symmetric") else "asymmetric"
        text = f"{name}: {name.lstrip('w')}-bit weights ({symmetry}), {blocks}, float arithmetic"
    return f"{text}{mixed(recipe)}"


def mixed(recipe: Mapping[str, object]) -> str:
    """; Conv=int8, MatMul=w4: the schemes that are mixed in."""
    entries = recipe.get("mix")
    return f"; {', '.join(entries)}" if isinstance(entries, (list, tuple)) and entries else ""


def outcomes(recipe: Mapping[str, object], *, would: bool = False) -> tuple[str, str]:
    """What became of operations that the scheme took, and of the others: headings."""
    name = str(recipe.get("scheme", "int8"))
    if mixed(recipe):
        return ("Would be quantized", "Would stay float") if would else ("Quantized", "In float")
    if name.startswith("a16"):
        return "With 16-bit activations", "As they were"
    if name in ("int8", "dynamic"):
        return ("Would run on integers", "Would stay float") if would else ("On integers", "In float")
    if name in ("fp16", "bf16"):
        return "In half precision", "As they were"
    return "With weights of fewer bits", "As they were"


def file_name(path: str) -> str:
    """The last part of a path, whichever slash it is written with."""
    return path.replace("\\", "/").rsplit("/", 1)[-1]


def headline(report: Report) -> str:
    """The run in one line: model -> output: size, speed and what became of accuracy."""
    v = report.verification
    failed = "" if v.loads is not False and not v.checker and not v.interface else " - VERIFICATION FAILED"
    subject = f"{file_name(report.model.path)} -> {file_name(report.output.path)}"
    sizes = (report.model.bytes, report.output.bytes)
    if report.accuracy is None or report.latency is None:
        return f"{subject}: {size(sizes[0])} -> {size(sizes[1])} ({size_change(*sizes)}), not run{failed}"
    return f"{change(subject, sizes, report.latency.speedup.median, report.accuracy.comparison)}{failed}"


def change(subject: str, sizes: tuple[int, int], speed: float, comparison: Comparison) -> str:
    """Two models in one line: what became of size, speed and accuracy."""
    metric, fidelity = comparison.metric, comparison.fidelity
    if metric is not None:
        values = metric_value(metric, metric.reference), metric_value(metric, metric.quantized)
        accuracy = f"{metric.name} {values[0]} -> {values[1]}"
    elif fidelity.top1_agreement is not None:
        accuracy = f"same top-1 class for {percent(fidelity.top1_agreement)} of samples"
    else:
        accuracy = f"SQNR {decibels(fidelity.sqnr_db)}"
    before, after = sizes
    return (
        f"{subject}: {size(before)} -> {size(after)} ({size_change(before, after)}), {speed_change(speed)}, {accuracy}"
    )

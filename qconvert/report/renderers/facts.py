"""What a report says beside its numbers, as lines with a label: verification, calibration, warnings, time, versions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from qconvert.diagnose.optimization import OptimizationEffect
from qconvert.emit.integer_io import IntegerPort
from qconvert.evaluate.gates import Verdict, told
from qconvert.graph.census import Census
from qconvert.recipe.recipe import STATIC_SCHEMES
from qconvert.report.model import AccuracyReport, CalibrationReport, Report, TargetReport, Verification
from qconvert.report.renderers import phrases

_MAX_NAMES = 3
_MAX_STAGES = 3
GATE_LABELS = ("gate", "BROKEN")
"""How a gate that is kept, and one that is broken, is labelled."""


class Level(Enum):
    """How loudly a fact is said."""

    BAD = "bad"
    WARNING = "warning"
    GOOD = "good"
    PLAIN = "plain"
    QUIET = "quiet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One line: "calibration", "64 samples of calib.npz, ..."."""

    label: str
    text: str
    level: Level = Level.PLAIN


def facts(report: Report, *, everything: bool = False) -> list[Fact]:
    """All facts in the order in which people should read them.

    Args:
        report: the report.
        everything: name every node and every stage, however many.
    """
    calibration, accuracy = report.calibration, report.accuracy
    found = _verification(report.verification, everything, integer_io=bool(report.integer_ports))
    found += [
        Fact(label="scheme", text=scheme(report.recipe)),
        *_target(report.target),
        *(Fact(label=port.side, text=_port(port)) for port in report.integer_ports),
        _calibration(calibration),
        *_accuracy(accuracy),
    ]
    found += gate_facts(report.gates)
    found += [Fact(label="note", text=note) for note in report.notes]
    found += [Fact(label="warning", text=warning, level=Level.WARNING) for warning in report.warnings]
    digest = f", sha256 {report.output.sha256[:16]}" if report.output.sha256 else ""
    found.append(Fact(label="written", text=f"{report.output.path}{digest}"))
    found.append(Fact(label="time", text=_time(report.seconds, report.peak_mb, everything), level=Level.QUIET))
    v = report.versions
    found.append(
        Fact(
            label="versions",
            text=f"qconvert {v.qconvert}, ONNX Runtime {v.onnxruntime}, onnx {v.onnx}, numpy {v.numpy}, "
            f"Python {v.python}, {v.machine}, {phrases.count(v.cores, 'core')}",
            level=Level.QUIET,
        )
    )
    return found


def _calibration(calibration: CalibrationReport) -> Fact:
    skipped = calibration.skipped_values
    samples = f"{phrases.count(calibration.samples, 'sample')} of {calibration.source}, method {calibration.method}"
    if not calibration.samples:
        return Fact(label="calibration", text=f"none, method {calibration.method}")
    if not calibration.tensors:
        return Fact(label="calibration", text=samples)
    return Fact(
        label="calibration",
        text=f"{samples}{_picked(calibration)}, {phrases.count(calibration.tensors, 'tensor')} observed"
        + (f"; {phrases.count(skipped, 'value')} skipped (NaN, infinity, masks)" if skipped else ""),
    )


def _accuracy(accuracy: AccuracyReport | None) -> list[Fact]:
    if accuracy is None:
        return []
    return [
        Fact(
            label="accuracy",
            text=f"measured on {phrases.count(accuracy.samples, 'sample')} of {accuracy.source}, "
            + ("not used in calibration" if accuracy.held_out else "used in calibration too: expect less on others"),
            level=Level.PLAIN if accuracy.held_out else Level.WARNING,
        )
    ]


def gate_facts(verdicts: Sequence[Verdict]) -> list[Fact]:
    """A line for each gate: kept or broken."""
    kept, broken = GATE_LABELS
    return [
        Fact(
            label=broken if v.broken else kept,
            text=f"fail if {told(v)}",
            level=Level.BAD if v.broken else Level.GOOD,
        )
        for v in verdicts
    ]


def _picked(calibration: CalibrationReport) -> str:
    """(mse 20, minmax 8): what the scales come from, where not all are from one method."""
    if set(calibration.picked) <= {calibration.method}:
        return ""
    return f" ({', '.join(f'{method} {n}' for method, n in calibration.picked.items())})"


def scheme(recipe: Mapping[str, object]) -> str:
    """uint8 activations (asymmetric), int8 weights (a scale a channel), QDQ, for x86-vnni."""
    name = str(recipe.get("scheme", "int8"))
    if name not in STATIC_SCHEMES:
        return phrases.scheme(name, recipe)
    symmetry = "symmetric" if recipe.get("symmetric") else "asymmetric"
    channels = "a scale a channel" if recipe.get("per_channel") else "one scale each"
    return (
        f"{recipe.get('activations')} activations ({symmetry}), {recipe.get('weights')} weights ({channels}), "
        f"{recipe.get('format')}, for {recipe.get('target')}{phrases.mixed(recipe)}"
    )


def _target(target: TargetReport) -> list[Fact]:
    """What it was made for, and whether that is what it was timed on."""
    where = f"{target.title}, detected: {target.machine}" if target.detected else target.title
    found = [Fact(label="target", text=f"{target.name}: {where}")]
    if not target.here:
        text = f"latency is that of this machine, {target.machine}; nothing was timed on the target"
        found.append(Fact(label="latency", text=text, level=Level.WARNING))
    return found


def _port(port: IntegerPort) -> str:
    """image: int8, value = 0.0123 * (code + 3)."""
    offset = f"{'-' if port.zero_point >= 0 else '+'} {abs(port.zero_point)}"
    return f"{port.name}: {port.dtype}, value = {phrases.significant(port.scale, 6)} * (code {offset})"


def _verification(verification: Verification, everything: bool, *, integer_io: bool) -> list[Fact]:
    found: list[Fact] = []
    passed = []
    same = "same inputs and outputs, as integers" if integer_io else "same inputs and outputs"
    for what, complaint in (
        ("valid ONNX", f"ONNX's checker: {verification.checker}" if verification.checker else ""),
        (
            "loads in ONNX Runtime",
            "ONNX Runtime does not load the quantized model" if verification.loads is False else "",
        ),
        (same, "; ".join(verification.interface)),
    ):
        if what.startswith("loads") and verification.loads is None:
            continue
        if complaint:
            found.append(Fact(label="FAILED", text=complaint, level=Level.BAD))
        else:
            passed.append(what)
    if passed:
        found.append(Fact(label="verified", text=", ".join(passed), level=Level.GOOD))
    if verification.census is not None:
        found += _census(verification.census, everything)
    effect = verification.optimizations
    if effect is not None and not effect.outputs:
        found.append(Fact(label="unoptimized", text=_unoptimized(effect)))
    return found


def _unoptimized(effect: OptimizationEffect) -> str:
    """How far the outputs are from those without ONNX Runtime's optimizations, where rounding explains it."""
    on = f"with ONNX Runtime's optimizations off, on {phrases.count(effect.samples, 'sample')}: "
    if math.isinf(effect.sqnr_db):
        return f"{on}the same outputs, bit for bit"
    steps = f", at most {phrases.significant(effect.steps, 2)} quantization steps" if effect.steps is not None else ""
    return f"{on}the same outputs within rounding (SQNR {phrases.decibels(effect.sqnr_db)}{steps})"


def _census(census: Census, everything: bool) -> list[Fact]:
    left = census.quantize + census.dequantize
    kernels = phrases.count(census.integer_kernels, "integer kernel")
    text = f"{kernels} among the {census.nodes} nodes that ONNX Runtime runs"
    if left:
        pairs = ((census.quantize, "QuantizeLinear"), (census.dequantize, "DequantizeLinear"))
        counted = " and ".join(f"{n} {op}" for n, op in pairs if n)
        text += f"; {counted} where float meets integers: {_names(census.boundaries, everything)}"
    else:
        text += "; no QuantizeLinear or DequantizeLinear left"
    found = [Fact(label="kernels", text=text, level=Level.PLAIN if census.integer_kernels else Level.WARNING)]
    if census.unfused:
        n = phrases.count(len(census.unfused), "quantized operation")
        found.append(
            Fact(
                label="warning",
                text=f"{n} run in float all the same: {_names(census.unfused, everything)}",
                level=Level.WARNING,
            )
        )
    if census.weights_dequantized:
        n = phrases.count(census.weights_dequantized, "weight")
        found.append(Fact(label="note", text=f"{n} stored as integers, turned into float at every run"))
    return found


def _names(names: Sequence[str], everything: bool) -> str:
    shown = names if everything else names[:_MAX_NAMES]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _time(seconds: Mapping[str, float], peak_mb: float, everything: bool) -> str:
    slowest = sorted(seconds.items(), key=lambda item: -item[1])
    shown = slowest if everything else slowest[:_MAX_STAGES]
    stages = ", ".join(f"{stage} {value:.1f} s" for stage, value in shown)
    return f"{sum(seconds.values()):.1f} s ({stages}), {peak_mb:,.0f} MB of memory at most"

"""From the stages' results to a :class:`~qconvert.report.model.Report`."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from qconvert import __version__
from qconvert.diagnose.optimization import OptimizationEffect
from qconvert.emit.integer_io import IntegerPort
from qconvert.evaluate.compare import too_few
from qconvert.evaluate.footprint import peak_mb
from qconvert.graph.bodies import body_parameters
from qconvert.graph.build_view import view_of
from qconvert.graph.model import Model, load
from qconvert.graph.prepare.canonical import Prepared
from qconvert.graph.size import file_bytes, parameters, size_by_kind
from qconvert.machine import cores
from qconvert.plan.model import QuantPlan
from qconvert.recipe.recipe import Recipe
from qconvert.report.layers import node_decisions, tensor_reports
from qconvert.report.model import (
    AccuracyReport,
    CalibrationReport,
    FileSize,
    LatencyReport,
    PlacementReport,
    Report,
    TargetReport,
    Verification,
    Versions,
)
from qconvert.stats.statistic import StatsTable

# Below this the outputs no longer resemble the original's; most classifiers keep their answers above 15 dB.
LOW_SQNR_DB = 12.0
# A speed below this, relative to the original's, is called slower.
SLOWER = 0.97


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildInputs:
    """All that a report is made from; ``slow_kernels``: sentences on what a slower model loses time with."""

    source: Model
    output_path: Path
    prepared: Prepared
    plan: QuantPlan
    stats: StatsTable
    branches: Mapping[str, QuantPlan]
    recipe: Recipe
    target: TargetReport
    integer_ports: tuple[IntegerPort, ...]
    calibration: CalibrationReport
    accuracy: AccuracyReport | None
    latency: LatencyReport | None
    verification: Verification
    placement: PlacementReport | None
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    seconds: Mapping[str, float]
    slow_kernels: tuple[str, ...] = ()


def build_report(parts: BuildInputs) -> Report:
    """Put a report together; the output file must have been written."""
    source_path = parts.source.path or Path("model.onnx")
    written = load(parts.output_path)
    return Report(
        model=_size(parts.source, source_path),
        output=_size(written, parts.output_path, digest=True),
        recipe=asdict(parts.recipe),
        target=parts.target,
        integer_ports=parts.integer_ports,
        calibration=parts.calibration,
        accuracy=parts.accuracy,
        latency=parts.latency,
        verification=parts.verification,
        decisions=(
            *node_decisions(parts.plan, view_of(written)),
            *(d for place, plan in parts.branches.items() for d in node_decisions(plan, place=place)),
        ),
        tensors=(
            *tensor_reports(parts.plan, parts.stats),
            *(t for place, plan in parts.branches.items() for t in tensor_reports(plan, StatsTable(), place)),
        ),
        body_parameters=body_parameters(written),
        placement=parts.placement,
        seconds=dict(parts.seconds),
        peak_mb=peak_mb(),
        versions=_versions(),
        notes=parts.notes,
        warnings=(*parts.warnings, *_warnings(parts)),
    )


def _size(model: Model, path: Path, *, digest: bool = False) -> FileSize:
    total = file_bytes(path, model)
    return FileSize(
        path=str(path),
        bytes=total,
        by_kind=size_by_kind(model, total),
        parameters=parameters(model),
        sha256=hashlib.sha256(path.read_bytes()).hexdigest() if digest else "",
    )


def _warnings(parts: BuildInputs) -> list[str]:
    found: list[str] = []
    if parts.accuracy is None:
        found.append("the models were not run: neither accuracy nor speed is known")
    elif not parts.accuracy.held_out:
        found.append("too few calibration samples to hold any out: accuracy was measured on the samples calibrated on")
    metric = parts.accuracy.comparison.metric if parts.accuracy is not None else None
    if metric is not None and (few := too_few(metric)):
        found.append(few)
    fidelity = parts.accuracy.comparison.fidelity if parts.accuracy is not None else None
    if fidelity is not None and fidelity.sqnr_db < LOW_SQNR_DB:
        found.append(
            f"the outputs differ much from the original's (SQNR {fidelity.sqnr_db:.1f} dB): "
            "check the metric on labelled data"
        )
    if parts.target.here and parts.latency is not None and parts.latency.speedup.median < SLOWER:
        found.append(
            f"the quantized model is slower on this machine ({parts.latency.speedup.median:.2f} times the speed)"
        )
        found += parts.slow_kernels
    if parts.verification.checker:
        found.append(f"ONNX's checker complains: {parts.verification.checker}")
    found += [f"the interface changed: {difference}" for difference in parts.verification.interface]
    census = parts.verification.census
    if census is not None and census.unfused:
        names = ", ".join(census.unfused[:5])
        found.append(f"ONNX Runtime runs {len(census.unfused)} of the quantized operators in float: {names}")
    effect = parts.verification.optimizations
    if effect is not None and effect.outputs:
        found.append(_optimizations_change(effect))
    if parts.calibration.skipped_values:
        found.append(
            f"{parts.calibration.skipped_values} NaN, infinite or mask values were kept out of the calibrated ranges"
        )
    return found


def _optimizations_change(effect: OptimizationEffect) -> str:
    """A warning for outputs that ONNX Runtime's optimizations change by more than rounding explains."""
    where = f"; codes first differ behind {effect.begins_at}" if effect.begins_at else ""
    why = ", where kernels of this processor can saturate (--target x86-avx2 avoids it)" if effect.saturates else ""
    return (
        f"ONNX Runtime's optimizations change {', '.join(effect.outputs[:5])} by more than rounding does "
        f"(SQNR {effect.sqnr_db:.1f} dB between them on and off, {effect.error_db:.1f} dB off against FP32){where}{why}"
    )


def _versions() -> Versions:
    return Versions(
        qconvert=__version__,
        onnxruntime=version("onnxruntime"),
        onnx=version("onnx"),
        numpy=version("numpy"),
        python=platform.python_version(),
        machine=platform.machine(),
        cores=cores(),
    )

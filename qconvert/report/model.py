"""Report: everything a run decided and measured. Plain dataclasses; the JSON document is their image.

``SCHEMA_VERSION`` grows by one when a field changes its meaning or goes away; new fields do not change it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from qconvert.evaluate.compare import Comparison
from qconvert.evaluate.latency import Latency, Speedup
from qconvert.graph.census import Census
from qconvert.plan.model import NodeTimes

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Versions:
    """What the run was made with; same versions, same recipe and same data give the same bytes."""

    qconvert: str
    onnxruntime: str
    onnx: str
    numpy: str
    python: str
    machine: str
    cores: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSize:
    """Bytes of one model, in all and by kind of content."""

    path: str
    bytes: int
    by_kind: Mapping[str, int]
    parameters: int
    sha256: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationReport:
    """The calibration pass.

    Attributes:
        source: where the data came from.
        samples: how many samples were used.
        method: name of the method.
        tensors: how many tensors were observed.
        skipped_values: NaN, infinite and mask values that no range was made from.
        skipped_samples: bad samples that were passed over, a line each.
        picked: how many scales come from which method, where the method picks for each; "ranges" is the recovery pass.
    """

    source: str
    samples: int
    method: str
    tensors: int
    skipped_values: int = 0
    skipped_samples: tuple[str, ...] = ()
    picked: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccuracyReport:
    """FP32 against quantized.

    Attributes:
        source: the data.
        samples: how many samples.
        held_out: whether none of them was used in calibration.
        comparison: fidelity of every output, and the metric where there are labels.
    """

    source: str
    samples: int
    held_out: bool
    comparison: Comparison


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyReport:
    """Interleaved latency of both models on one sample."""

    threads: int
    fp32: Latency
    quantized: Latency
    speedup: Speedup


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementTrial:
    """One placement that was timed.

    Attributes:
        name: "static", "all" (that can), "cut 1" and so on (by measured costs), "float".
        integer_nodes: how many nodes run on integers.
        median_ms: of a run, one thread.
        speedup: against FP32, from paired runs.
    """

    name: str
    integer_nodes: int
    median_ms: float
    speedup: Speedup


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementReport:
    """How the placement was measured, before accuracy recovery.

    Attributes:
        chosen: the name of the trial that was kept.
        fp32_ms: median of a run of the FP32 model.
        trials: what was timed.
        pinned_float: nodes that stay float; with ``placement: pinned`` in a recipe the run is repeated without timing.
        seconds: what it took.
    """

    chosen: str
    fp32_ms: float
    trials: tuple[PlacementTrial, ...]
    pinned_float: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeDecision:
    """One node of the canonical graph: on integers or not, and why.

    Attributes:
        times: what it was measured to take; None where it was not.
    """

    node: str
    op_type: str
    quantized: bool
    reason: str
    times: NodeTimes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What was checked on the written model.

    Attributes:
        checker: "" when ONNX's checker accepts it, its complaint otherwise.
        loads: it loads and runs in ONNX Runtime.
        interface: differences of inputs and outputs to the original; empty when they are the same.
        census: what ONNX Runtime makes of it.
    """

    checker: str
    loads: bool
    interface: tuple[str, ...]
    census: Census | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One ``qconvert quantize`` run.

    Attributes:
        recipe: every choice, as in a recipe file.
        placement: how it was measured; None where it was not.
        notes: what was done or left undone, and why.
        warnings: what a person should look at.
        seconds: stage -> wall time.
        peak_mb: greatest memory of the process.
    """

    model: FileSize
    output: FileSize
    recipe: Mapping[str, object]
    calibration: CalibrationReport
    accuracy: AccuracyReport
    latency: LatencyReport
    verification: Verification
    decisions: tuple[NodeDecision, ...]
    body_parameters: int
    seconds: Mapping[str, float]
    peak_mb: float
    versions: Versions
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    placement: PlacementReport | None = None
    schema_version: int = field(default=SCHEMA_VERSION)

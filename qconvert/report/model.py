"""Report: everything a run decided and measured. Plain dataclasses; the JSON document is their image.

``SCHEMA_VERSION``, one for the documents of all commands, grows by one when a field changes its meaning or goes away;
new fields do not change it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

from qconvert.diagnose.optimization import OptimizationEffect
from qconvert.emit.integer_io import IntegerPort
from qconvert.errors import InternalError
from qconvert.evaluate.compare import Comparison
from qconvert.evaluate.gates import Verdict
from qconvert.evaluate.latency import Latency, Speedup
from qconvert.graph.census import Census

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
        name: "static", "all" (that can), "cut 1" and so on (by measured costs), "forms" (the best of these, with nodes
            in other forms), "float".
        integer_nodes: how many nodes run on integers.
        median_ms: of a run, one thread.
        speedup: against FP32, from paired runs.
    """

    name: str
    integer_nodes: int
    median_ms: float
    speedup: Speedup


@dataclass(frozen=True, slots=True, kw_only=True)
class FormReport:
    """Nodes that were measured to be faster in another form than between Q/DQ pairs.

    Attributes:
        nodes: which, in graph order.
        forms: "fused" (bias inside), "dynamic" (input quantized as the model runs), "bounded" (Softmax), one a node.
        plain_ms, form_ms: what they take together without and with these forms, with all that is fused with them and
            what quantizes their inputs.
    """

    nodes: tuple[str, ...]
    forms: tuple[str, ...]
    plain_ms: float
    form_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementReport:
    """How the placement was measured, before accuracy recovery.

    Attributes:
        chosen: the name of the trial that was kept.
        fp32_ms: median of a run of the FP32 model.
        trials: what was timed.
        pinned_float: nodes that stay float; with ``placement: pinned`` in a recipe the run is repeated without timing.
        pinned_forms: likewise ``forms`` of a recipe.
        forms: what was measured of the forms that were taken.
        seconds: what it took.
        excluded: nodes that went back to float for the accuracy of the outputs, weights included.
    """

    chosen: str
    fp32_ms: float
    trials: tuple[PlacementTrial, ...]
    pinned_float: tuple[str, ...]
    seconds: float
    pinned_forms: tuple[str, ...] = ()
    forms: tuple[FormReport, ...] = ()
    excluded: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetReport:
    """What the model was made for, and where it was measured.

    Attributes:
        name, title: the target, by its name and for people.
        detected: it was found out, not given.
        here: it is the machine that this ran on, so that latencies are those of the target.
        machine: the processor that this ran on.
    """

    name: str
    title: str
    detected: bool
    here: bool
    machine: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightReport:
    """A constant operand stored as integers.

    Attributes:
        tensor: its name.
        dtype: type of its codes ("int8").
        scales: how many scales it has; 0 where they could not be told from the written model.
        least_scale, greatest_scale: of these; null where there are none.
    """

    tensor: str
    dtype: str
    scales: int = 0
    least_scale: float | None = None
    greatest_scale: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeDecision:
    """One node of the canonical graph: on integers or not, and why.

    Attributes:
        reads, writes: the quantized tensors among its inputs and outputs.
        weight: its constant operand, where that is stored as integers.
        absorbed_into: for a Relu or Clip that disappears into its producer: that producer's name.
        form: how it is written, where that is not between Q/DQ pairs: "fused", "dynamic" or "bounded".
        sqnr_db: SQNR of the model's outputs with this node alone quantized, where that was measured.
        error_split: cause -> share of the squared error that this node alone makes, 0..1, where that was measured:
            weight rounding, weight clipping, activation rounding, activation clipping.
        float_ms, integer_ms: what the node takes in either form, where that was measured.
    """

    node: str
    op_type: str
    quantized: bool
    reason: str
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    weight: WeightReport | None = None
    absorbed_into: str | None = None
    form: str | None = None
    sqnr_db: float | None = None
    error_split: Mapping[str, float] = field(default_factory=dict)
    float_ms: float | None = None
    integer_ms: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorHistogram:
    """Counts of the elements of a tensor, as far as calibration looked at them.

    Attributes:
        start: lower edge of the first bin.
        width: of every bin, a power of two.
        counts: at most 128.
    """

    start: float
    width: float
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorReport:
    """A quantized activation: what it is stored as, and what calibration saw of it.

    Attributes:
        name: of the tensor in the canonical graph; in a branch with the branch in front.
        dtype: type of its codes ("uint8").
        scale, zero_point: real = scale * (code - zero_point).
        range: least and greatest value that a code can stand for.
        method: what the range comes from: a calibration method, or a recovery pass; "" where no data were needed.
        shared_with: another tensor that has the same scale because it must; null where it is alone or the first.
        observed: least and greatest value in calibration; null for a tensor that only passes values on.
        clipped: share of the elements seen that lie more than half a step outside the range, 0..1; null without a
            histogram.
        histogram: null where the method does without.
    """

    name: str
    dtype: str
    scale: float
    zero_point: int
    range: tuple[float, float]
    method: str = ""
    shared_with: str | None = None
    observed: tuple[float, float] | None = None
    clipped: float | None = None
    histogram: TensorHistogram | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What was checked on the written model.

    Attributes:
        checker: "" when ONNX's checker accepts it, its complaint otherwise.
        loads: it loads and runs in ONNX Runtime; None where that was not tried.
        interface: differences of inputs and outputs to the original; empty when they are the same.
        census: what ONNX Runtime makes of it; None where it is made for another runtime or kind of processor.
        optimizations: what its optimizations change in the outputs; None where that could not be found out.
    """

    checker: str
    loads: bool | None
    interface: tuple[str, ...]
    census: Census | None
    optimizations: OptimizationEffect | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontPoint:
    """One model of a search.

    Attributes:
        label: what makes it differ from the others ("3 layers float").
        speedup: how many times as fast as FP32.
        value: its accuracy, in the front's quantity.
        chosen: whether it is the one that was written.
    """

    label: str
    speedup: float
    value: float
    chosen: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """The models of a search.

    Attributes:
        quantity: what accuracy is measured in: a metric, or "SQNR".
        unit: of the values: "%", "dB" or "".
        higher_is_better: the direction of the values.
        points: the models, those on the front and others.
        reference: the value of FP32, where there is one.
    """

    quantity: str
    unit: str
    points: tuple[FrontPoint, ...]
    higher_is_better: bool = True
    reference: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One ``qconvert quantize`` run.

    Attributes:
        recipe: every choice, as in a recipe file.
        placement: how it was measured; null where it was not.
        target: what it was made for.
        integer_ports: inputs and outputs that are integers where the original has floats.
        accuracy, latency: None where the models were not run.
        decisions: every node of the canonical graph, in graph order, those of quantized branches last.
        notes: what was done or left undone, and why.
        warnings: what a person should look at.
        seconds: stage -> wall time.
        peak_mb: greatest memory of the process.
        gates: what became of each --fail-if.
        tensors: every quantized activation, in graph order.
        front: speed against accuracy of the models that a search has tried; null where there was none.
    """

    model: FileSize
    output: FileSize
    recipe: Mapping[str, object]
    target: TargetReport
    calibration: CalibrationReport
    accuracy: AccuracyReport | None
    latency: LatencyReport | None
    verification: Verification
    decisions: tuple[NodeDecision, ...]
    body_parameters: int
    seconds: Mapping[str, float]
    peak_mb: float
    versions: Versions
    integer_ports: tuple[IntegerPort, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    gates: tuple[Verdict, ...] = ()
    tensors: tuple[TensorReport, ...] = ()
    placement: PlacementReport | None = None
    front: Front | None = None

    @property
    def measured(self) -> tuple[AccuracyReport, LatencyReport]:
        """Accuracy and latency of models that were run.

        Raises:
            InternalError: they were not.
        """
        if self.accuracy is None or self.latency is None:
            raise InternalError("the models of this report were not run")
        return self.accuracy, self.latency

    def _repr_html_(self) -> str:
        """What a notebook shows: a few tiles, light or dark as the notebook is."""
        from qconvert.report.html.page import render_inline

        return render_inline(self)

    def save(self, path: str | PathLike[str], *, force: bool = False) -> None:
        """Write the report to ``path``; its suffix decides the form: .html, .json, .md, .xml or .txt.

        Raises:
            RecipeError: no form has this suffix.
            OutputError: it cannot be written there, or exists and ``force`` is False.
        """
        from qconvert.report.output import check_output, write_text
        from qconvert.report.renderer import renderer_for

        place = Path(path)
        renderer = renderer_for(place)
        check_output(place, force=force)
        write_text(place, renderer.render(self))

"""Results of fixed values: of quantize a classifier where all went well and a detector where much did not, and one of
every other command."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from qconvert.diagnose.optimization import OptimizationEffect
from qconvert.emit.integer_io import IntegerPort
from qconvert.evaluate.benchmark import Benchmark, FedInput, ModelTiming
from qconvert.evaluate.compare import Comparison, MetricResult, SampleError
from qconvert.evaluate.comparison import ComparedModel, ModelComparison
from qconvert.evaluate.evaluation import Evaluation, MetricValue, OutputSummary, ScoredSample
from qconvert.evaluate.fidelity import FidelityReport, OutputFidelity
from qconvert.evaluate.footprint import Footprint
from qconvert.evaluate.gates import Verdict
from qconvert.evaluate.interval import Interval
from qconvert.evaluate.latency import Latency, Speedup
from qconvert.evaluate.tensors import TensorComparison, TensorFidelity
from qconvert.graph.census import Census
from qconvert.recipe.recipe import Recipe
from qconvert.recipe.recipe_file import recipe_to_dict
from qconvert.recipe.resolve import resolve
from qconvert.report.model import (
    AccuracyReport,
    CalibrationReport,
    FileSize,
    LatencyReport,
    NodeDecision,
    Report,
    TargetReport,
    Verification,
    Versions,
)

VERSIONS = Versions(
    qconvert="0.1.0",
    onnxruntime="1.31.1",
    onnx="1.23.2",
    numpy="2.4.6",
    python="3.11.7",
    machine="x86_64",
    cores=8,
)


def output(name: str, sqnr: float | None, **changes: object) -> OutputFidelity:
    values: dict[str, object] = {
        "name": name,
        "numeric": sqnr is not None,
        "sqnr_db": sqnr,
        "cosine": None if sqnr is None else 0.99987,
        "max_abs_error": 0.0814,
        "reference_range": (-12.125, 14.9375),
        "equal": False,
        "elements": 5000,
        "mismatched_nonfinite": 0,
        "shape_mismatches": 0,
        "top1_agreement": None,
    }
    return OutputFidelity(**{**values, **changes})  # type: ignore[arg-type]


def decisions(*groups: tuple[int, str, bool, str]) -> tuple[NodeDecision, ...]:
    """``count`` nodes for each (count, op_type, quantized, reason)."""
    rows = [(f"{op}_{g}_{i}", op, yes, why) for g, (n, op, yes, why) in enumerate(groups) for i in range(n)]
    return tuple(NodeDecision(node=n, op_type=op, quantized=yes, reason=why) for n, op, yes, why in rows)


def latency(median: float, p10: float, p90: float) -> Latency:
    return Latency(median_ms=median, p10_ms=p10, p90_ms=p90, runs=300, times_ms=(p10, median, p90))


@pytest.fixture
def classifier() -> Report:
    fidelity = FidelityReport(
        outputs=(output("logits", 38.21, top1_agreement=0.998),),
        sqnr_db=38.21,
        worst_sqnr_db=38.21,
        cosine=0.99987,
        max_abs_error=0.0814,
        top1_agreement=0.998,
        samples=500,
        worst_output="logits",
    )
    metric = MetricResult(name="top1", reference=99.4, quantized=99.2, drop=0.2, unit="%", samples=500)
    return Report(
        model=FileSize(
            path="models/digits.onnx",
            bytes=420_100,
            by_kind={"float32 constants": 409_000, "graph": 11_100},
            parameters=102_250,
        ),
        output=FileSize(
            path="out/digits.int8.onnx",
            bytes=120_400,
            by_kind={
                "int8 constants": 101_000,
                "graph": 14_100,
                "int32 constants": 2_800,
                "float32 constants": 2_470,
                "uint8 constants": 14,
                "int64 constants": 16,
            },
            parameters=617,
            sha256="3fa04c1d" * 8,
        ),
        recipe=recipe_to_dict(resolve(Recipe(target="x86-vnni"))),
        target=TargetReport(
            name="x86-vnni", title="ONNX Runtime on x86 with VNNI", detected=True, here=True, machine="AMD EPYC 7763"
        ),
        calibration=CalibrationReport(source="data/calib.npz", samples=100, method="mse", tensors=13),
        accuracy=AccuracyReport(
            source="data/eval.npz",
            samples=500,
            held_out=True,
            comparison=Comparison(fidelity=fidelity, metric=metric),
        ),
        latency=LatencyReport(
            threads=0,
            fp32=latency(0.31234, 0.3015, 0.3511),
            quantized=latency(0.17111, 0.1654, 0.1939),
            speedup=Speedup(median=1.824, p10=1.61, p90=2.02),
        ),
        verification=Verification(
            checker="",
            loads=True,
            interface=(),
            census=Census(
                nodes=17,
                integer_kernels=13,
                quantize=1,
                dequantize=0,
                weights_dequantized=0,
                unfused=(),
                boundaries=("image_QuantizeLinear",),
                ops={"QLinearConv": 9, "QuantizeLinear": 1},
            ),
            optimizations=OptimizationEffect(samples=2, sqnr_db=61.7, error_db=38.2, steps=1.0),
        ),
        decisions=decisions(
            (9, "Conv", True, "integer kernel"),
            (1, "Gemm", True, "integer kernel"),
            (2, "Add", True, "joins integer operators"),
            (4, "Relu", True, "absorbed into the range of Conv_1"),
            (1, "Relu", True, "absorbed into the range of Add_0"),
            (1, "Softmax", False, "QLinearSoftmax takes 4 times as long as the float kernel and rounds to 1/256"),
        ),
        body_parameters=0,
        seconds={"load": 0.02, "prepare": 0.11, "calibrate": 0.64, "accuracy": 0.61, "latency": 0.24},
        peak_mb=159.4,
        versions=VERSIONS,
    )


@pytest.fixture
def detector() -> Report:
    scales = tuple(output(f"scale_{i}", 20.0 + i) for i in range(8))
    worst = output(
        "a/very/long/path/of/an/exported/module/boxes",
        9.43,
        max_abs_error=1234567.0,
        reference_range=(-0.00012, 3.1e7),
        mismatched_nonfinite=3,
    )
    outputs = (*scales, worst, output("kept", math.inf, equal=True, max_abs_error=0.0), output("labels", None))
    return Report(
        model=FileSize(
            path="detector.onnx",
            bytes=3_200_000_000,
            by_kind={"float32 constants": 3_199_000_000},
            parameters=8 * 10**8,
        ),
        output=FileSize(path="detector.int8.onnx", bytes=3_300_000_000, by_kind={"graph": 5}, parameters=1),
        recipe=recipe_to_dict(resolve(Recipe(target="arm64", per_channel=False, symmetric=True))),
        target=TargetReport(
            name="arm64", title="ONNX Runtime on 64-bit ARM", detected=False, here=False, machine="AMD EPYC 7763"
        ),
        integer_ports=(IntegerPort(side="input", name="image", dtype="int8", scale=0.0123, zero_point=-3),),
        calibration=CalibrationReport(source="calib", samples=1, method="minmax", tensors=1, skipped_values=1234),
        accuracy=AccuracyReport(
            source="calib",
            samples=1,
            held_out=False,
            comparison=Comparison(
                fidelity=FidelityReport(
                    outputs=outputs,
                    sqnr_db=14.02,
                    worst_sqnr_db=9.43,
                    cosine=0.81234,
                    max_abs_error=1234567.0,
                    top1_agreement=None,
                    samples=1,
                    worst_output=worst.name,
                ),
                metric=None,
            ),
        ),
        latency=LatencyReport(
            threads=4,
            fp32=latency(1503.0, 1490.0, 1600.0),
            quantized=latency(2004.0, 1900.0, 2100.0),
            speedup=Speedup(median=0.75, p10=0.7, p90=0.8),
        ),
        verification=Verification(
            checker="Nodes in a graph must be topologically sorted",
            loads=True,
            interface=("output boxes has shape [1, 4], in the original [1, 8]",),
            census=Census(
                nodes=240,
                integer_kernels=30,
                quantize=5,
                dequantize=4,
                weights_dequantized=2,
                unfused=("Conv_1", "Conv_2", "Conv_3", "Conv_4"),
                boundaries=tuple(f"boundary_{i}" for i in range(9)),
                ops={"Conv": 4},
            ),
            optimizations=OptimizationEffect(
                samples=2, sqnr_db=9.1, error_db=18.4, steps=None, outputs=("boxes",), begins_at="Conv_7 (Conv)"
            ),
        ),
        decisions=decisions(
            (26, "Conv", True, "integer kernel"),
            (2, "Conv", False, "its weight is computed, not constant"),
            (1, "Loop", False, "control flow; weights in its body are decided on their own"),
            (40, "Add", False, "its neighbours are float"),
            (9, "Shape", False, "no quantization rule for this operator"),
            (30, "Gather", False, "it computes no float32 values"),
        ),
        body_parameters=120_000,
        seconds={"calibrate": 61.2},
        peak_mb=12_345.6,
        versions=VERSIONS,
        notes=("opset raised from 9 to 13",),
        warnings=(
            "the quantized model is slower on this machine (0.75 times the speed)",
            "14 MatMulBnb4 take 8.31 ms, as float ones 3.02 ms (up, down, head and 11 more): it decodes its weight at "
            "each run; --weight-format qdq has the same bytes at float speed",
        ),
    )


KEPT = Verdict(gate="top1_drop > 0.5%", quantity="top1_drop", model="", value=0.2, unit="%", broken=False)
BROKEN = Verdict(gate="speedup < 2", quantity="speedup", model="", value=1.824, unit="x", broken=True)
UNKNOWN = Verdict(gate="agreement < 99%", quantity="agreement", model="", value=None, unit="share", broken=True)


def tensor(name: str, sqnr: float | None, **changes: object) -> TensorFidelity:
    values: dict[str, object] = {
        "name": name,
        "other": f"{name}_DequantizeLinear_Output",
        "op_type": "Conv",
        "sqnr_db": sqnr,
        "cosine": None if sqnr is None else 0.99,
        "max_abs_error": 0.125,
        "reference_range": (0.0, 6.0),
        "elements": 4096,
        "shape_mismatches": 0,
        "rescaled": False,
        "fitted_sqnr_db": sqnr,
    }
    return TensorFidelity(**{**values, **changes})  # type: ignore[arg-type]


@pytest.fixture
def comparison(classifier: Report) -> ModelComparison:
    """A classifier against its quantized form: one gate kept, one broken, and names that Markdown could take amiss."""
    found = classifier.accuracy.comparison
    assert found.metric is not None
    metric = replace(found.metric, interval=Interval(low=-0.25, high=0.65))
    worst = (
        SampleError(number=287, sqnr_db=11.9, drop=100.0, name="eval.npz[287]"),
        SampleError(number=3, sqnr_db=-math.inf, drop=0.0, name="dir/<b>|*_x_*|.npy"),
    )
    tensors = TensorComparison(
        tensors=(
            tensor("conv1", 34.5),
            tensor("relu|1<script>", 15.8, rescaled=True, fitted_sqnr_db=33.0),
            tensor("pool", None, shape_mismatches=32),
            tensor("logits", math.inf),
        ),
        unmatched=("bn1",),
        samples=32,
    )
    return ModelComparison(
        reference=ComparedModel(
            path="models/digits.onnx", bytes=420_100, quantized_ops=(), latency=classifier.latency.fp32
        ),
        other=ComparedModel(
            path="out/digits.int8.onnx",
            bytes=120_400,
            quantized_ops=("DequantizeLinear", "QuantizeLinear"),
            latency=classifier.latency.quantized,
        ),
        source="data/eval.npz",
        samples=500,
        skipped_samples=("eval.npz[7] has 3 NaN",),
        comparison=replace(found, metric=metric, worst_samples=worst),
        tensors=tensors,
        speedup=classifier.latency.speedup,
        threads=0,
        seconds=2.25,
        notes=("a note",),
        warnings=("look at this",),
        gates=(KEPT, BROKEN, UNKNOWN),
    )


@pytest.fixture
def evaluation(classifier: Report) -> Evaluation:
    """A classifier of which one sample is missed; no gates."""
    return Evaluation(
        path="models/digits.onnx",
        bytes=420_100,
        quantized_ops=(),
        source="data/eval.npz",
        samples=500,
        skipped_samples=(),
        metric=MetricValue(
            name="top1",
            value=99.4,
            unit="%",
            samples=500,
            higher_is_better=True,
            interval=Interval(low=98.3, high=99.8),
        ),
        worst_samples=(ScoredSample(number=287, name="eval.npz[287]", score=0.0),),
        outputs=(
            OutputSummary(name="logits", dtype="float32", shape=(1, 10), range=(-12.5, 14.0), mean=0.25, nonfinite=0),
            OutputSummary(name="label", dtype="str", shape=(1,), range=None, mean=None, nonfinite=0),
        ),
        latency=classifier.latency.fp32,
        threads=1,
        seconds=0.75,
    )


@pytest.fixture
def timings(classifier: Report) -> Benchmark:
    """Two models side by side; a gate for each figure that a third model would break too."""

    def timing(name: str, size: int, took: Latency, ratio: Speedup) -> ModelTiming:
        return ModelTiming(
            name=name,
            path=f"models/{name}",
            bytes=size,
            latency=took,
            p95_ms=took.p90_ms * 1.1,
            spread=0.05,
            samples_per_second=1e3 / took.median_ms,
            footprint=Footprint(load_ms=12.3, peak_mb=70.25, model_mb=10.0),
            ratio=ratio,
        )

    times = classifier.latency
    return Benchmark(
        models=(
            timing("fp32.onnx", 420_100, times.fp32, Speedup(median=1.0, p10=1.0, p90=1.0)),
            timing("int8.onnx", 120_400, times.quantized, times.speedup),
        ),
        rounds=300,
        threads=0,
        samples=1,
        data="",
        feeds=1,
        inputs=(FedInput(name="image", dtype="float32", shape=(1, 3, 8, 8)),),
        assumed={},
        gates=(replace(BROKEN, model="int8.onnx"),),
    )

"""OpenVINO's CPU and GPU plugins, by themselves or as ONNX Runtime's OpenVINO provider.

OpenVINO turns pairs of quantize and dequantize into integer arithmetic by its low precision transformations: an
operator runs on integers if its inputs come out of such pairs, and dequantization is moved behind it until something
needs float [1]. Activations are unsigned or signed bytes, weights signed bytes [2]. Its own tool makes symmetric
activations by default and asymmetric ones for nets that are not all Relu [3]; asymmetric unsigned ones are right for
both, because zero points of activations are taken into the accumulator. Biases stay float: they are added behind the
product [1].

Checked with OpenVINO 2026.4.1 on a CPU, by the precisions in its runtime model: all convolutions, transposed ones and
products of small residual, depthwise, dense and U-shaped nets run on unsigned bytes [4]. Results of convolutions are
quantized, too: with pairs at inputs only, pooling stays float, and a dense net has 22 reorders in float, not 3 [4].
Nothing was timed: costs are those of ONNX Runtime on x86, in proportion.
"""

from __future__ import annotations

from qconvert.targets.target import Capability, Target, register
from qconvert.targets.x86_vnni import X86_VNNI

_FROM_PAIRS = "on integers if its inputs are behind pairs [1]"


def _of(op: str, *, float_result: bool = False) -> Capability:
    return X86_VNNI.capability(op).behind_pairs(_FROM_PAIRS, float_result=float_result)


_NO_TRANSFORMATION = "no low precision transformation: it runs in float [1]"

OPENVINO = register(
    Target(
        name="openvino",
        title="OpenVINO",
        purpose="Intel CPUs and GPUs through OpenVINO or ONNX Runtime's provider of it",
        types=(("uint8", "int8"), ("int8", "int8")),
        symmetric_activations=False,
        per_channel=True,
        formats=("qdq",),
        quantize_ns=X86_VNNI.quantize_ns,
        dequantize_ns=X86_VNNI.dequantize_ns,
        boundary="a pass over the tensor, fused into the producer where that is a convolution or product [1]; not "
        "measured",
        float_bias=True,
        products=X86_VNNI.products,
        capabilities={
            **{op: _of(op, float_result=True) for op in ("Gemm", "MatMul")},
            **{
                op: _of(op)
                for op in "Conv ConvTranspose Add Mul Relu Clip PRelu Concat AveragePool GlobalAveragePool MaxPool "
                "ReduceMean ReduceMax ReduceMin Reshape Flatten Squeeze Unsqueeze Slice Split Transpose DepthToSpace "
                "Pad Resize".split()
            },
            "Gather": Capability(
                integer=True, reason="the rows of a constant table are stored as integers and unpacked in float"
            ),
        },
        others=_NO_TRANSFORMATION,
        sources=(
            "docs.openvino.ai, OpenVINO Low Precision Transformations: the operations that have one, and how "
            "dequantization is propagated",
            "docs.openvino.ai, Low Precision IR (INT8 Inference), and Low Precision Transformations: precisions of "
            "activations and weights",
            "docs.openvino.ai, Basic Quantization Flow: presets performance (symmetric) and mixed (symmetric weights, "
            "asymmetric activations)",
            "measured: OpenVINO 2026.4.1, CPU plugin, runtimePrecision of each layer of the compiled model",
        ),
    )
)

"""Qualcomm's neural processors (Hexagon, HTP) through ONNX Runtime's QNN provider.

The provider turns an operator between DequantizeLinear and QuantizeLinear into one of QNN's with quantized tensors; a
float operator falls back to the CPU, and cuts the graph there [1]. By default arithmetic stays float where rounding
costs accuracy, as for other targets: with 8 bits a mask of -10000 that is added in attention leaves 3 dB of a small
encoder. ``--placement all`` puts everything that has an integer form on integers. Activations have 8 or 16 bits,
unsigned, one scale a tensor; weights 8 or 4, signed, a scale for each output channel of a convolution [2, 3]. Pairs
of 16 bits are those of ONNX from opset 21 on, which the provider reads as it does those of com.microsoft [3].

Nothing was run or timed on such a processor: costs are those of ONNX Runtime on x86, in proportion.
"""

from __future__ import annotations

from qconvert.targets.target import Capability, Target, register
from qconvert.targets.x86_vnni import X86_VNNI

_NODE_UNIT = "an operator of QNN's if its inputs and outputs are behind pairs [1]"


def _of(op: str) -> Capability:
    return X86_VNNI.capability(op).behind_pairs(_NODE_UNIT)


QNN = register(
    Target(
        name="qnn",
        title="Qualcomm QNN",
        purpose="Snapdragon neural processors through ONNX Runtime's QNN provider",
        types=(("uint8", "int8"), ("uint16", "int8"), ("uint16", "int4"), ("uint8", "uint8")),
        symmetric_activations=False,
        per_channel=True,
        formats=("qdq",),
        quantize_ns=X86_VNNI.quantize_ns,
        dequantize_ns=X86_VNNI.dequantize_ns,
        boundary="a float operator runs on another processor [1]; not measured",
        products=X86_VNNI.products,
        capabilities={
            op: _of(op)
            for op in "Conv ConvTranspose Gemm MatMul Add Sub Mul Div Relu Clip LeakyRelu PRelu Sigmoid Tanh HardSwish "
            "Softmax Concat AveragePool GlobalAveragePool MaxPool ReduceMean ReduceMax ReduceMin Reshape Flatten "
            "Squeeze Unsqueeze Slice Split Transpose DepthToSpace SpaceToDepth Expand Tile Pad Resize Where".split()
        }
        | {
            "Gather": Capability(
                integer=True, reason="the rows of a constant table are stored as integers and unpacked in float"
            )
        },
        others="qconvert has no integer form of it: it falls back to the CPU [1]",
        sources=(
            "onnxruntime.ai, QNN Execution Provider: supported operators, quantized models for the HTP backend",
            "onnxruntime.ai, QNN Execution Provider, Generating a quantized model: unsigned activations of 8 or 16 "
            "bits; microsoft/onnxruntime, pull request 21171: int4 weights, per tensor and per channel",
            "microsoft/onnxruntime, pull request 17015: 16-bit QuantizeLinear and DequantizeLinear in the QNN and the "
            "CPU provider; fusions of most 16-bit groups are off on the CPU",
        ),
    )
)

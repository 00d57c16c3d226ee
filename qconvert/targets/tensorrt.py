"""NVIDIA TensorRT, by itself or as ONNX Runtime's TensorRT provider: explicit quantization.

TensorRT's integers are symmetric: signed 8 bits, zero point 0, activations per tensor, weights per channel [1]. It
reads QuantizeLinear and DequantizeLinear, not QLinearConv and the like [2]. Where to put pairs [3]:

- at all inputs of convolutions, transposed convolutions and matrix products;
- not at their outputs: what follows (Relu, SiLU) is fused into them and wants the exact sum;
- at the residual operand of an addition behind them, so that the addition is fused, too;
- not around what commutes with quantization (MaxPool, Reshape, Transpose): TensorRT moves pairs across these itself;
- sparingly elsewhere: a pair that is not fused costs time.

Biases stay float [4]: the sum is scaled back to float before the bias is added.
"""

from __future__ import annotations

from qconvert.targets.target import Capability, Target, register

# the result is float: the next operator's own pair, not this one's, makes it integers
_WEIGHTED = Capability(
    integer=True, reason="all its inputs are quantized, its result is not [3]", float_result=True, float_ns=10.0
)
_MOVES = Capability(integer=False, reason="TensorRT moves Q/DQ across it by itself [3]")
_FUSED = Capability(integer=False, reason="TensorRT fuses it into the operator before, where it wants float [3]")
_LONE = "a pair around it would be fused with nothing [3]"

TENSORRT = register(
    Target(
        name="tensorrt",
        title="TensorRT",
        purpose="NVIDIA GPUs with integer Tensor Cores (Turing and later), TensorRT or ONNX Runtime's provider of it",
        types=(("int8", "int8"),),
        symmetric_activations=True,
        only_symmetric=True,
        per_channel=True,
        formats=("qdq",),
        quantize_ns=0.19,
        dequantize_ns=0.22,
        boundary="a kernel of its own and a pass over memory where the pair is not fused [3]; not measured",
        float_bias=True,
        residuals=True,
        products=Capability(
            integer=False,
            reason="a product of two activations stays float: its operands have no per-channel scales, and attention "
            "probabilities lose most in 8 bits",
        ),
        capabilities={
            **dict.fromkeys(("Conv", "ConvTranspose", "Gemm", "MatMul"), _WEIGHTED),
            "Add": Capability(
                integer=False, reason="only the residual operand behind a weighted operator is quantized [3]"
            ),
            **dict.fromkeys(("Relu", "Clip", "LeakyRelu", "PRelu", "Sigmoid", "HardSwish", "HardSigmoid"), _FUSED),
            **dict.fromkeys(
                "MaxPool Reshape Transpose Flatten Squeeze Unsqueeze Slice Split Expand Tile DepthToSpace SpaceToDepth "
                "Pad Resize Gather Concat ReduceMax ReduceMin".split(),
                _MOVES,
            ),
        },
        others=_LONE,
        sources=(
            "docs.nvidia.com, TensorRT, Working with Quantized Types: symmetric; x_q = round(clip(x / s, -128, 127))",
            "docs.nvidia.com, TensorRT, Explicit Quantization, ONNX support: QLinearConv, QLinearMatMul, ConvInteger "
            "and MatMulInteger are not supported; scales a channel from opset 13 on",
            "docs.nvidia.com, TensorRT, Explicit Quantization, Q/DQ layer-placement recommendations and propagation",
            "microsoft/onnxruntime, onnxruntime/python/tools/quantization/qdq_quantizer.py, comments on "
            "OpTypesToExcludeOutputQuantization and QuantizeBias: what TensorRT wants",
        ),
    )
)

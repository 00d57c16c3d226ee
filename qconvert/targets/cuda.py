"""ONNX Runtime's CUDA provider.

It has kernels for QuantizeLinear and DequantizeLinear, but none for QLinearConv, QLinearAdd and the other operators
that fused pairs become [1, 2]: a model quantized for the CPU is copied to the CPU and back at every one of them and
is slower than FP32 [1]. So nothing runs on integers here: weights are stored as integers, unpacked at each run and
computed with in float, which makes the file a quarter of the size and nothing faster. Integer arithmetic on NVIDIA's
GPUs goes through TensorRT [3].
"""

from __future__ import annotations

from qconvert.targets.target import Capability, Target, register

_STORED = Capability(
    integer=False,
    reason="no integer kernel on the GPU: its weight is stored as integers, it computes in float [1]",
    weights_only=True,
)
_FLOAT = "no integer kernel on the GPU, and a Q/DQ pair around it would only round [1]"

CUDA = register(
    Target(
        name="cuda",
        title="ONNX Runtime's CUDA provider",
        purpose="NVIDIA GPUs without TensorRT: a smaller file, not a faster model",
        types=(("int8", "int8"),),
        symmetric_activations=True,
        per_channel=True,
        formats=("qdq",),
        quantize_ns=0.19,
        dequantize_ns=0.22,
        boundary="none is made between operators; a weight is unpacked once a run",
        products=Capability(integer=False, reason=_FLOAT),
        capabilities={
            **dict.fromkeys(("Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN"), _STORED),
            # picked rows alone are unpacked
            "Gather": Capability(integer=True, reason="the rows of a constant table are stored as integers"),
        },
        others=_FLOAT,
        sources=(
            "microsoft/onnxruntime, issues 12229 and 24807: no CUDA kernel for QLinearConv and QLinearAdd; T4 and V100 "
            "slower than FP32",
            "microsoft/onnxruntime-inference-examples, issue 166: QuantizeLinear and DequantizeLinear run on CUDA",
            "onnxruntime.ai, Quantize ONNX models, Quantization on GPU: through the TensorRT provider; S8S8 only",
        ),
    )
)

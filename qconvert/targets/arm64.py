"""ONNX Runtime's CPU provider on 64-bit ARM.

The operators are those of the CPU provider on x86, so which of them have an integer kernel is taken over from there;
the scheme is not: MLAS has products of signed by signed bytes here, with and without dot-product instructions [1, 2],
and fuses S8S8 [3]. No sum saturates [4]. KleidiAI adds kernels of its own for dynamic quantization and, on SME2, for
float [5]; static U8S8 and S8S8 run on MLAS's own kernels.

Nothing was timed on such a processor: costs are those of x86, and where a reason gives a figure it says so.
"""

from __future__ import annotations

from dataclasses import replace

from qconvert.machine import ARM
from qconvert.targets.target import Capability, register
from qconvert.targets.x86_vnni import X86_VNNI


def _elsewhere(capability: Capability) -> Capability:
    """``capability`` with its reason marked as measured on x86."""
    reason = f"{capability.reason} (measured on x86)" if "times as long" in capability.reason else capability.reason
    return replace(capability, reason=reason)


ARM64 = register(
    replace(
        X86_VNNI,
        name="arm64",
        title="ONNX Runtime on 64-bit ARM",
        purpose="phones, Apple silicon, Graviton and other ARM servers",
        types=(("int8", "int8"), ("uint8", "int8"), ("uint8", "uint8")),
        host=ARM,
        boundary="taken over from x86; not measured",
        # the costs by shape are those of x86 kernels
        convolutions=None,
        capabilities={op: _elsewhere(c) for op, c in X86_VNNI.capabilities.items()},
        sources=(
            "microsoft/onnxruntime, onnxruntime/core/mlas/lib/qgemm.h, MlasGemmQuantGetDispatch: on ARM64 signed "
            "weights take MlasGemmS8S8DispatchSdot or MlasGemmX8S8DispatchNeon; signed activations with unsigned "
            "weights take none",
            "microsoft/onnxruntime, pull request 9902: S8S8 for QLinearConv and QLinearMatMul on ARM",
            "microsoft/onnxruntime, pull request 9961: S8S8 fusion of Q/DQ on ARM, MatMulIntegerToFloat included",
            "onnxruntime.ai, Quantize ONNX models, Data type selection: S8S8 is the first choice; no saturation on ARM",
            "microsoft/onnxruntime, pull request 25187: KleidiAI in MLAS (SGEMM, IGEMM, dynamic quantized MatMul)",
        ),
    )
)

"""onnxruntime-web: ONNX Runtime's CPU provider compiled to WebAssembly.

It is the CPU provider with all its operators [1]. Its vector kernels for products of bytes take unsigned activations
only [2]: S8S8 falls back to a scalar loop, so U8S8. They widen to 16 bits before multiplying [3], so nothing
saturates, and gain less over float than instructions that multiply bytes do. The relaxed-SIMD build uses a dot
product of bytes whose result engines may round in different ways for weights beyond 7 bits [4]; it has to be asked
for.

WebGPU has no integer kernels: of quantized graphs it runs what is float [5].

Checked with onnxruntime-web 1.30.0 in Node.js 20, one thread: a small residual net gives the same outputs as natively,
in 0.105 ms as U8S8 and 0.128 ms as S8S8; FP32 takes 0.082 ms, so a net that small gains nothing [6]. Costs are those of
x86, and where a reason gives a figure it says so.
"""

from __future__ import annotations

from dataclasses import replace

from qconvert.targets.arm64 import ARM64
from qconvert.targets.target import register

WEB = register(
    replace(
        ARM64,
        name="web",
        title="onnxruntime-web (WebAssembly)",
        purpose="browsers and Node.js, the WebAssembly provider",
        types=(("uint8", "int8"), ("uint8", "uint8"), ("int8", "int8")),
        host="",
        sources=(
            "npmjs.com, onnxruntime-web: the native CPU engine compiled with Emscripten, quantization included",
            "microsoft/onnxruntime, onnxruntime/core/mlas/lib/qgemm.h, MlasGemmQuantGetDispatch: "
            "MlasGemmU8X8DispatchWasmSimd where activations are unsigned, the scalar default otherwise",
            "microsoft/onnxruntime, pull request 9191: QGEMM for WebAssembly SIMD, with i32x4.dot_i16x8_s",
            "microsoft/onnxruntime, pull request 22794: relaxed SIMD, a build of its own, env.wasm.relaxedSimd",
            "microsoft/onnxruntime, js/web/docs/webgpu-operators.md: no QLinear operator among them",
            "measured: onnxruntime-web 1.30.0, Node.js 20, AMD EPYC, one thread, medians of 60 interleaved runs",
        ),
    )
)

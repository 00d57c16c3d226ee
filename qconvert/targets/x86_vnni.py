"""ONNX Runtime's CPU provider on x86 with VNNI (AVX512-VNNI or AVX-VNNI).

Measured with ONNX Runtime 1.31.1 on an AMD EPYC with AVX512-VNNI, one thread, medians of 30 or more runs on a [1, 64,
56, 56] tensor (200,704 elements): for each operator a DQ -> operator -> Q graph was loaded with all optimizations, and
the optimized graph read. U8 activations with S8 weights are the fast scheme: the same 3x3 convolution takes 0.54 ms as
U8S8, 1.57 ms as U8U8 and 7.2 ms as S8S8.
"""

from __future__ import annotations

from qconvert.forms import ACTIVATION, BOUNDED, CHANNELS_LAST, DYNAMIC, FOLDED, FUSED, ONE_SCALE, WIDENED
from qconvert.machine import X86
from qconvert.targets.target import WIDE_TYPES, Capability, ConvolutionCosts, KernelCosts, Target, register


def _kernel(float_ns: float, integer_ns: float, note: str = "") -> Capability:
    return Capability(integer=True, reason=note, float_ns=float_ns, integer_ns=integer_ns)


def _float(reason: str, float_ns: float = 0.3) -> Capability:
    return Capability(integer=False, reason=reason, float_ns=float_ns)


_UNPACKED = "computes in float, whatever is around it; its weights are integers that are unpacked when it is loaded"
_NO_KERNEL = "ONNX Runtime's CPU provider has no integer kernel for it"
_SUM = "an integer sum that saturates where it clamps"
_MOVE = _kernel(0.15, 0.06)

# Fitted to 764 convolutions of random shape on an AMD EPYC with AVX512-VNNI, ONNX Runtime 1.32, one thread; off by 21
# and 16 % in float, 7, 15, 4, 4 and 19 % on integers (root mean square of the relative error).
_CONVOLUTIONS = ConvolutionCosts(
    lane=16,
    dense_float=KernelCosts(call_ns=2100.0, product_ps=7.4, gathered_ns=0.08, written_ns=0.025),
    depthwise_float=KernelCosts(call_ns=2200.0, product_ps=9.4, written_ns=0.065),
    direct=KernelCosts(call_ns=3000.0, pixel_ns=0.5, tap_ns=0.51, gathered_ns=0.013, written_ns=0.023, product_ps=1.72),
    gathered=KernelCosts(
        call_ns=3300.0, pixel_ns=3.4, tap_ns=0.59, gathered_ns=0.047, written_ns=0.184, product_ps=1.35
    ),
    depthwise=(
        (16, KernelCosts(call_ns=3200.0, pixel_ns=2.8, tap_ns=0.42, product_ps=13.7)),
        (8, KernelCosts(call_ns=2900.0, pixel_ns=4.3, tap_ns=0.65, product_ps=52.0)),
        (1, KernelCosts(call_ns=3100.0, pixel_ns=3.0, tap_ns=1.7, product_ps=96.0)),
    ),
    direct_in=4,
    direct_out=16,
    folds=(2, 4, 8, 16),
    # fitted to 260 dense convolutions, as shares of what they take in float; off by 22 %
    unfolded=KernelCosts(call_ns=3300.0, tap_ns=0.61, gathered_ns=0.098, written_ns=0.157, product_ps=2.19),
)

X86_VNNI = register(
    Target(
        name="x86-vnni",
        title="ONNX Runtime on x86 with VNNI",
        purpose="servers and PCs with AVX512-VNNI or AVX-VNNI (Intel since 2019, AMD since 2022)",
        types=(("uint8", "int8"), ("uint8", "uint8"), ("int8", "int8"), ("int8", "uint8")),
        emulates=WIDE_TYPES,
        symmetric_activations=False,
        per_channel=True,
        formats=("qdq", "qoperator"),
        host=X86,
        # one Q costs 27 us and one DQ 25 us on 200,704 elements; the layout changes around a float island 11 and 19 us
        quantize_ns=0.19,
        dequantize_ns=0.22,
        boundary="as much as a float elementwise operator on the tensor [1]",
        products=Capability(
            integer=False,
            reason="a product of two activations stays float: its operands have no per-channel scales, and attention "
            "probabilities lose most in 8 bits",
            float_result=True,
        ),
        sources=(
            "measured: ONNX Runtime 1.31.1, AMD EPYC with AVX512-VNNI, one thread, [1, 64, 56, 56]; the same 3x3 "
            "convolution takes 0.54 ms as U8S8, 1.57 ms as U8U8, 7.2 ms as S8S8",
            "onnxruntime.ai, Quantize ONNX models, Data type selection: U8S8 saturates on AVX2 and AVX512 without VNNI",
        ),
        # fitted to 64 shapes (1 to 128 channels, kernels 1 to 7, 28 to 112 pixels square), kernel times of ONNX
        # Runtime's profiler; e.g. 3 to 8 channels, 3x3, stride 2, 112 pixels: 61 us in float and 169 us on integers
        convolutions=_CONVOLUTIONS,
        capabilities={
            "Conv": Capability(integer=True, forms=(DYNAMIC, FOLDED, WIDENED), float_ns=10.0, integer_ns=2.7),
            # unpacking its weights takes 0.125 ns an element, computing with each of them many times that
            "ConvTranspose": Capability(
                integer=False, reason=_NO_KERNEL, weights_only=True, rewritten=True, float_ns=10.0
            ),
            "LSTM": Capability(integer=False, reason=_UNPACKED, weights_only=True, forms=(DYNAMIC,), float_ns=1000.0),
            "GRU": Capability(integer=False, reason=_UNPACKED, weights_only=True, float_ns=1000.0),
            "RNN": Capability(integer=False, reason=_UNPACKED, weights_only=True, float_ns=1000.0),
            "Gemm": Capability(
                integer=True, float_result=True, forms=(DYNAMIC, ONE_SCALE), float_ns=30.0, integer_ns=8.0
            ),
            "MatMul": Capability(
                integer=True,
                float_result=True,
                rewritten=True,
                forms=(FUSED, DYNAMIC),
                float_ns=7.0,
                integer_ns=1.9,
            ),
            "Gather": Capability(integer=True, on_codes=True, float_ns=0.15, integer_ns=0.06),
            "Add": _kernel(0.16, 0.15),
            "Mul": _kernel(0.16, 0.23),
            "Concat": _kernel(0.23, 0.06),
            "Max": Capability(integer=True, on_codes=True, float_ns=0.6, integer_ns=0.06),
            "Relu": _kernel(0.11, 0.0),
            "Clip": _kernel(0.11, 0.0),
            "LeakyRelu": _kernel(0.17, 0.25),
            "Sigmoid": Capability(integer=True, forms=(ACTIVATION,), float_ns=0.30, integer_ns=0.26),
            "GlobalAveragePool": _kernel(0.18, 0.05),
            "AveragePool": Capability(
                integer=True,
                reason="QLinearAveragePool takes 12 times as long as the float kernel",
                as_filter=True,
                float_ns=0.80,
                integer_ns=0.60,
            ),
            # channels first it takes 0.9 to 7 ns an element of the input, for kernels of 2 to 5 pixels square
            "MaxPool": Capability(integer=True, forms=(CHANNELS_LAST,), float_ns=0.80, integer_ns=0.30),
            "Transpose": _MOVE,
            "Reshape": _MOVE,
            "Flatten": _MOVE,
            "Squeeze": _MOVE,
            "Unsqueeze": _MOVE,
            "Expand": _MOVE,
            "Tile": _MOVE,
            "Slice": _MOVE,
            "Split": _MOVE,
            "DepthToSpace": _MOVE,
            "Resize": _kernel(0.08, 0.035),
            "ReduceMax": Capability(integer=True, on_codes=True, float_ns=0.15, integer_ns=0.06),
            "ReduceMin": Capability(integer=True, on_codes=True, float_ns=0.15, integer_ns=0.06),
            "Pad": Capability(integer=True, on_codes=True, float_ns=0.15, integer_ns=0.06),
            "SpaceToDepth": Capability(integer=True, on_codes=True, float_ns=0.15, integer_ns=0.06),
            "Erf": Capability(integer=False, reason=_NO_KERNEL, forms=(ACTIVATION,), float_ns=0.3),
            "Sub": _float(_NO_KERNEL),
            "Div": _float(_NO_KERNEL),
            "PRelu": Capability(integer=False, reason=_NO_KERNEL, rewritten=True, float_ns=4.3),
            "HardSigmoid": Capability(integer=True, reason=_SUM, saturating_sum=True, float_ns=0.13, integer_ns=0.08),
            "HardSwish": Capability(
                integer=True, reason=f"{_SUM}, times its input", saturating_sum=True, float_ns=0.25, integer_ns=0.27
            ),
            "Tanh": Capability(integer=False, reason=_NO_KERNEL, forms=(ACTIVATION,)),
            "ReduceMean": _float(_NO_KERNEL),
            "Where": _float("QLinearWhere takes 20 times as long as the float kernel"),
            "Softmax": Capability(
                integer=False,
                reason="QLinearSoftmax takes 4 times as long as the float kernel and rounds to 1/256",
                forms=(BOUNDED,),
                float_ns=0.3,
            ),
        },
    )
)

"""Microcontrollers with integer arithmetic alone, by the rules of TensorFlow Lite Micro and CMSIS-NN.

The rules are those of the TensorFlow Lite 8-bit quantization specification [1]: activations signed 8 bits,
asymmetric, per tensor; weights signed 8 bits, symmetric, per channel; biases 32 bits with scale s_x * s_w. Sigmoid
and Softmax write (1/256, -128), Tanh (1/128, 0); pooling, Concat and what moves values have one scale for all they
read and write.

There is no float arithmetic: every operator runs on integers, and so do the model's inputs and outputs. A model with
an operator that has no integer form is refused, with the list. An operator between DequantizeLinear and
QuantizeLinear means its integer form; those that read and write such a graph leave no float behind.
"""

from __future__ import annotations

from qconvert.targets.target import Capability, Target, register

_WEIGHTED = Capability(integer=True, reason="int8 by int8 into 32 bits, with a 32-bit bias [1]", float_ns=10.0)
_OWN = Capability(integer=True, reason="rescales between the scales of what it reads and writes [1]")
_ONE = Capability(integer=True, reason="one scale for all it reads and writes [1]", one_scale=True)
_CLAMP = Capability(integer=True, reason="a clamp of codes, in the operator before where that can take it over")
_UNIT = Capability(
    integer=True, reason="writes 0..1 with scale 1/256, zero point -128 [1]", output_range=(0.0, 255.0 / 256.0)
)

TINYML = register(
    Target(
        name="tinyml",
        title="integer-only microcontrollers",
        purpose="microcontrollers: integers only, int8 in and out, as TensorFlow Lite Micro and CMSIS-NN want it",
        types=(("int8", "int8"),),
        symmetric_activations=False,
        per_channel=True,
        formats=("qdq",),
        quantize_ns=0.19,
        dequantize_ns=0.22,
        boundary="there is none: nothing is float",
        integer_only=True,
        products=Capability(integer=True, reason="BATCH_MATMUL of two int8 activations [2]"),
        capabilities={
            **dict.fromkeys(("Conv", "ConvTranspose", "Gemm", "MatMul"), _WEIGHTED),
            **dict.fromkeys("Add Sub Mul PRelu LeakyRelu HardSwish ReduceMean GlobalAveragePool".split(), _OWN),
            **dict.fromkeys(
                "AveragePool MaxPool Concat Reshape Flatten Squeeze Unsqueeze Transpose Slice Split Pad Resize Expand "
                "DepthToSpace SpaceToDepth ReduceMax".split(),
                _ONE,
            ),
            "Gather": Capability(
                integer=True, reason="picks codes: a constant table has one scale [1]", one_scale=True, on_codes=True
            ),
            **dict.fromkeys(("Relu", "Clip"), _CLAMP),
            **dict.fromkeys(("Sigmoid", "Softmax"), _UNIT),
            "Tanh": Capability(
                integer=True,
                reason="writes -1..1 with scale 1/128, zero point 0 [1]",
                output_range=(-1.0, 127.0 / 128.0),
            ),
        },
        others="it has no int8 form there [1, 2]",
        sources=(
            "tensorflow.org, TensorFlow Lite 8-bit quantization specification: types, ranges and restrictions of each "
            "operator",
            "tensorflow/tflite-micro, tensorflow/lite/micro/micro_mutable_op_resolver.h and kernels/: the operators "
            "that there are, batch_matmul.cc among them",
        ),
    )
)

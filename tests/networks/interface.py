"""Unusual inputs, outputs, names and weights around a small ordinary net."""

from __future__ import annotations

import numpy as np
import onnx
from networks.builder import BOOL, FLOAT, INT64, Builder, Network, network
from onnx import TensorProto, helper, numpy_helper


@network
def string_output() -> Network:
    b = Builder(seed=60)
    logits = b.head(b.relu(b.conv(b.input("x", [1, 3, 8, 8]), 3, 8)), 8)
    labels = b.const(np.asarray([f"class {i}" for i in range(10)], object))
    b.output(
        b.node("Gather", labels, b.node("ArgMax", logits, axis=1, keepdims=0), out="label"), [1], TensorProto.STRING
    )
    b.output(logits, [1, 10])
    return Network(proto=b.model(), feeds=b.feeds(), quantized=("Conv",))


@network
def sequence_output() -> Network:
    b = Builder(seed=61)
    x = b.conv(b.input("x", [1, 3, 8, 8]), 3, 8)
    b.node("SequenceConstruct", x, b.head(x, 8), out="pair")
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(FLOAT, None))
    b.outputs.append(helper.make_value_info("pair", kind))
    b.output("logits", [1, 10])
    return Network(proto=b.model(), feeds=b.feeds(), quantized=("Conv",))


@network
def optional_output() -> Network:
    b = Builder(seed=62)
    x = b.head(b.conv(b.input("x", [1, 3, 8, 8]), 3, 8), 8)
    b.node("Optional", x, out="maybe")
    kind = helper.make_optional_type_proto(helper.make_tensor_type_proto(FLOAT, [1, 10]))
    b.outputs.append(helper.make_value_info("maybe", kind))
    b.output("logits", [1, 10])
    return Network(proto=b.model(), feeds=b.feeds(), quantized=("Conv",))


@network
def many_input_types() -> Network:
    """Scalars and bool, int64, int32, uint8, float16, double inputs."""
    b = Builder(seed=63)
    x = b.input("x", [1, 3, 8, 8])
    gain = b.input("gain", [])
    extra = [
        b.node("Cast", b.input(n, s, t), to=FLOAT)
        for n, s, t in (
            ("flag", [], BOOL),
            ("index", [1], INT64),
            ("count", [1], TensorProto.INT32),
            ("image", [1, 3, 8, 8], TensorProto.UINT8),
            ("half", [1, 3, 8, 8], TensorProto.FLOAT16),
            ("precise", [1, 3, 8, 8], TensorProto.DOUBLE),
        )
    ]
    x = b.node("Mul", x, gain)
    for e in extra:
        x = b.node("Add", x, e)
    b.output(b.head(b.relu(b.conv(x, 3, 8)), 8), [1, 10])
    return Network(proto=b.model(), feeds=b.feeds(), quantized=("Conv",))


@network
def input_is_output() -> Network:
    b = Builder(seed=64)
    x = b.input("x", [1, 3, 8, 8])
    b.output(b.head(b.conv(x, 3, 8), 8), [1, 10])
    b.output("x", [1, 3, 8, 8])
    return Network(proto=b.model(), feeds=b.feeds(), quantized=("Conv",))


@network
def weight_is_output() -> Network:
    """A weight that is an output, and a constant that only is one."""
    b = Builder(seed=65)
    x = b.input("x", [2, 16])
    w = b.weight(16, 8, name="exposed.weight")
    b.output(b.node("MatMul", x, w, out="y"), [2, 8])
    b.output(w, [16, 8])
    b.output(b.const(np.arange(3, dtype=np.float32), "version"), [3])
    return Network(proto=b.model(), feeds=b.feeds(), quantized=("MatMul",), float_copies=(w,))


@network
def constant_is_output() -> Network:
    b = Builder(seed=66)
    b.output(b.matmul(b.input("x", [2, 16]), 16, 8, out="y"), [2, 8])
    b.output(b.node("Constant", value=numpy_helper.from_array(np.arange(3, dtype=np.float32)), out="steps"), [3])
    b.output(b.node("Identity", b.const(np.ones(2, np.float32)), out="ones"), [2])
    return Network(proto=b.model(), feeds=b.feeds(), quantized=("Gemm", "MatMul"))


@network
def activations_are_outputs() -> Network:
    """Every kind of inner value is an output too: before and after a Relu, a movement, an Add."""
    b = Builder(seed=67)
    x = b.conv(b.input("x", [1, 3, 8, 8]), 3, 8, out="conv")
    y = b.node("Relu", x, out="relu")
    z = b.node("Add", b.conv(y, 8, 8), y, out="sum")
    t = b.node("Reshape", z, b.ints(1, 8, 64), out="flat")
    t = b.node("Reshape", t, b.ints(1, 8, 8, 8), out="square")
    b.output(b.head(b.conv(t, 8, 8), 8), [1, 10])
    for name, shape in (
        ("conv", [1, 8, 8, 8]),
        ("relu", [1, 8, 8, 8]),
        ("sum", [1, 8, 8, 8]),
        ("flat", [1, 8, 64]),
        ("square", [1, 8, 8, 8]),
    ):
        b.output(name, shape)
    return Network(proto=b.model(), feeds=b.feeds(), quantized=("Conv",))


@network
def embedding_is_output() -> Network:
    b = Builder(seed=68)
    rows = b.node("Gather", b.weight(50, 16, fan_in=4), b.input("ids", [1, 6], INT64), out="rows")
    b.output(b.matmul(rows, 16, 8, out="y"), [1, 6, 8])
    b.output(rows, [1, 6, 16])
    return Network(proto=b.model(), feeds=b.feeds(), quantized=("MatMul", "Gather"))


@network
def dead_parts() -> Network:
    """Nodes, inputs and initializers that nothing reads."""
    b = Builder(seed=69)
    x = b.input("x", [1, 3, 8, 8])
    b.input("unused", [1, 4])
    b.const(np.zeros((64, 64), np.float32), "unused.weight")
    b.conv(x, 3, 8)
    b.output(b.head(b.conv(x, 3, 8), 8), [1, 10])
    return Network(proto=b.model(), feeds=b.feeds(), quantized=("Conv",))


@network
def empty_weights() -> Network:
    """Operands with a dimension of 0: an empty Concat part, an empty matrix product."""
    b = Builder(seed=70)
    x = b.input("x", [2, 16])
    nothing = b.const(np.zeros((2, 0), np.float32))
    none = b.node("MatMul", x, b.const(np.zeros((16, 0), np.float32)))
    zero = b.node("MatMul", none, b.const(np.zeros((0, 8), np.float32)))
    y = b.node("Add", b.matmul(x, 16, 8), zero)
    b.output(b.node("Concat", y, nothing, none, axis=1, out="y"), [2, 8])
    b.output(b.node("Gather", b.const(np.zeros((4, 0), np.float32)), b.ints(1, 2), out="rows"), [2, 0])
    return Network(proto=b.model(), feeds=b.feeds(), quantized=("Gemm", "MatMul"))


@network
def zero_weights() -> Network:
    """Convolutions that are all zero, with and without bias, as pruning leaves them."""
    b = Builder(seed=71)
    x = b.input("x", [1, 3, 8, 8])
    zero = b.const(np.zeros((8, 3, 3, 3), np.float32))
    y = b.node("Conv", x, zero, b.vector(8), pads=[1] * 4)
    z = b.node("Conv", x, b.const(np.zeros((8, 3, 1, 1), np.float32)))
    b.output(b.head(b.node("Add", b.node("Add", y, z), b.conv(x, 3, 8)), 8), [1, 10])
    return Network(proto=b.model(), feeds=b.feeds(), quantized=("Conv",))


@network
def dynamic_everything() -> Network:
    b = Builder(seed=72)
    x = b.input("x", ["n", 3, "h", "w"])
    b.output(b.head(b.relu(b.conv(b.relu(b.conv(x, 3, 8)), 8, 8)), 8), ["n", 10])
    rng = np.random.default_rng(0)
    feeds = [{"x": rng.standard_normal((1 + i % 3, 3, 8 + i, 9)).astype(np.float32)} for i in range(4)]
    return Network(proto=b.model(), feeds=feeds, quantized=("Conv",))


@network
def unknown_rank() -> Network:
    b = Builder(seed=73)
    x = b.input("x", None)
    y = b.relu(b.conv(x, 3, 8))
    b.output(b.head(y, 8), None)
    rng = np.random.default_rng(0)
    feeds = [{"x": rng.standard_normal((1, 3, 8, 8)).astype(np.float32)} for _ in range(4)]
    return Network(proto=b.model(), feeds=feeds, quantized=("Conv",))


@network
def fixed_batch() -> Network:
    b = Builder(seed=74)
    b.output(b.head(b.relu(b.conv(b.input("x", [4, 3, 8, 8]), 3, 8)), 8), [4, 10])
    return Network(proto=b.model(), feeds=b.feeds(), quantized=("Conv",))


@network
def colliding_names() -> Network:
    """Names that a quantizer is tempted to give are taken, by inputs, weights, values, outputs and nodes."""
    b = Builder(seed=75)
    b.input("x", [1, 3, 8, 8])
    b.input("conv_b_q", [1, 3, 8, 8])
    w = b.weight(8, 3, 3, 3, name="conv_w")
    b.vector(8, name="conv_w_scale"), b.vector(8, name="conv_w_zero_point"), b.vector(8, name="conv_w_q")
    y = "x"
    for i, suffix in enumerate(
        ("q", "dq", "Q", "DQ", "scale", "zero_point", "quantized", "dequantized", "QuantizeLinear", "DequantizeLinear")
    ):
        other = "conv_b_q" if i % 2 else "x"
        y = b.node("Add", y, other, out=f"x_{suffix}", name=f"x_{suffix}")
    b.node("Conv", "x", w, "conv_w_q", out="x_float", name="conv", pads=[1] * 4)
    b.node("Conv", y, w, "conv_w_scale", out="conv_w_dq", name="conv_w_DQ", pads=[1] * 4)
    b.node("Conv", "conv_b_q", w, out="conv_w_1", name="conv_b_DQ", pads=[1] * 4)
    z = b.node("Relu", "x_float", out="x_float_q", name="x_float_Q")
    z = b.node("Add", b.node("Add", z, "conv_w_dq", name="conv_0_DQ"), "conv_w_1", out="conv_dq", name="conv_DQ")
    z = b.node(
        "Conv",
        z,
        b.weight(8, 8, 3, 3, name="conv_q"),
        "conv_w_zero_point",
        out="conv_float",
        name="conv_Q",
        pads=[1] * 4,
    )
    b.output(b.head(z, 8, out="conv_float_q"), [1, 10])
    b.output("x_float_q", [1, 8, 8, 8])
    return Network(proto=b.model(), feeds=b.feeds(), quantized=("Conv",))


@network
def colliding_rewrites() -> Network:
    """The same for the names that canonical rewriting gives: BatchNormalization, Gemm, MatMul + Add, table look-up."""
    b = Builder(seed=76)
    ids = b.input("ids", [1, 6], INT64)
    table = b.weight(50, 16, fan_in=4, name="table")
    b.const(np.ones((2,), np.float32), "table_row_scale"), b.const(np.ones((2,), np.float32), "table_quantized")
    b.node("Gather", table, ids, out="rows", name="rows_Mul")
    b.node("Identity", "table_row_scale", out="rows_codes", name="rows_Cast")
    b.node("Identity", "table_quantized", out="rows_cast", name="rows_scale_Gather")
    b.node("Add", "rows_cast", "rows_codes", out="rows_row_scale", name="rows_DequantizeLinear")
    b.output("rows_row_scale", [2])
    flat = b.node("Reshape", "rows", b.ints(1, -1))
    b.node(
        "Gemm",
        flat,
        b.weight(96, 8, name="gemm_weight"),
        b.const(np.ones((1, 8), np.float32), "gemm_bias"),
        out="gemm_weight_1",
        name="gemm",
        alpha=0.5,
        beta=2.0,
    )
    square = b.node("Reshape", "gemm_weight_1", b.ints(1, 2, 2, 2))
    b.batchnorm(b.relu(square), 2, out="bn_weight")
    b.nodes[-1].name = "bn"
    b.conv(b.relu("bn_weight"), 2, 4, out="bn_bias")
    b.output(b.head("bn_bias", 4, out="y"), [1, 10])
    return Network(proto=b.model(), feeds=b.feeds(), quantized=("Conv", "Gather", "Gemm"))


@network
def odd_names() -> Network:
    """Slashes, spaces, colons, unicode, very long names; nodes without a name and two with the same."""
    b = Builder(seed=77)
    x = b.input("entrée d'image/0:0", [1, 3, 8, 8])
    long = "layer/" * 100 + "out"
    b.node(
        "Conv", x, b.weight(8, 3, 3, 3, name="模型/权重 1"), b.vector(8, name=" "), out=long, name="same", pads=[1] * 4
    )
    b.node("Relu", long, out="a b\tc", name="")
    b.node("Conv", "a b\tc", b.weight(8, 8, 3, 3, name="w" * 3000), out="Ω", name="", pads=[1] * 4)
    b.output(b.head("Ω", 8, out="ausgabe/ø"), [1, 10])
    return Network(proto=b.model(), feeds=b.feeds(), quantized=("Conv",))


@network
def old_ir() -> Network:
    """IR 3: every initializer is an input too."""
    b = Builder(seed=78, opset=8)
    x = b.relu(b.batchnorm(b.conv(b.input("data", [1, 3, 8, 8]), 3, 8, bias=False), 8))
    b.output(b.head(b.conv(x, 8, 8), 8), [1, 10])
    feeds = b.feeds()
    for t in b.initializers:
        b.inputs.append(helper.make_tensor_value_info(t.name, t.data_type, t.dims))
    return Network(proto=b.model(ir=3), feeds=feeds, quantized=("Conv",))


@network
def half_precision() -> Network:
    """A net that computes in float16."""
    b = Builder(seed=82)
    x = b.conv(b.input("x", [1, 3, 8, 8], TensorProto.FLOAT16), 3, 8)
    b.output(b.head(b.relu(x), 8), [1, 10], TensorProto.FLOAT16)
    for t in b.initializers:
        if t.data_type == FLOAT:
            t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(t).astype(np.float16), t.name))
    return Network(proto=b.model(), feeds=b.feeds(), quantized=("Conv",))


@network
def double_precision() -> Network:
    b = Builder(seed=83)
    y = b.node(
        "MatMul", b.input("x", [2, 8], TensorProto.DOUBLE), b.const(np.random.default_rng(0).standard_normal((8, 4)))
    )
    b.output(b.node("Relu", y, out="y"), [2, 4], TensorProto.DOUBLE)
    return Network(proto=b.model(), feeds=b.feeds(), quantized=())


@network
def nothing_to_quantize() -> Network:
    b = Builder(seed=84)
    x = b.input("x", [2, 8])
    b.output(b.node("Sin", x, out="y"), [2, 8])
    return Network(proto=b.model(), feeds=b.feeds(), quantized=())


@network
def extreme_values() -> Network:
    """A dead channel, a bias far beyond the data, weights of very different channels, an infinite mask."""
    b = Builder(seed=85)
    x = b.input("x", [1, 4, 8, 8])
    spread = b.rng.standard_normal((8, 4, 3, 3)) * np.logspace(-4, 1, 8).reshape(8, 1, 1, 1)
    x = b.node(
        "Conv",
        x,
        b.const(spread.astype(np.float32)),
        b.const(np.asarray([1e3, 0, 0, 0, 0, 0, 0, 1e-6], np.float32)),
        pads=[1] * 4,
    )
    x = b.conv(b.node("Tanh", x), 8, 8)
    b.output(
        b.node("Add", b.head(x, 8, out="raw"), b.const(np.asarray([0.0] * 9 + [-3e38], np.float32)), out="masked"),
        [1, 10],
    )
    return Network(proto=b.model(), feeds=b.feeds(), least_db=None, quantized=("Conv",))


@network
def random_numbers() -> Network:
    """Different on every run: cannot be compared, must not fail."""
    b = Builder(seed=86)
    x = b.input("x", [1, 3, 8, 8])
    noise = b.node("RandomNormalLike", x, scale=0.5)
    b.output(b.head(b.conv(b.node("Add", x, noise), 3, 8), 8), [1, 10])
    return Network(proto=b.model(), feeds=b.feeds(), least_db=None, quantized=("Conv",))


@network
def output_twice() -> Network:
    b = Builder(seed=87)
    y = b.head(b.conv(b.input("x", [1, 3, 8, 8]), 3, 8), 8)
    b.output(y, [1, 10]), b.output(y, [1, 10])
    return Network(proto=b.model(), feeds=b.feeds(), quantized=("Conv",))


def plain_conv_net(opset: int) -> onnx.ModelProto:
    """Conv - BatchNormalization - Relu6 - Pad - MaxPool - Reshape - Gemm - Softmax, written as ``opset`` writes it."""
    b = Builder(seed=88, opset=opset)
    x = b.relu6(b.batchnorm(b.conv(b.input("x", [1, 3, 8, 8]), 3, 8, bias=False), 8))
    ring = [0, 0, 1, 1, 0, 0, 1, 1]
    x = b.node("Pad", x, b.ints(*ring)) if opset >= 11 else b.node("Pad", x, pads=ring)
    x = b.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = b.relu(b.conv(x, 8, 8))
    x = (
        b.node("ReduceMean", x, b.ints(2, 3), keepdims=0)
        if opset >= 18
        else b.node("ReduceMean", x, axes=[2, 3], keepdims=0)
    )
    x = b.gemm(b.node("Reshape", x, b.ints(1, 8)), 8, 10)
    b.output(b.node("Softmax", x, axis=1, out="p"), [1, 10])
    return b.model(ir=3 if opset < 9 else 8)

"""Less usual pieces that models from real exporters have: one net for each."""

from __future__ import annotations

import numpy as np
from networks.builder import BOOL, FLOAT, INT64, Builder, Network, network
from onnx import TensorProto, helper, numpy_helper


@network
def identity_paths() -> Network:
    """An input that reaches outputs through Identity, an output copied to another, Dropout before an output."""
    b = Builder(seed=100)
    x = b.input("x", [1, 3, 8, 8])
    y = b.head(b.node("Identity", b.conv(x, 3, 8)), 8)
    b.output(y, [1, 10]), b.output(b.node("Identity", y, out="copy"), [1, 10])
    b.output(b.node("Identity", x, out="echo"), [1, 3, 8, 8])
    b.output(b.node("Dropout", y, out="dropped"), [1, 10])
    b.output(b.node("Reshape", x, b.ints(1, 3, 8, 8), out="same"), [1, 3, 8, 8])
    return Network(proto=b.model(), feeds=b.feeds(), quantized=("Conv",))


@network
def integer_results_as_outputs() -> Network:
    """Outputs that integer operators make and other integer operators read: Conv, MaxPool, Concat, Transpose, Clip."""
    b = Builder(seed=101)
    x = b.node(
        "Clip", b.conv(b.input("x", [1, 3, 8, 8]), 3, 8), b.const(np.float32(0)), b.const(np.float32(6)), out="clipped"
    )
    p = b.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2], out="pooled")
    q = b.node("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2], out="average")
    c = b.node("Concat", p, q, axis=1, out="joined")
    t = b.node("Transpose", b.node("Transpose", c, perm=[0, 2, 3, 1], out="turned"), perm=[0, 3, 1, 2])
    b.output(b.head(b.conv(t, 16, 8), 8), [1, 10])
    for name in ("clipped", "pooled", "average", "joined", "turned"):
        b.output(name, None)
    return Network(proto=b.model(), feeds=b.feeds(), quantized=("Conv",))


@network
def movement_only_at_the_ends() -> Network:
    """Slices, Squeezes, Expands, Tiles, Pads and a Gather by constant indices around one convolution."""
    b = Builder(seed=102)
    x = b.node("Slice", b.input("x", [1, 1, 10, 3, 10]), b.ints(0, 0), b.ints(8, 8), b.ints(2, 4), b.ints(1, 1))
    x = b.node("Squeeze", x, b.ints(1))
    x = b.node("Transpose", x, perm=[0, 2, 1, 3])
    x = b.node("Gather", x, b.const(np.asarray([2, 1, 0])), axis=1)
    x = b.node("Pad", x, b.ints(0, 0, 1, 1, 0, 0, 1, 1), mode="reflect")
    x = b.relu(b.conv(x, 3, 8, pad=0))
    x = b.node("Tile", b.node("Unsqueeze", x, b.ints(1)), b.ints(1, 2, 1, 1, 1))
    x = b.node("Expand", x, b.ints(1, 2, 8, 8, 8))
    x = b.node("SpaceToDepth", b.node("Reshape", x, b.ints(2, 8, 8, 8)), blocksize=2)
    b.output(b.head(b.conv(x, 32, 8, 1), 8), [2, 10])
    return Network(proto=b.model(), feeds=b.feeds(), quantized=("Conv",))


@network
def instance_norm_style() -> Network:
    """Style transfer: reflect Pad, InstanceNormalization, GroupNorm as Reshape - InstanceNorm - Reshape, Tanh."""
    b = Builder(seed=103)
    x = b.node("Pad", b.input("x", [1, 3, 8, 8]), b.ints(0, 0, 1, 1, 0, 0, 1, 1), mode="reflect")
    x = b.conv(x, 3, 8, pad=0)
    x = b.relu(b.node("InstanceNormalization", x, b.const(np.ones(8, np.float32)), b.vector(8)))
    y = b.node("Reshape", b.conv(x, 8, 8), b.ints(1, 2, -1))
    y = b.node("InstanceNormalization", y, b.const(np.ones(2, np.float32)), b.const(np.zeros(2, np.float32)))
    y = b.node("Reshape", y, b.ints(1, 8, 8, 8))
    y = b.node("Add", b.node("Mul", y, b.weight(8, 1, 1)), b.weight(8, 1, 1))
    b.output(b.node("Tanh", b.conv(b.relu(y), 8, 3), out="image"), [1, 3, 8, 8])
    return Network(proto=b.model(), feeds=b.feeds(), quantized=("Conv",))


@network
def conv3d() -> Network:
    b = Builder(seed=104)
    x = b.relu(b.batchnorm(b.conv(b.input("clip", [1, 2, 4, 8, 8]), 2, 8, rank=3, bias=False), 8))
    x = b.node("MaxPool", x, kernel_shape=[2, 2, 2], strides=[2, 2, 2])
    b.output(b.head(b.conv(x, 8, 8, rank=3), 8), [1, 10])
    return Network(proto=b.model(), feeds=b.feeds(), quantized=("Conv",))


@network
def dynamic_convolution() -> Network:
    """A convolution whose weight is computed, one whose bias is, a ConvTranspose with groups, a dilated one."""
    b = Builder(seed=105)
    x = b.conv(b.input("x", [1, 4, 8, 8]), 4, 8, dilations=[2, 2], pad=2)
    w = b.node("Mul", b.weight(8, 8, 3, 3), b.input("gain", [1]))
    x = b.node("Conv", x, w, pads=[1] * 4)
    x = b.node("Conv", x, b.weight(8, 8, 1, 1), b.node("Mul", b.vector(8), "gain"))
    x = b.node("ConvTranspose", x, b.weight(8, 2, 3, 3), group=4, pads=[1] * 4)
    b.output(b.head(x, 8), [1, 10])
    return Network(proto=b.model(), feeds=b.feeds(), quantized=("Conv",))


@network
def clip_variants() -> Network:
    """Clips that no range can absorb: [-1, 1] is one that can, [1, 2] and computed bounds cannot; empty bounds."""
    b = Builder(seed=106)
    x = b.input("x", [1, 3, 8, 8])
    f = np.float32
    ys = [
        b.node("Clip", b.conv(x, 3, 8), b.const(f(-1)), b.const(f(1))),
        b.node("Clip", b.conv(x, 3, 8), b.const(f(0.1)), b.const(f(2))),
        b.node("Clip", b.conv(x, 3, 8), "", b.const(f(0.5))),
        b.node("Clip", b.conv(x, 3, 8), b.const(f(-0.5))),
        b.node("Clip", b.conv(x, 3, 8)),
        b.node("Clip", b.conv(x, 3, 8), b.node("ReduceMin", x, keepdims=0), b.const(f(1))),
        b.relu(b.relu(b.conv(x, 3, 8))),
        b.relu6(b.relu(b.conv(x, 3, 8))),
    ]
    b.output(b.head(b.conv(b.node("Concat", *ys, axis=1), 64, 8), 8), [1, 10])
    return Network(proto=b.model(), feeds=b.feeds(), quantized=("Conv",))


@network
def one_value_many_readers() -> Network:
    """A value read by an integer Conv, by a float operator, twice by one Add, by a branch, and it is an output."""
    b = Builder(seed=107)
    x = b.relu(b.conv(b.input("x", [1, 3, 8, 8]), 3, 8, out="pre"))
    inner = [Builder(prefix=p) for p in ("t_", "e_")]
    for c, op in zip(inner, ("Sin", "Abs"), strict=True):
        c.output(c.node(op, x))
    z = b.node("If", b.input("flag", [], BOOL), then_branch=inner[0].graph("t"), else_branch=inner[1].graph("e"))
    y = b.node("Add", b.node("Add", x, x), b.node("Sin", x))
    y = b.node("Add", b.node("Add", b.conv(x, 8, 8), y), z)
    b.output(b.head(y, 8), [1, 10]), b.output(x, [1, 8, 8, 8])
    return Network(proto=b.model(), feeds=b.feeds(6), quantized=("Conv",))


@network
def captured_before_relu() -> Network:
    """The value before a Relu is captured by a branch: the Relu may not vanish into its producer."""
    b = Builder(seed=108)
    pre = b.conv(b.input("x", [1, 3, 8, 8]), 3, 8)
    inner = [Builder(prefix=p) for p in ("t_", "e_")]
    for c, op in zip(inner, ("Neg", "Abs"), strict=True):
        c.output(c.node(op, pre))
    z = b.node("If", b.input("flag", [], BOOL), then_branch=inner[0].graph("t"), else_branch=inner[1].graph("e"))
    y = b.node("Add", b.conv(b.relu(pre), 8, 8), z)
    b.output(b.head(y, 8), [1, 10])
    return Network(proto=b.model(), feeds=b.feeds(6), quantized=("Conv",))


@network
def same_names_inside_and_outside() -> Network:
    """Bodies that use the names of outer nodes again, and quantizer-like names."""
    b = Builder(seed=109)
    x = b.conv(b.input("x", [1, 3, 8, 8]), 3, 8, out="x_q")
    b.nodes[-1].name = "conv"
    inner = [Builder(prefix=p) for p in ("t_", "e_")]
    for c in inner:
        c.node("Conv", x, c.weight(8, 8, 1, 1, name=f"{c.prefix}x_scale"), out=f"{c.prefix}x_dq", name="conv")
        c.output(f"{c.prefix}x_dq")
        c.nodes[-1].name = "conv"
    z = b.node(
        "If", b.input("flag", [], BOOL), then_branch=inner[0].graph("t"), else_branch=inner[1].graph("e"), name="x_Q"
    )
    b.output(b.head(b.node("Add", z, x), 8), [1, 10])
    return Network(proto=b.model(), feeds=b.feeds(6), quantized=("Conv",))


@network
def captured_table() -> Network:
    """An embedding table that a Gather in the main graph and one in a branch read; two look-ups of one table."""
    b = Builder(seed=110)
    table = b.weight(50, 16, fan_in=4, name="table")
    ids = b.input("ids", [1, 6], INT64)
    rows = b.node("Add", b.node("Gather", table, ids), b.node("Gather", table, b.input("more", [1, 6], INT64)))
    inner = [Builder(prefix=p) for p in ("t_", "e_")]
    for c, op in zip(inner, ("Neg", "Abs"), strict=True):
        c.output(c.node(op, c.node("Gather", table, ids)))
    z = b.node("If", b.input("flag", [], BOOL), then_branch=inner[0].graph("t"), else_branch=inner[1].graph("e"))
    b.output(b.matmul(b.node("Add", rows, z), 16, 8, out="y"), [1, 6, 8])
    return Network(proto=b.model(), feeds=b.feeds(6), quantized=("MatMul",), float_copies=("table",))


@network
def table_variants() -> Network:
    """Scalar and matrix indices, negative indices, int32 indices, axis 1, a table used as a matrix too."""
    b = Builder(seed=111)
    table = b.weight(20, 16, fan_in=4, name="table")
    one = b.node("Gather", table, b.input("i", [], INT64))
    two = b.node("Gather", table, b.input("ij", [2, 3], TensorProto.INT32))
    three = b.node("Gather", b.weight(16, 20, fan_in=4), b.input("k", [4], INT64), axis=1)
    four = b.node("Gather", table, b.ints(-1, -20))
    b.output(b.matmul(two, 16, 8, out="a"), [2, 3, 8])
    b.output(b.node("MatMul", b.node("MatMul", one, three), b.weight(4, 8), out="b"), [8])
    b.output(
        b.node(
            "MatMul", b.node("MatMul", b.input("x", [1, 20]), table), b.node("Transpose", four, perm=[1, 0]), out="c"
        ),
        [1, 2],
    )
    return Network(proto=b.model(), feeds=b.feeds(), quantized=("MatMul",), float_copies=("table",))


@network
def einsum_and_friends() -> Network:
    """Einsum, CumSum, TopK, ScatterND, GridSample: left alone, with reasons, between integer products."""
    b = Builder(seed=112)
    x = b.matmul(b.input("x", [2, 6, 16]), 16, 16)
    x = b.node("Einsum", x, b.weight(16, 16), equation="bij,jk->bik")
    x = b.node("CumSum", b.node("Mul", x, b.const(np.float32(0.3))), b.const(np.int64(1)))
    values, _ = b.nodes_out("TopK", x, b.ints(8), outs=["top", "where"], axis=-1)
    y = b.node("ScatterND", values, b.const(np.asarray([[0, 0], [1, 2]])), b.const(np.zeros((2, 8), np.float32)))
    b.output(b.matmul(y, 8, 4, out="y"), [2, 6, 4]), b.output("where", [2, 6, 8], INT64)
    return Network(proto=b.model(), feeds=b.feeds(), least_db=None, quantized=("MatMul",))


@network
def already_half_integer() -> Network:
    """Image decoding in the model: uint8 input, Cast, normalisation by Sub and Div, integer side outputs."""
    b = Builder(seed=113)
    image = b.input("image", [1, 8, 8, 3], TensorProto.UINT8)
    x = b.node("Transpose", b.node("Cast", image, to=FLOAT), perm=[0, 3, 1, 2])
    mean, std = (b.const(np.asarray(v, np.float32).reshape(1, 3, 1, 1)) for v in ((4, 3, 2), (2.1, 2.2, 2.3)))
    x = b.node("Div", b.node("Sub", x, mean), std)
    y = b.head(b.relu(b.conv(x, 3, 8)), 8)
    b.output(b.node("Softmax", y, axis=-1, out="p"), [1, 10])
    b.output(b.node("ArgMax", b.node("Mul", y, b.const(np.float32(0))), axis=1, out="first"), [1, 1], INT64)
    return Network(proto=b.model(), feeds=b.feeds(), quantized=("Conv",))


@network
def graph_without_inputs() -> Network:
    """Constants only, as an exporter writes a buffer module: it folds to nothing."""
    b = Builder(seed=114)
    x = b.const(b.rng.standard_normal((1, 3, 8, 8)).astype(np.float32))
    b.output(b.head(b.conv(x, 3, 8), 8), [1, 10])
    return Network(proto=b.model(), feeds=[{}, {}])


@network
def noise_generator() -> Network:
    """No input, random numbers into a convolution."""
    b = Builder(seed=120)
    x = b.node("RandomNormal", shape=[1, 3, 8, 8], scale=0.5)
    b.output(b.head(b.conv(x, 3, 8), 8), [1, 10])
    return Network(proto=b.model(), feeds=[{}, {}], least_db=None, quantized=("Conv",))


@network
def ml_domain() -> Network:
    """ai.onnx.ml before and after a Gemm."""
    b = Builder(seed=115)
    x = b.node("Scaler", b.input("x", [2, 8]), domain="ai.onnx.ml", name="scaler", offset=[0.1] * 8, scale=[2.0] * 8)
    y = b.gemm(b.relu(b.gemm(x, 8, 16)), 16, 4, out="scores")
    b.output(y, [2, 4])
    b.output(b.node("Binarizer", y, domain="ai.onnx.ml", name="binarizer", threshold=1e6, out="many"), [2, 4])
    return Network(proto=b.model(domains={"ai.onnx.ml": 3}), feeds=b.feeds(), quantized=("Gemm",))


@network
def optional_input_value() -> Network:
    """Optional inputs left out in the middle: Resize with sizes only, Clip, LSTM without bias and lengths."""
    b = Builder(seed=116)
    x = b.conv(b.input("x", [1, 3, 4, 4]), 3, 8)
    x = b.node("Resize", x, "", "", b.ints(1, 8, 8, 8), mode="nearest")
    x = b.conv(x, 8, 8, stride=2)
    seq = b.node("Transpose", b.node("Reshape", x, b.ints(1, 8, 16)), perm=[2, 0, 1])
    h0 = b.const(np.zeros((1, 1, 12), np.float32))
    _, last = b.nodes_out(
        "LSTM",
        seq,
        b.weight(1, 48, 8, fan_in=32),
        b.weight(1, 48, 12, fan_in=48),
        "",
        "",
        h0,
        h0,
        outs=["", "h"],
        hidden_size=12,
    )
    b.output(b.gemm(b.node("Reshape", last, b.ints(1, 12)), 12, 4, out="y"), [1, 4])
    return Network(proto=b.model(), feeds=b.feeds(), quantized=("Conv",))


@network
def shared_convolution_at_two_sizes() -> Network:
    """RetinaNet: one head, weights and biases shared, on maps of several sizes and ranges."""
    b = Builder(seed=117)
    x = b.relu(b.conv(b.input("x", [1, 3, 16, 16]), 3, 8))
    maps = [x, b.node("Mul", b.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]), b.const(np.float32(20)))]
    w1, b1, w2 = b.weight(8, 8, 3, 3), b.vector(8), b.weight(4, 8, 3, 3)
    outs = []
    for m in maps:
        y = b.relu(b.node("Conv", m, w1, b1, pads=[1] * 4))
        outs.append(b.node("Reshape", b.node("Conv", y, w2, pads=[1] * 4), b.ints(1, 4, -1)))
    b.output(b.node("Concat", *outs, axis=2, out="boxes"), [1, 4, 320])
    return Network(proto=b.model(), feeds=b.feeds(), quantized=("Conv",))


@network
def large_constant_folding() -> Network:
    """A small file may not become a large one: ConstantOfShape, Expand and Tile stay computed."""
    b = Builder(seed=118)
    filled = b.node("ConstantOfShape", b.ints(600, 600), value=numpy_helper.from_array(np.asarray([0.01], np.float32)))
    y = b.node("MatMul", b.input("x", [2, 600]), filled)
    b.output(b.matmul(y, 600, 4, out="y"), [2, 4])
    return Network(proto=b.model(), feeds=b.feeds(), quantized=("Gemm", "MatMul"))


@network
def training_leftovers() -> Network:
    """BatchNormalization with five outputs (opset 9), Dropout with a mask and a ratio, doc strings, value_info."""
    b = Builder(seed=119, opset=9)
    x = b.conv(b.input("x", [1, 3, 8, 8]), 3, 8)
    names = [b.vector(8, name=f"bn_{n}") for n in ("scale", "shift", "mean")]
    var = b.const(np.ones(8, np.float32))
    b.nodes_out("BatchNormalization", x, *names, var, outs=["bn"])
    b.nodes_out("Dropout", b.relu("bn"), outs=["dropped", "mask"], ratio=0.4)
    b.output(b.head("dropped", 8), [1, 10])
    model = b.model()
    model.graph.doc_string = "exported"
    for node in model.graph.node:
        node.doc_string = "at line 3"
    model.graph.value_info.append(helper.make_tensor_value_info("bn", FLOAT, [1, 8, 8, 8]))
    return Network(proto=model, feeds=b.feeds(), quantized=("Conv",))

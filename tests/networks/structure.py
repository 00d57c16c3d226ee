"""Control flow, local functions, operators of other domains."""

from __future__ import annotations

import numpy as np
from networks.builder import BOOL, FLOAT, INT64, Builder, Network, network
from onnx import GraphProto, helper


def _body(b: Builder, name: str) -> GraphProto:
    return b.graph(name)


def _branch(seed: int, source: str, prefix: str, i: int = 8, o: int = 8) -> GraphProto:
    """A convolution over ``source``, a value of the outer graph, with its weights in the branch."""
    b = Builder(seed=seed, prefix=prefix)
    b.output(b.relu(b.conv(source, i, o)), None)
    b.outputs[0].name = b.nodes[-1].output[0]
    return _body(b, prefix)


@network
def if_branches() -> Network:
    """Branches with Conv weights of their own, reading a value that an integer Conv makes."""
    b = Builder(seed=40)
    x = b.relu(b.conv(b.input("image", [1, 3, 8, 8]), 3, 8))
    flag = b.input("flag", [], BOOL)
    y = b.node("If", flag, then_branch=_branch(1, x, "then_"), else_branch=_branch(2, x, "else_"))
    b.output(b.head(b.node("Add", b.conv(x, 8, 8), y), 8), [1, 10])
    return Network(proto=b.model(), feeds=b.feeds(6), quantized=("Conv",))


@network
def weights_in_branches() -> Network:
    """All the large weights in If bodies, a small Conv outside."""
    b = Builder(seed=41)
    x = b.conv(b.input("image", [1, 3, 8, 8]), 3, 8, 1)
    many = [_branch(s, x, f"b{s}_") for s in (3, 4)]
    y = b.node("If", b.input("flag", [], BOOL), then_branch=many[0], else_branch=many[1])
    b.output(b.node("Identity", y, out="y"), [1, 8, 8, 8])
    return Network(proto=b.model(), feeds=b.feeds(6), quantized=())


@network
def captured_weight() -> Network:
    """A weight that a branch reads too, and one that only a branch reads."""
    b = Builder(seed=42)
    x = b.input("x", [2, 16])
    shared, own = b.weight(16, 16, name="shared.weight"), b.weight(16, 16, name="own.weight")
    y = b.node("MatMul", x, shared)

    def branch(prefix: str, w: str) -> GraphProto:
        inner = Builder(prefix=prefix)
        z = inner.node("MatMul", y, w)
        inner.output(z)
        return _body(inner, prefix)

    z = b.node("If", b.input("flag", [], BOOL), then_branch=branch("t_", shared), else_branch=branch("e_", own))
    b.output(b.node("Add", y, z, out="y"), [2, 16])
    return Network(proto=b.model(), feeds=b.feeds(6), quantized=("Gemm",), float_copies=("shared.weight",))


@network
def loop() -> Network:
    """A Loop whose body multiplies its state by an outer weight; its trip count is an input."""
    b = Builder(seed=43)
    x = b.matmul(b.input("x", [2, 16]), 16, 16)
    w = b.weight(16, 16, name="step.weight")
    body = Builder(prefix="body_")
    body.input("i", [], INT64), body.input("go", [], BOOL), body.input("state", [2, 16])
    body.node("Identity", "go", out="go_on")
    body.node("Tanh", body.node("MatMul", "state", w), out="next")
    body.node("Identity", "next", out="trace")
    body.output("go_on", [], BOOL), body.output("next", [2, 16]), body.output("trace", [2, 16])
    b.nodes_out(
        "Loop", b.input("count", [], INT64), b.const(np.asarray(True)), x, outs=["last", "all"], body=body.graph("body")
    )
    b.output(b.matmul("last", 16, 4, out="y"), [2, 4])
    b.output("all", ["n", 2, 16])
    feeds = b.feeds(4, count=lambda rng: np.asarray(rng.integers(1, 4)))
    return Network(proto=b.model(), feeds=feeds, quantized=("MatMul", "Gemm"))


@network
def scan() -> Network:
    b = Builder(seed=44)
    x = b.matmul(b.input("x", [5, 2, 16]), 16, 16)
    body = Builder(prefix="body_")
    body.input("state", [2, 16]), body.input("row", [2, 16])
    inside = body.weight(16, 16, name="inside.weight")
    body.node("Tanh", body.node("Add", body.node("MatMul", "state", inside), "row"), out="next")
    body.node("Identity", "next", out="seen")
    body.output("next", [2, 16]), body.output("seen", [2, 16])
    first = b.const(np.zeros((2, 16), np.float32))
    b.nodes_out("Scan", first, x, outs=["last", "all"], body=body.graph("body"), num_scan_inputs=1)
    b.output(b.matmul("all", 16, 4, out="y"), [5, 2, 4])
    return Network(proto=b.model(), feeds=b.feeds(), quantized=("MatMul",))


@network
def nested_if() -> Network:
    b = Builder(seed=45)
    x = b.matmul(b.input("x", [2, 8]), 8, 8)
    flag = b.input("flag", [], BOOL)
    inner = Builder(prefix="mid_")

    def leaf(prefix: str, op: str) -> GraphProto:
        c = Builder(prefix=prefix)
        c.output(c.node(op, x))
        return _body(c, prefix)

    inner.output(inner.node("If", flag, then_branch=leaf("tt_", "Sin"), else_branch=leaf("te_", "Cos")))
    y = b.node("If", flag, then_branch=inner.graph("mid"), else_branch=leaf("e_", "Neg"))
    b.output(b.matmul(y, 8, 4, out="y"), [2, 4])
    return Network(proto=b.model(), feeds=b.feeds(6), quantized=("MatMul", "Gemm"))


@network
def local_function() -> Network:
    """A function called twice, with a weight in a Constant of its body and one as its argument."""
    inner = Builder(prefix="f_", opset=17)
    w = inner.constant_node((np.random.default_rng(0).standard_normal((8, 8)) * 0.5).astype(np.float32))
    y = inner.node("Relu", inner.node("MatMul", inner.node("MatMul", "x", "w"), w))
    inner.node("Identity", y, out="y")
    f = helper.make_function("ai.local", "Block", ["x", "w"], ["y"], inner.nodes, [helper.make_opsetid("", 17)])
    b = Builder(seed=46)
    x = b.input("x", [2, 8])
    for i in range(2):
        x = b.node("Block", x, b.weight(8, 8), domain="ai.local", name=f"block{i}")
    b.output(b.matmul(x, 8, 4, out="y"), [2, 4])
    return Network(proto=b.model(domains={"ai.local": 1}, functions=[f]), feeds=b.feeds(), quantized=("MatMul", "Gemm"))


@network
def microsoft_domain() -> Network:
    """Operators of com.microsoft between ordinary ones, as ONNX Runtime's own optimizer saves them."""
    b = Builder(seed=47)
    x = b.matmul(b.input("x", [1, 4, 16]), 16, 32)
    x = b.node("Gelu", x, domain="com.microsoft", name="gelu")
    x = b.node("FusedMatMul", x, b.weight(16, 32), domain="com.microsoft", name="fused", transB=1, alpha=0.5)
    b.output(b.matmul(x, 16, 8, out="y"), [1, 4, 8])
    return Network(proto=b.model(domains={"com.microsoft": 1}), feeds=b.feeds(), quantized=("MatMul",))


@network
def fused_conv() -> Network:
    b = Builder(seed=48)
    x = b.input("x", [1, 3, 8, 8])
    x = b.node(
        "FusedConv",
        x,
        b.weight(8, 3, 3, 3),
        b.vector(8),
        domain="com.microsoft",
        activation="Relu",
        kernel_shape=[3, 3],
        pads=[1] * 4,
    )
    b.output(b.head(b.conv(x, 8, 8), 8), [1, 10])
    return Network(proto=b.model(domains={"com.microsoft": 1}), feeds=b.feeds(), quantized=("Conv",))


def unknown_operator() -> Network:
    """An operator that ONNX Runtime does not know: cannot be run, so cannot be calibrated."""
    b = Builder(seed=49)
    x = b.conv(b.input("x", [1, 3, 8, 8]), 3, 8)
    b.output(b.head(b.node("Whirl", x, domain="org.example"), 8), [1, 10])
    return Network(proto=b.model(domains={"org.example": 1}), feeds=b.feeds())


@network
def sequence_indexed() -> Network:
    """A sequence of activations of which an input picks one."""
    b = Builder(seed=51)
    x = b.conv(b.input("x", [1, 3, 8, 8]), 3, 8)
    many = b.node("SequenceConstruct", x, b.conv(x, 8, 8))
    many = b.node("SequenceInsert", many, b.node("Neg", x))
    y = b.node("SequenceAt", many, b.input("which", [], INT64))
    b.output(b.head(b.conv(y, 8, 8), 8), [1, 10], FLOAT)
    feeds = b.feeds(which=lambda rng: np.asarray(rng.integers(0, 3)))
    return Network(proto=b.model(), feeds=feeds, quantized=("Conv",))


@network
def sequence_inside() -> Network:
    """Sequence values between ordinary operators."""
    b = Builder(seed=50)
    x = b.conv(b.input("x", [1, 3, 8, 8]), 3, 8)
    parts = b.node("SplitToSequence", x, b.const(np.int64(4)), axis=1)
    y = b.node("SequenceAt", parts, b.const(np.int64(1)))
    b.output(b.head(b.conv(y, 4, 8), 8), [1, 10], FLOAT)
    return Network(proto=b.model(), feeds=b.feeds(), quantized=("Conv",))

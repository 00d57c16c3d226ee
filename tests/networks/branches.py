"""Networks whose weights sit in the branches of If, as voice detectors are exported; not among NETWORKS, since a plan
of the main graph alone finds next to nothing in them."""

from __future__ import annotations

import numpy as np
from networks.builder import BOOL, FLOAT, INT64, Builder, Feed, Network
from onnx import GraphProto, helper


def _detector(prefix: str, kernel: int, source: str, state: str) -> GraphProto:
    """Conv - Relu three times, LSTM with its state from outside, Conv, Sigmoid; gives the state too."""
    b = Builder(seed=kernel, prefix=prefix)
    x = b.node("Unsqueeze", source, b.ints(1))
    for i, o in ((1, 16), (16, 32), (32, 32)):
        x = b.relu(b.conv(x, i, o, k=kernel, rank=1, stride=2))
    x = b.node("Transpose", x, perm=[2, 0, 1])
    h, c = (b.node("Slice", state, b.ints(i), b.ints(i + 1), b.ints(0)) for i in (0, 1))
    w, r = b.weight(1, 128, 32, fan_in=64), b.weight(1, 128, 32, fan_in=128)
    outs = [b.fresh(s) for s in ("y", "h", "c")]
    y, h, c = b.nodes_out("LSTM", x, w, r, "", "", h, c, outs=outs, hidden_size=32)
    y = b.node("Transpose", b.node("Squeeze", y, b.ints(1)), perm=[1, 2, 0])
    y = b.node("Sigmoid", b.conv(y, 32, 1, k=1, rank=1))
    b.output(b.node("ReduceMean", y, axes=[2], keepdims=0))
    b.output(b.node("Concat", h, c, axis=0))
    return b.graph(prefix)


def voice_feeds(n: int, seed: int = 0, rates: tuple[int, ...] = (16000, 8000)) -> list[Feed]:
    """``n`` samples whose rate goes through ``rates``."""
    rng = np.random.default_rng(seed)
    return [
        {
            "input": rng.standard_normal((1, 256)).astype(np.float32),
            "state": (0.3 * rng.standard_normal((2, 1, 32))).astype(np.float32),
            "sr": np.asarray(rates[i % len(rates)], np.int64),
        }
        for i in range(n)
    ]


def voice() -> Network:
    """All weights in the two branches of one If on the sampling rate."""
    b = Builder(seed=9, opset=16)
    x, state = b.input("input", [1, 256]), b.input("state", [2, 1, 32])
    wide = b.node("Equal", b.input("sr", [], INT64), b.const(np.int64(16000)))
    branches = {"then_branch": _detector("a_", 5, x, state), "else_branch": _detector("b_", 3, x, state)}
    b.nodes_out("If", wide, outs=["output", "stateN"], name="rate", **branches)
    b.output("output", [1, 1])
    b.output("stateN", [2, 1, 32])
    return Network(proto=b.model(), feeds=voice_feeds(24))


def _stack(seed: int, source: str, prefix: str) -> GraphProto:
    """Two convolutions 8 -> 16 -> 8 over ``source``."""
    b = Builder(seed=seed, prefix=prefix)
    b.output(b.relu(b.conv(b.relu(b.conv(source, 8, 16)), 16, 8)))
    return b.graph(prefix)


def _images(n: int, flags: tuple[str, ...], seed: int = 1) -> list[Feed]:
    rng = np.random.default_rng(seed)
    return [
        {
            "image": rng.standard_normal((1, 3, 16, 16)).astype(np.float32),
            **{name: np.asarray(bool(i >> bit & 1)) for bit, name in enumerate(flags)},
        }
        for i in range(n)
    ]


def mixed() -> Network:
    """Conv in the main graph, before and after an If with convolutions that read what an integer Conv makes."""
    b = Builder(seed=40)
    x = b.relu(b.conv(b.input("image", [1, 3, 16, 16]), 3, 8))
    flag = b.input("flag", [], BOOL)
    y = b.node("If", flag, name="choice", then_branch=_stack(1, x, "t_"), else_branch=_stack(2, x, "e_"))
    b.output(b.head(b.conv(y, 8, 8), 8), [1, 10])
    return Network(proto=b.model(), feeds=_images(24, ("flag",)))


def nested() -> Network:
    """An If within an If; the inner branches read a value of the outer branch, one of the main graph, and the input."""
    b = Builder(seed=45)
    x = b.conv(b.input("image", [1, 3, 16, 16]), 3, 8)
    outer, inner = b.input("outer", [], BOOL), b.input("inner", [], BOOL)
    mid = Builder(seed=3, prefix="m_")
    z = mid.relu(mid.conv(x, 8, 8))
    y = mid.node("If", inner, name="second", then_branch=_stack(4, z, "mt_"), else_branch=_stack(5, x, "me_"))
    mid.output(mid.node("Add", y, z))
    y = b.node("If", outer, name="first", then_branch=mid.graph("mid"), else_branch=_stack(6, x, "e_"))
    b.output(b.node("Identity", y, out="y"), [1, 8, 16, 16])
    return Network(proto=b.model(), feeds=_images(24, ("outer", "inner")))


def shared() -> Network:
    """Branches that read weights of the main graph, one that both read and one each; they share the names inside."""
    b = Builder(seed=46)
    x = b.input("x", [4, 32])
    both, one, two = (b.weight(32, 32, fan_in=32, name=n) for n in ("both.weight", "one.weight", "two.weight"))

    def branch(own: str) -> GraphProto:
        inner = Builder(prefix="in_")
        y = inner.relu(inner.node("MatMul", x, both))
        inner.output(inner.relu(inner.node("MatMul", y, own)))
        return inner.graph(own)

    y = b.node("If", b.input("flag", [], BOOL), name="choice", then_branch=branch(one), else_branch=branch(two))
    b.output(b.node("Identity", y, out="y"), [4, 32])
    rng = np.random.default_rng(2)
    feeds: list[Feed] = [
        {"x": rng.standard_normal((4, 32)).astype(np.float32), "flag": np.asarray(i % 2 == 0)} for i in range(24)
    ]
    return Network(proto=b.model(), feeds=feeds)


def loop_only() -> Network:
    """All weights in the body of a Loop."""
    b = Builder(seed=47)
    x, count = b.input("x", [4, 16]), b.input("count", [], INT64)
    inner = Builder(prefix="body_")
    value = helper.make_tensor_value_info
    inner.inputs = [value("i", INT64, []), value("more", BOOL, []), value("carried", FLOAT, [4, 16])]
    inner.output(inner.node("Identity", "more"), [], BOOL)
    inner.output(inner.node("Tanh", inner.matmul("carried", 16, 16)), [4, 16])
    y = b.node("Loop", count, b.const(np.bool_(True)), x, name="steps", body=inner.graph("body"))
    b.output(b.node("Identity", y, out="y"), [4, 16])
    rng = np.random.default_rng(3)
    feeds: list[Feed] = [
        {"x": rng.standard_normal((4, 16)).astype(np.float32), "count": np.asarray(3, np.int64)} for _ in range(12)
    ]
    return Network(proto=b.model(), feeds=feeds)

"""Nets over sequences and vectors: text and audio convolutions, autoencoders, recurrent and attention models."""

from __future__ import annotations

import numpy as np
from networks.builder import BOOL, INT64, Builder, Network, network
from onnx import numpy_helper


@network
def byte_classifier() -> Network:
    b = Builder(seed=20, opset=13)
    table = b.weight(256, 16, fan_in=32)
    x = b.node("Gather", table, b.input("bytes", ["n", "length"], INT64))
    x = b.relu(b.conv(b.node("Transpose", x, perm=[0, 2, 1]), 16, 32, 5, rank=1))
    x = b.relu(b.conv(x, 32, 32, 3, rank=1, stride=2))
    x = b.node("ReduceMax", x, axes=[2], keepdims=0)
    b.output(b.gemm(x, 32, 5, out="logits"), ["n", 5])
    feeds = [{"bytes": np.random.default_rng(i).integers(0, 256, (1, 24 + 8 * i))} for i in range(4)]
    return Network(proto=b.model(), feeds=feeds, quantized=("Conv", "Gather", "Gemm"))


@network
def audio_conv1d() -> Network:
    """Keyword spotting: 1-D depthwise separable convolutions over frames, GlobalMaxPool."""
    b = Builder(seed=21)
    x = b.relu(b.batchnorm(b.conv(b.input("audio", [1, 1, 256]), 1, 16, 9, rank=1, stride=4, bias=False), 16))
    x = b.relu(b.conv(x, 16, 16, 5, rank=1, group=16))
    x = b.relu(b.conv(x, 16, 32, 1, rank=1))
    x = b.node("Squeeze", b.node("GlobalMaxPool", x), b.ints(2))
    b.output(b.gemm(x, 32, 4, out="words"), [1, 4])
    return Network(proto=b.model(), feeds=b.feeds(), quantized=("Conv",))


@network
def autoencoder_gemm() -> Network:
    b = Builder(seed=22)
    x, i = b.input("x", ["n", 64]), 64
    for o in (32, 8, 32):
        x, i = b.relu(b.gemm(x, i, o)), o
    b.output(b.gemm(x, 32, 64, out="y"), ["n", 64])
    return Network(proto=b.model(), feeds=b.feeds(), quantized=("Gemm",))


@network
def autoencoder_matmul() -> Network:
    b = Builder(seed=23)
    x, i = b.input("x", [2, 64]), 64
    for o in (32, 8, 32):
        x, i = b.relu(b.matmul(x, i, o)), o
    b.output(b.matmul(x, 32, 64, out="y"), [2, 64])
    return Network(proto=b.model(), feeds=b.feeds(), quantized=("Gemm",))


@network
def gemm_variants() -> Network:
    """alpha, beta, scalar and [1, N] and [M, 1] and computed biases, transA, a constant left side."""
    b = Builder(seed=24)
    x = b.input("x", [4, 16])
    w = b.weight(16, 8, fan_in=16)
    ys = [
        b.node("Gemm", x, w, alpha=0.5),
        b.node("Gemm", x, w, b.const(np.float32(0.3)), beta=2.0),
        b.node("Gemm", x, w, b.const(b.rng.standard_normal((1, 8)).astype(np.float32)), alpha=2.0, beta=0.5),
        b.node("Gemm", x, w, b.const(b.rng.standard_normal((4, 1)).astype(np.float32))),
        b.node("Gemm", x, w, b.const(b.rng.standard_normal((4, 8)).astype(np.float32))),
        b.node("Gemm", x, w, b.node("ReduceMean", x, axes=[1])),
        b.node("Gemm", x, b.weight(8, 16), b.vector(8), transB=1),
    ]
    b.output(b.node("Concat", *ys, axis=1, out="many"), [4, 56])
    b.output(b.node("Gemm", x, b.weight(4, 8), transA=1, out="turned"), [16, 8])
    b.output(b.node("MatMul", b.weight(3, 4), x, out="left"), [3, 16])
    return Network(proto=b.model(), feeds=b.feeds(), quantized=("Gemm",), float_copies=(w,))


def _recurrent(kind: str) -> Network:
    b = Builder(seed=25, opset=14)
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]
    frame = b.input("frame", [1, 1, 16])
    states = [b.input("h0", [1, 1, 24])] + ([b.input("c0", [1, 1, 24])] if kind == "LSTM" else [])
    x = b.relu(b.matmul(frame, 16, 16))
    w, r = b.weight(1, gates * 24, 16, fan_in=32), b.weight(1, gates * 24, 24, fan_in=48)
    bias = b.const(np.zeros((1, 2 * gates * 24), np.float32))
    new = ["h1", "c1"][: len(states)]
    outs = b.nodes_out(kind, x, w, r, bias, "", *states, outs=["sequence", *new], hidden_size=24)
    y = b.node("Squeeze", outs[0], b.ints(1))
    b.output(b.matmul(y, 24, 8, out="mask"), [1, 1, 8])
    for name in new:
        b.output(name, [1, 1, 24])
    return Network(proto=b.model(), feeds=b.feeds(), quantized=("MatMul",))


@network
def lstm_streaming() -> Network:
    return _recurrent("LSTM")


@network
def gru_streaming() -> Network:
    return _recurrent("GRU")


@network
def rnn_streaming() -> Network:
    return _recurrent("RNN")


def _layernorm(b: Builder, x: str, d: int, fused: bool) -> str:
    gamma = b.const((1 + 0.1 * b.rng.standard_normal(d)).astype(np.float32))
    beta = b.vector(d, 0.1)
    if fused:
        return b.node("LayerNormalization", x, gamma, beta, axis=-1, epsilon=1e-5)
    mean = b.node("ReduceMean", x, axes=[-1], keepdims=1)
    centred = b.node("Sub", x, mean)
    var = b.node("ReduceMean", b.node("Pow", centred, b.const(np.float32(2))), axes=[-1], keepdims=1)
    std = b.node("Sqrt", b.node("Add", var, b.const(np.float32(1e-5))))
    return b.node("Add", b.node("Mul", b.node("Div", centred, std), gamma), beta)


def _attention(b: Builder, x: str, d: int, heads: int, mask: str | None) -> str:
    def split(y: str, perm: list[int]) -> str:
        return b.node("Transpose", b.node("Reshape", y, b.ints(0, 0, heads, d // heads)), perm=perm)

    q = split(b.matmul(x, d, d), [0, 2, 1, 3])
    k = split(b.matmul(x, d, d), [0, 2, 3, 1])
    v = split(b.matmul(x, d, d), [0, 2, 1, 3])
    scores = b.node("Div", b.node("MatMul", q, k), b.const(np.float32(np.sqrt(d / heads))))
    if mask is not None:
        scores = b.node("Add", scores, mask)
    y = b.node("MatMul", b.node("Softmax", scores, axis=-1), v)
    y = b.node("Reshape", b.node("Transpose", y, perm=[0, 2, 1, 3]), b.ints(0, 0, d))
    return b.matmul(y, d, d)


def _gelu(b: Builder, x: str) -> str:
    e = b.node("Erf", b.node("Div", x, b.const(np.float32(np.sqrt(2)))))
    return b.node("Mul", b.node("Mul", x, b.node("Add", e, b.const(np.float32(1)))), b.const(np.float32(0.5)))


def _encoder(opset: int, fused: bool) -> Network:
    b = Builder(seed=26, opset=opset)
    d = 32
    ids = b.input("input_ids", ["batch", "sequence"], INT64)
    attend = b.input("attention_mask", ["batch", "sequence"], INT64)
    x = b.node("Gather", b.weight(100, d, fan_in=2, name="embeddings.word.weight"), ids)
    long = b.const(b.rng.standard_normal((1, 16, d)).astype(np.float32))
    size = b.node("Gather", b.node("Shape", ids), b.const(np.int64(1)), axis=0)
    ends = b.node("Unsqueeze", size, b.ints(0)) if opset >= 13 else b.node("Unsqueeze", size, axes=[0])
    x = b.node("Add", x, b.node("Slice", long, b.ints(0), ends, b.ints(1)))
    spread = b.node("Unsqueeze", attend, b.ints(1, 2)) if opset >= 13 else b.node("Unsqueeze", attend, axes=[1, 2])
    off = b.node("Sub", b.const(np.float32(1)), b.node("Cast", spread, to=1))
    mask = b.node("Mul", off, b.const(np.float32(np.finfo(np.float32).min)))
    x = _layernorm(b, x, d, fused)
    for _ in range(2):
        x = _layernorm(b, b.node("Add", x, _attention(b, x, d, 4, mask)), d, fused)
        x = _layernorm(b, b.node("Add", x, b.matmul(_gelu(b, b.matmul(x, d, 64)), 64, d)), d, fused)
    b.output(b.node("Identity", x, out="last_hidden_state"), ["batch", "sequence", d])
    first = b.node("Gather", x, b.const(np.int64(0)), axis=1)
    b.output(b.node("Tanh", b.gemm(first, d, d), out="pooled"), ["batch", d])
    rng = np.random.default_rng(0)
    feeds = []
    for n in (5, 8, 12, 9):
        keep = np.ones((1, n), np.int64)
        keep[0, n - 2 :] = 0
        feeds.append({"input_ids": rng.integers(0, 100, (1, n)), "attention_mask": keep})
    return Network(proto=b.model(), feeds=feeds, quantized=("MatMul", "Gather"))


@network
def encoder_layernorm() -> Network:
    return _encoder(17, fused=True)


@network
def encoder_decomposed() -> Network:
    return _encoder(12, fused=False)


@network
def decoder_tied() -> Network:
    """Causal mask by Where, RMS norm, SwiGLU, output matrix tied to the embedding by a Transpose."""
    b = Builder(seed=27, opset=14)
    d = 32
    ids = b.input("ids", [1, "t"], INT64)
    table = b.weight(64, d, fan_in=d, name="wte")
    x = b.node("Gather", table, ids)

    def norm(y: str) -> str:
        mean = b.node("ReduceMean", b.node("Mul", y, y), axes=[-1], keepdims=1)
        root = b.node("Sqrt", b.node("Add", mean, b.const(np.float32(1e-5))))
        gain = b.const((1 + 0.1 * b.rng.standard_normal(d)).astype(np.float32))
        return b.node("Mul", b.node("Div", y, root), gain)

    t = b.node("Gather", b.node("Shape", ids), b.ints(1))
    square = b.node("Concat", t, t, axis=0)
    ones = b.node("ConstantOfShape", square, value=numpy_helper.from_array(np.asarray([1], np.float32)))
    lower = b.node("Cast", b.node("Trilu", ones, upper=0), to=BOOL)
    zeros = b.const(np.float32(0))
    mask = b.node("Where", lower, zeros, b.const(np.float32("-inf")))
    for _ in range(2):
        x = b.node("Add", x, _attention(b, norm(x), d, 2, mask))
        y = norm(x)
        gate = b.matmul(y, d, 64, bias=False)
        h = b.node("Mul", b.node("Mul", gate, b.node("Sigmoid", gate)), b.matmul(y, d, 64, bias=False))
        x = b.node("Add", x, b.matmul(h, 64, d, bias=False))
    b.output(b.node("MatMul", norm(x), b.node("Transpose", table, perm=[1, 0]), out="logits"), [1, "t", 64])
    rng = np.random.default_rng(1)
    feeds = [{"ids": rng.integers(0, 64, (1, n))} for n in (3, 7, 5, 10)]
    return Network(proto=b.model(), feeds=feeds, quantized=("MatMul", "Gather"))


@network
def batched_matmul() -> Network:
    """A weight of rank 3 (one matrix a head) and a vector weight."""
    b = Builder(seed=28)
    x = b.input("x", [2, 4, 16])
    y = b.node("MatMul", x, b.weight(2, 16, 8, fan_in=16))
    b.output(b.node("MatMul", y, b.weight(8, fan_in=8), out="v"), [2, 4])
    b.output(b.node("MatMul", b.input("row", [16]), b.weight(16, 4, fan_in=16), out="w"), [4])
    return Network(proto=b.model(), feeds=b.feeds(), quantized=("MatMul",))

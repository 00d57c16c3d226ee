"""Where weights are kept: shared, doubled, in Constant nodes, behind other nodes."""

from __future__ import annotations

import numpy as np
from networks.builder import FLOAT, Builder, Network, network
from onnx import numpy_helper


@network
def shared_weights() -> Network:
    """One weight and bias for three convolutions, one weight twice under two names, one weight in a Constant node."""
    b = Builder(seed=79)
    x = b.input("x", [1, 8, 8, 8])
    w, bias = b.weight(8, 8, 3, 3, name="shared.weight"), b.vector(8, name="shared.bias")
    for _ in range(3):
        x = b.relu(b.node("Conv", x, w, bias, pads=[1] * 4))
    twin = numpy_helper.to_array(b.initializers[0])
    x = b.node("Conv", x, b.const(twin, "twin.weight"), pads=[1] * 4)
    x = b.node("Conv", x, b.constant_node(twin), b.constant_node(np.zeros(8, np.float32)), pads=[1] * 4)
    b.output(b.head(x, 8), [1, 10])
    return Network(proto=b.model(), feeds=b.feeds(), quantized=("Conv",))


@network
def weights_behind_nodes() -> Network:
    """Weights behind Identity, Transpose, Reshape, Cast, Unsqueeze, arithmetic, and all of these on large tensors."""
    b = Builder(seed=80)
    x = b.input("x", [1, 16, 4, 4])
    w = b.node("Identity", b.weight(16, 16, 3, 3))
    x = b.relu(b.node("Conv", x, w, b.node("Identity", b.vector(16)), pads=[1] * 4))
    w = b.node("Reshape", b.weight(16, 144), b.ints(16, 16, 3, 3))
    x = b.relu(b.node("Conv", x, w, pads=[1] * 4))
    w = b.node("Transpose", b.weight(3, 3, 16, 16, fan_in=144), perm=[3, 2, 0, 1])
    x = b.relu(b.node("Conv", x, w, pads=[1] * 4))
    half = b.const((np.random.default_rng(1).standard_normal((16, 16)) * 0.3).astype(np.float16))
    w = b.node("Unsqueeze", b.node("Cast", half, to=FLOAT), b.ints(2, 3))
    x = b.relu(b.node("Conv", x, w))
    y = b.node("Reshape", x, b.ints(1, -1))
    large = b.node("Transpose", b.node("Mul", b.weight(96, 256), b.const(np.float32(1.5))), perm=[1, 0])
    y = b.node("MatMul", y, b.node("Identity", large))
    b.output(b.node("MatMul", y, b.node("Reshape", b.weight(4, 24, 96, fan_in=96), b.ints(96, 96)), out="y"), [1, 96])
    return Network(proto=b.model(), feeds=b.feeds(), quantized=("Conv", "MatMul"))


@network
def stored_transposed() -> Network:
    """PyTorch's Linear without folding: MatMul(x, Transpose(W)); one W used by two layers, once turned and once not."""
    b = Builder(seed=81)
    x = b.input("x", [2, 3, 16])
    square = b.weight(16, 16, name="square")
    x = b.node("MatMul", x, b.node("Transpose", square, perm=[1, 0]))
    x = b.node("MatMul", x, square)
    b.output(b.node("MatMul", x, b.node("Transpose", b.weight(8, 16)), out="y"), [2, 3, 8])
    return Network(proto=b.model(), feeds=b.feeds(), quantized=("MatMul",))

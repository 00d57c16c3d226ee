"""Graphs in which tensors or constants have several readers."""

import numpy as np
from conformance.case import Case

_IDS = np.array([[3, 0, 7], [1, 1, 9]], np.int64)

CASES = (
    Case(
        name="shared-weight",
        body="a = Conv<pads=[1,1,1,1]>(x, w, b)\nc = Conv<pads=[1,1,1,1]>(a, w, b)\ny = Add(a, c)",
        constants={"w": (4, 4, 3, 3), "b": (4,)},
    ),
    Case(
        name="shared-bias",
        body="a = Conv(x, w, b)\nc = Conv(x, v, b)\ny = Add(a, c)",
        constants={"w": (4, 4, 3, 3), "v": (4, 4, 3, 3), "b": (4,)},
    ),
    Case(
        name="shared-weight-different-axes",
        body="m = MatMul(x, w)\ny = Gemm<transB=1>(m, w)",
        inputs={"x": (3, 6)},
        constants={"w": (6, 6)},
    ),
    Case(
        name="shared-operand",
        body="a = Mul(x, k)\ny = Add(a, k)",
        constants={"k": (4, 1, 1)},
    ),
    Case(
        name="relu-two-readers",
        body="c = Conv(x, w)\nr = Relu(c)\ny = Conv(r, v)\nz = LeakyRelu(r)",
        constants={"w": (4, 4, 3, 3), "v": (3, 4, 1, 1)},
        outputs=("y", "z"),
    ),
    Case(
        name="conv-read-beside-its-relu",
        body="c = Conv(x, w)\nr = Relu(c)\ny = Conv(r, v)\nz = LeakyRelu(c)",
        constants={"w": (4, 4, 3, 3), "v": (3, 4, 1, 1)},
        outputs=("y", "z"),
        stays_float=("Relu",),
    ),
    Case(
        name="conv-result-is-output",
        body="c = Conv(x, w)\ny = Relu(c)\nz = Conv(y, v)",
        constants={"w": (4, 4, 3, 3), "v": (3, 4, 1, 1)},
        outputs=("c", "y", "z"),
        stays_float=("Relu",),
    ),
    Case(
        name="integer-result-read-by-float",
        body="c = Conv(x, w)\ny = Conv(c, v)\nz = Abs(c)",
        constants={"w": (4, 4, 3, 3), "v": (3, 4, 1, 1)},
        outputs=("y", "z"),
        stays_float=("Abs",),
    ),
    Case(
        name="input-read-by-float",
        body="y = Conv(x, w)\nz = Abs(x)",
        constants={"w": (4, 4, 3, 3)},
        outputs=("y", "z"),
        stays_float=("Abs",),
    ),
    Case(
        name="input-is-output",
        body="y = Conv(x, w)",
        constants={"w": (4, 4, 3, 3)},
        outputs=("y", "x"),
    ),
    Case(
        name="matmul-result-read-by-both",
        body="m = MatMul(x, w)\ny = MatMul(m, v)\nz = Abs(m)",
        inputs={"x": (3, 6)},
        constants={"w": (6, 5), "v": (5, 4)},
        outputs=("y", "z"),
        stays_float=("Abs",),
    ),
    Case(
        name="tied-embedding-transpose",
        body="e = Gather(t, i)\nu = Transpose<perm=[1,0]>(t)\ny = MatMul(e, u)",
        inputs={"i": _IDS},
        constants={"t": (40, 32)},
    ),
    Case(
        name="tied-embedding-gemm",
        body="e = Gather(t, j)\ny = Gemm<transB=1>(e, t)",
        inputs={"j": _IDS[0]},
        constants={"t": (40, 32)},
    ),
    Case(
        name="tied-embedding-large",
        body="e = Gather(t, i)\nu = Transpose<perm=[1,0]>(t)\ny = MatMul(e, u)",
        inputs={"i": _IDS},
        constants={"t": (320, 32)},
    ),
)

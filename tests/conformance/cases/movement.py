"""Operators that move values: ``y``, their own result, is exact to half a step; a LeakyRelu behind them makes ``z``.

Movement operators are quantized beside an integer neighbour only, which that LeakyRelu is.
"""

import numpy as np
from conformance.case import Case, Uniform

_FLOATS = np.array([0.5], np.float32)


def _ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def _move(
    name: str, node: str, x: tuple[int, ...] = (1, 4, 6, 6), constants: dict | None = None, **more: object
) -> Case:
    return Case(
        name=name,
        body=f"y = {node}\nz = LeakyRelu<alpha=0.1>(y)",
        inputs={"x": Uniform(shape=x)},
        constants=constants or {},
        outputs=("y", "z"),
        **more,
    )


def _pad(name: str, attributes: str, *, fill: float | None = None, **more: object) -> Case:
    constants = {"p": _ints(0, 0, 1, 2, 0, 0, 2, 1)}
    if fill is not None:
        constants["v"] = np.float32(fill)
    return _move(
        f"pad-{name}", f"Pad{attributes}(x, p{', v' if fill is not None else ''})", constants=constants, **more
    )


def _resize(name: str, attributes: str, **more: object) -> Case:
    constants = {"s": np.array([1, 1, 2, 2], np.float32)}
    return _move(f"resize-{name}", f"Resize<{attributes}>(x, , s)", constants=constants, **more)


def _split(opset: int) -> str:
    even = "<axis=1,num_outputs=2>" if opset >= 18 else "<axis=1>"
    return f"y, q = Split{even}(x)\nz = LeakyRelu(q)"


def _concat(name: str, body: str, **more: object) -> Case:
    return Case(name=f"concat-{name}", body=body, **more)


_NARROW = Uniform(shape=(1, 2, 6, 6), lo=-0.1, hi=0.1)
_WIDE = Uniform(shape=(1, 2, 6, 6), lo=-5.0, hi=5.0)

CASES = (
    _move("transpose", "Transpose<perm=[0,2,3,1]>(x)"),
    _move("transpose-default", "Transpose(x)", (3, 5)),
    _move("reshape", "Reshape(x, s)", constants={"s": _ints(1, -1, 6)}),
    _move("flatten", "Flatten(x)"),
    Case(
        name="flatten-dynamic",
        body="y = Flatten(x)\nz = LeakyRelu(y)",
        inputs={"x": Uniform(shape=(2, 4, 3, 3), dynamic=4)},
        outputs=("y", "z"),
    ),
    Case(
        name="flatten-kept",
        body="y = Flatten(x)\nz = LeakyRelu(y)",
        outputs=("y", "z"),
        simplify=False,  # the canonical form has Reshape instead
    ),
    _move("flatten-axis-0", "Flatten<axis=0>(x)"),
    _move("squeeze", "Squeeze(x, a)", (1, 4, 1, 6), {"a": _ints(0, 2)}),
    _move("squeeze-all", "Squeeze(x)", (1, 4, 1, 6)),
    _move("unsqueeze", "Unsqueeze(x, a)", (3, 5), {"a": _ints(0, -1)}),
    _move("expand", "Expand(x, s)", (4, 1, 3), {"s": _ints(2, 4, 5, 3)}),
    _move("tile", "Tile(x, r)", (2, 3), {"r": _ints(2, 3)}),
    _move("depthtospace-dcr", "DepthToSpace<blocksize=2>(x)"),
    _move("depthtospace-crd", 'DepthToSpace<blocksize=2,mode="CRD">(x)'),
    _move("spacetodepth", "SpaceToDepth<blocksize=2>(x)"),
    _move("slice", "Slice(x, b, e)", constants={"b": _ints(0, 1), "e": _ints(1, 3)}),
    _move(
        "slice-steps",
        "Slice(x, b, e, a, s)",
        constants={"b": _ints(5, 0), "e": _ints(-10, 6), "a": _ints(2, 3), "s": _ints(-1, 2)},
    ),
    Case(name="split-even", body=_split, outputs=("y", "z")),
    Case(
        name="split-sizes",
        body="y, q, r = Split<axis=1>(x, k)\nz = LeakyRelu(q)",
        constants={"k": _ints(1, 2, 1)},
        outputs=("y", "z", "r"),
    ),
    Case(
        name="split-unused-output",
        body="y, q, r = Split<axis=1>(x, k)\nz = LeakyRelu(q)",
        constants={"k": _ints(1, 2, 1)},
        outputs=("y", "z"),
    ),
    _pad("constant", "", fill=0.0),
    _pad("constant-default", ""),
    _pad("constant-fill", "", fill=0.5, stays_float=("Pad",)),
    _pad("reflect", '<mode="reflect">'),
    _pad("edge", '<mode="edge">'),
    _move(
        "pad-axes",
        "Pad(x, p, , a)",
        constants={"p": _ints(1, 2), "a": _ints(3)},
        opsets=(18, 21),
    ),
    _resize("nearest", 'mode="nearest"'),
    _resize("nearest-asymmetric", 'mode="nearest",coordinate_transformation_mode="asymmetric",nearest_mode="floor"'),
    _resize("nearest-corners", 'mode="nearest",coordinate_transformation_mode="align_corners"'),
    _resize("linear", 'mode="linear"', stays_float=("Resize",)),
    _resize("cubic", 'mode="cubic"', stays_float=("Resize",)),
    _move("resize-sizes", 'Resize<mode="nearest">(x, , , s)', constants={"s": _ints(1, 4, 9, 4)}),
    _move("gather-activation", "Gather<axis=1>(x, i)", constants={"i": _ints(2, 0, 2)}),
    _move("gather-scalar-index", "Gather<axis=2>(x, i)", constants={"i": np.int64(3)}),
    Case(
        name="gather-table",
        body="y = Gather(t, i)",
        inputs={"i": np.array([[3, 0, 7], [1, 1, 9]], np.int64)},
        constants={"t": (10, 6)},
    ),
    Case(
        name="gather-table-axis-1",
        body="y = Gather<axis=1>(t, i)",
        inputs={"i": np.array([3, 0, 5], np.int64)},
        constants={"t": (10, 6)},
        stays_float=("Gather",),
    ),
    Case(
        name="gather-table-row-of-zeros",
        body="y = Gather(t, i)",
        inputs={"i": np.array([3, 0, 1], np.int64)},
        constants={"t": np.concatenate([np.zeros((2, 6)), np.full((3, 6), 0.7)]).astype(np.float32)},
    ),
    _concat("2-equal", "y = Concat<axis=1>(a, b)", inputs={"a": _WIDE, "b": _WIDE}),
    _concat("2-different", "y = Concat<axis=-1>(a, b)", inputs={"a": _WIDE, "b": _NARROW}),
    _concat("3", "y = Concat<axis=1>(a, b, c)", inputs={"a": _WIDE, "b": _NARROW, "c": _WIDE}),
    _concat("itself", "y = Concat<axis=1>(a, a)", inputs={"a": _WIDE}),
    _concat("constant", "y = Concat<axis=1>(a, k)", inputs={"a": _WIDE}, constants={"k": (1, 3, 6, 6)}),
    _concat(
        "relu-and-not",
        "c = Conv(x, w)\nr = Relu(c)\nd = Conv(x, v)\ny = Concat<axis=1>(r, d)",
        constants={"w": (3, 4, 3, 3), "v": (2, 4, 3, 3)},
    ),
    _concat(
        "relu-twice",
        "c = Conv(x, w)\nr = Relu(c)\nd = Conv(x, v)\ns = Relu(d)\ny = Concat<axis=1>(r, s)",
        constants={"w": (3, 4, 3, 3), "v": (2, 4, 3, 3)},
    ),
    _concat(
        "relu-and-clip",
        "c = Conv(x, w)\nr = Relu(c)\nd = Conv(x, v)\ns = Clip(d, l, h)\ny = Concat<axis=1>(r, s)",
        constants={"w": (3, 4, 3, 3), "v": (2, 4, 3, 3), "l": np.float32(0), "h": np.float32(1)},
    ),
    Case(
        name="movement-chain",
        body="c = Conv(x, w)\nt = Transpose<perm=[0,2,3,1]>(c)\nr = Reshape(t, s)\ny = MatMul(r, v)",
        constants={"w": (5, 4, 3, 3), "s": _ints(1, 16, 5), "v": (5, 7)},
    ),
)

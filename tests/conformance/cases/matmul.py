"""MatMul of all ranks and Gemm in all its forms."""

import numpy as np
from conformance.case import Case, Uniform

_DEAD = np.random.default_rng(3).normal(0, 0.5, (8, 6)).astype(np.float32)
_DEAD[:, 2] = 0.0


def _matmul(name: str, left: tuple[int, ...], right: tuple[int, ...]) -> Case:
    return Case(name=f"matmul-{name}", body="y = MatMul(x, w)", inputs={"x": left}, constants={"w": right})


def _product(name: str, left: tuple[int, ...], right: tuple[int, ...]) -> Case:
    return Case(name=f"matmul-product-{name}", body="y = MatMul(a, b)", inputs={"a": left, "b": right})


def _gemm(name: str, attributes: str, w: tuple[int, ...], bias: tuple[int, ...] | None, **more: object) -> Case:
    constants = {"w": w, **({"b": bias} if bias is not None else {})}
    body = f"y = Gemm{attributes}(x, w{', b' if bias is not None else ''})"
    return Case(name=f"gemm-{name}", body=body, inputs={"x": (3, 8)}, constants=constants, **more)


CASES = (
    _matmul("1-2", (8,), (8, 6)),
    _matmul("2-2", (5, 8), (8, 6)),
    _matmul("3-2", (2, 5, 8), (8, 6)),
    _matmul("4-2", (2, 3, 5, 8), (8, 6)),
    _matmul("3-3", (2, 5, 8), (2, 8, 6)),
    _matmul("4-3", (2, 3, 5, 8), (3, 8, 6)),
    _matmul("2-3", (5, 8), (2, 8, 6)),
    _matmul("2-1", (5, 8), (8,)),
    _matmul("one-column", (5, 8), (8, 1)),
    Case(
        name="matmul-constant-left",
        body="y = MatMul(w, x)",
        inputs={"x": (8, 5)},
        constants={"w": (6, 8)},
        stays_float=("MatMul",),
    ),
    _product("2-2", (5, 8), (8, 6)),
    _product("4-4", (2, 3, 5, 8), (2, 3, 8, 5)),
    _product("broadcast", (2, 3, 5, 8), (8, 6)),
    Case(name="matmul-square", body="y = MatMul(x, x)", inputs={"x": (2, 6, 6)}),
    Case(
        name="matmul-add-rank-2",
        body="m = MatMul(x, w)\ny = Add(m, b)",
        inputs={"x": (5, 8)},
        constants={"w": (8, 6), "b": (6,)},
    ),
    Case(
        name="matmul-add-rank-3",
        body="m = MatMul(x, w)\ny = Add(b, m)",
        inputs={"x": (2, 5, 8)},
        constants={"w": (8, 6), "b": (6,)},
    ),
    Case(
        name="matmul-relu",
        body="m = MatMul(x, w)\ny = Relu(m)",
        inputs={"x": (2, 5, 8)},
        constants={"w": (8, 6)},
    ),
    Case(
        name="matmul-sigmoid",
        body="m = MatMul(x, w)\ny = Sigmoid(m)",
        inputs={"x": (2, 5, 8)},
        constants={"w": (8, 6)},
    ),
    Case(
        name="matmul-add-dynamic-batch",
        body="m = MatMul(x, w)\ns = Add(m, b)\ny = Sigmoid(s)",
        inputs={"x": Uniform(shape=(2, 5, 8), dynamic=2)},
        constants={"w": (8, 6), "b": (6,)},
    ),
    Case(name="matmul-zero-column", body="y = MatMul(x, w)", inputs={"x": (5, 8)}, constants={"w": _DEAD}),
    Case(
        name="matmul-zero-input",
        body="y = MatMul(x, w)",
        inputs={"x": np.zeros((5, 8), np.float32)},
        constants={"w": (8, 6)},
        least_db=-np.inf,
    ),
    Case(
        name="matmul-infinite-weight",
        body="y = MatMul(x, w)",
        inputs={"x": Uniform(shape=(5, 4), lo=0.5, hi=1.0)},
        constants={"w": np.full((4, 3), -np.inf, np.float32)},
        stays_float=("MatMul",),
        least_db=-np.inf,
    ),
    _gemm("plain", "", (8, 6), (6,)),
    _gemm("no-bias", "", (8, 6), None),
    _gemm("transB", "<transB=1>", (6, 8), (6,)),
    _gemm("transB-no-bias", "<transB=1>", (6, 8), None),
    _gemm("bias-1-n", "<transB=1>", (6, 8), (1, 6)),
    _gemm("bias-scalar", "", (8, 6), ()),
    _gemm("bias-one", "", (8, 6), (1,)),
    _gemm("bias-m-n", "", (8, 6), (3, 6), stays_float=("Gemm",)),
    _gemm("bias-m-1", "", (8, 6), (3, 1), stays_float=("Gemm",)),
    _gemm("alpha-beta", "<alpha=0.5,beta=2.0>", (8, 6), (6,)),
    _gemm("alpha-no-bias", "<alpha=0.5,transB=1>", (6, 8), None),
    _gemm("beta-scalar-bias", "<beta=0.25>", (8, 6), ()),
    Case(
        name="gemm-transA",
        body="y = Gemm<transA=1>(x, w, b)",
        inputs={"x": (8, 3)},
        constants={"w": (8, 6), "b": (6,)},
        stays_float=("Gemm",),
    ),
    Case(
        name="gemm-product",
        body="y = Gemm(a, b)",
        inputs={"a": (3, 8), "b": (8, 6)},
        stays_float=("Gemm",),
    ),
    Case(
        name="gemm-relu",
        body="g = Gemm(x, w, b)\ny = Relu(g)",
        inputs={"x": (3, 8)},
        constants={"w": (8, 6), "b": (6,)},
    ),
    Case(
        name="gemm-zero-column",
        body="y = Gemm(x, w, b)",
        inputs={"x": (3, 8)},
        constants={"w": _DEAD, "b": (6,)},
    ),
    Case(
        name="gemm-bias-overflows",
        body="y = Gemm(x, w, b)",
        inputs={"x": (3, 8)},
        constants={"w": (8, 4), "b": np.array([1e6, -1e6, 0.5, 0.0], np.float32)},
    ),
    Case(
        name="gemm-gemm",
        body="h = Gemm(x, w, b)\nr = Relu(h)\ny = Gemm<transB=1>(r, v, c)",
        inputs={"x": (3, 8)},
        constants={"w": (8, 6), "b": (6,), "v": (5, 6), "c": (5,)},
    ),
)

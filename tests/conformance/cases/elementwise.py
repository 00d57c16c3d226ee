"""Add, Sub, Mul, Div and Where: same shapes, broadcasting both ways, constants on either side."""

import numpy as np
from conformance.case import Case, Uniform

_AWAY_FROM_ZERO = Uniform(shape=(2, 4, 3, 5), lo=1.0, hi=4.0)
_POSITIVE = np.random.default_rng(5).uniform(1.0, 3.0, (4, 1, 1)).astype(np.float32)


def _binary(op: str) -> tuple[Case, ...]:
    def case(name: str, a: tuple[int, ...], b: tuple[int, ...]) -> Case:
        divisor = Uniform(shape=b, lo=1.0, hi=4.0)
        return Case(name=f"{op.lower()}-{name}", body=f"y = {op}(a, b)", inputs={"a": a, "b": divisor})

    return (
        case("same-shape", (2, 4, 3, 5), (2, 4, 3, 5)),
        case("broadcast-right", (2, 4, 3, 5), (4, 1, 1)),
        case("broadcast-left", (3, 5), (2, 4, 3, 5)),
        case("broadcast-both", (2, 4, 1, 5), (1, 4, 3, 1)),
        Case(name=f"{op.lower()}-constant-right", body=f"y = {op}(x, k)", constants={"k": _POSITIVE}),
        Case(
            name=f"{op.lower()}-constant-left",
            body=f"y = {op}(k, x)",
            inputs={"x": _AWAY_FROM_ZERO},
            constants={"k": _POSITIVE},
        ),
        Case(name=f"{op.lower()}-scalar", body=f"y = {op}(x, k)", constants={"k": np.float32(1.5)}),
        Case(name=f"{op.lower()}-itself", body=f"y = {op}(x, x)", inputs={"x": _AWAY_FROM_ZERO}),
    )


_CONDITION = np.random.default_rng(9).integers(0, 2, (2, 4, 3, 5)).astype(bool)

CASES = (
    *(c for op in ("Add", "Sub", "Mul", "Div") for c in _binary(op)),
    Case(name="max-of-two", body="y = Max(a, b)", inputs={"a": (2, 4, 3, 5), "b": (2, 4, 3, 5)}),
    Case(name="max-broadcast", body="y = Max(a, b)", inputs={"a": (2, 4, 3, 5), "b": (4, 1, 1)}),
    Case(
        name="max-of-a-relu-and-others",
        body="c = Conv(x, w)\nr = Relu(c)\nm = Conv(x, v)\ny = Max(r, m)",
        constants={"w": (4, 4, 1, 1), "v": (4, 4, 1, 1)},
    ),
    Case(name="add-relu", body="s = Add(a, b)\ny = Relu(s)", inputs={"a": (2, 3, 4), "b": (2, 3, 4)}),
    Case(name="add-negative-constant", body="y = Add(x, k)", constants={"k": np.float32(-0.75)}),
    Case(
        name="add-zeros",
        body="y = Add(a, b)",
        inputs={"a": np.zeros((2, 3), np.float32), "b": np.zeros((2, 3), np.float32)},
    ),
    Case(
        name="add-mask-constant",
        body="y = Add(x, k)",
        inputs={"x": (2, 3)},
        constants={"k": np.array([0.0, -3e38, 0.0], np.float32)},
        stays_float=("Add",),
        least_db=-np.inf,
    ),
    Case(
        name="mul-different-ranges",
        body="y = Mul(a, b)",
        inputs={"a": Uniform(shape=(3, 8), lo=-100, hi=100), "b": Uniform(shape=(3, 8), lo=0, hi=0.01)},
    ),
    Case(
        name="add-residual",
        body="c = Conv<pads=[1,1,1,1]>(x, w)\ns = Add(c, x)\ny = Relu(s)",
        constants={"w": (4, 4, 3, 3)},
    ),
    Case(
        name="where-activations",
        body="y = Where(k, a, b)",
        inputs={"a": (2, 4, 3, 5), "b": Uniform(shape=(2, 4, 3, 5), lo=0, hi=1)},
        constants={"k": _CONDITION},
    ),
    Case(
        name="where-constant",
        body="y = Where(k, x, v)",
        inputs={"x": (2, 4, 3, 5)},
        constants={"k": _CONDITION, "v": np.float32(-1.0)},
    ),
    Case(
        name="where-computed-condition",
        body="k = Equal(i, j)\ny = Where(k, a, v)",
        inputs={"i": np.arange(20).reshape(4, 5) % 3, "a": (4, 5)},
        constants={"j": np.int64(1), "v": np.float32(0.25)},
        stays_float=("Equal",),
    ),
)

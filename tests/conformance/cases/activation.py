"""Activation functions, alone and behind an integer operator."""

import numpy as np
from conformance.case import Case


def _unary(op: str, attributes: str = "", **more: object) -> tuple[Case, ...]:
    name = op.lower()
    return (
        Case(name=f"{name}-alone", body=f"y = {op}{attributes}(x)", **more),
        Case(
            name=f"{name}-behind-conv",
            body=f"c = Conv(x, w)\ny = {op}{attributes}(c)",
            constants={"w": (5, 4, 3, 3)},
            **more,
        ),
    )


CASES = (
    *_unary("LeakyRelu", "<alpha=0.1>"),
    *_unary("Sigmoid"),
    *_unary("HardSigmoid", "<alpha=0.3,beta=0.4>"),
    *_unary("Tanh"),
    *_unary("Erf"),
    *_unary("HardSwish", opsets=(14, 17, 21)),
    *(
        Case(name=f"softmax-axis{axis}", body=f"y = Softmax<axis={axis}>(x)", inputs={"x": (2, 5, 6)})
        for axis in (-1, 0, 1, 2)
    ),
    Case(name="softmax-default-axis", body="y = Softmax(x)", inputs={"x": (4, 7)}),
    Case(
        name="prelu-channel",
        body="y = PRelu(x, k)",
        constants={"k": np.array([0.1, 0.2, 0.3, -0.1], np.float32).reshape(4, 1, 1)},
    ),
    Case(name="prelu-scalar", body="y = PRelu(x, k)", constants={"k": np.array([0.25], np.float32)}),
    Case(
        name="prelu-computed-slope", body="y = PRelu(x, k)", inputs={"x": (2, 4), "k": (2, 4)}, stays_float=("PRelu",)
    ),
    Case(name="relu-alone", body="y = Relu(x)", stays_float=("Relu",)),
    Case(
        name="clip-alone",
        body="y = Clip(x, l, h)",
        constants={"l": np.float32(0), "h": np.float32(1)},
        stays_float=("Clip",),
    ),
    Case(
        name="clip-above-zero",
        body="c = Conv(x, w)\ny = Clip(c, l, h)",
        constants={"w": (5, 4, 3, 3), "l": np.float32(0.5), "h": np.float32(2)},
        stays_float=("Clip",),
    ),
    Case(
        name="silu",
        body="c = Conv(x, w)\ns = Sigmoid(c)\ny = Mul(c, s)",
        constants={"w": (5, 4, 3, 3)},
    ),
    Case(
        name="relu-behind-mul",
        body="m = Mul(a, b)\ny = Relu(m)",
        inputs={"a": (3, 5), "b": (3, 5)},
    ),
)

"""Conv and ConvTranspose, alone and with the clamps that their range absorbs."""

import numpy as np
from conformance.case import Case, Uniform

# unlike each other: one constant far from everything else would be taken for a mask, and stay float
_BIAS_FAR_TOO_LARGE = np.array([1e6, -1e6, 3e5, 0.0], np.float32)
_DEAD = np.random.default_rng(7).normal(0, 0.5, (4, 4, 3, 3)).astype(np.float32)
_DEAD[1] = 0.0
_TINY = _DEAD.copy()
_TINY[1] = 1e-9


def _conv(
    name: str, attributes: str, weight: tuple[int, ...], x: tuple[int, ...] = (1, 4, 6, 6), *, bias: bool
) -> Case:
    constants = {"w": weight, **({"b": weight[:1]} if bias else {})}
    body = f"y = Conv{attributes}(x, w{', b' if bias else ''})"
    return Case(name=f"conv-{name}{'' if bias else '-no-bias'}", body=body, inputs={"x": x}, constants=constants)


def _transpose(
    name: str, attributes: str, weight: tuple[int, ...], bias: int, x: tuple[int, ...] = (1, 4, 5, 5)
) -> Case:
    constants = {"w": weight, **({"b": (bias,)} if bias else {})}
    body = f"y = ConvTranspose{attributes}(x, w{', b' if bias else ''})"
    return Case(name=f"convtranspose-{name}", body=body, inputs={"x": x}, constants=constants)


def _clamped(name: str, tail: str, **more: object) -> Case:
    constants = {"w": (6, 4, 3, 3), "b": (6,), **more}
    return Case(name=f"conv-{name}", body=f"c = Conv(x, w, b)\n{tail}", constants=constants)


CASES = (
    *(_conv("2d", "", (5, 4, 3, 3), bias=b) for b in (True, False)),
    *(_conv("1d", "<pads=[1,1]>", (5, 4, 3), (2, 4, 9), bias=b) for b in (True, False)),
    _conv("3d", "", (3, 2, 2, 2, 2), (1, 2, 4, 4, 4), bias=True),
    *(_conv("depthwise", "<group=4,pads=[1,1,1,1]>", (4, 1, 3, 3), bias=b) for b in (True, False)),
    _conv("depthwise-multiplier", "<group=4>", (8, 1, 3, 3), bias=True),
    _conv("grouped", "<group=2>", (6, 2, 3, 3), bias=True),
    _conv("dilated", "<dilations=[2,2]>", (5, 4, 3, 3), bias=True),
    _conv("strided", "<strides=[2,2],pads=[1,1,1,1]>", (5, 4, 3, 3), bias=True),
    _conv("asymmetric-pads", "<pads=[0,1,2,1]>", (5, 4, 3, 3), bias=True),
    _conv("same-upper", '<auto_pad="SAME_UPPER",strides=[2,2]>', (5, 4, 3, 3), (1, 4, 7, 7), bias=True),
    _conv("same-lower", '<auto_pad="SAME_LOWER">', (5, 4, 2, 2), bias=True),
    _conv("valid", '<auto_pad="VALID">', (5, 4, 3, 3), bias=True),
    _conv("1x1", "", (9, 4, 1, 1), bias=True),
    Case(name="conv-bias-overflows", body="y = Conv(x, w, b)", constants={"w": (4, 4, 3, 3), "b": _BIAS_FAR_TOO_LARGE}),
    Case(
        name="conv-tiny-channel-bias-overflows",
        body="y = Conv(x, w, b)",
        constants={"w": _TINY, "b": np.array([0.1, 3.0, -0.2, 0.3], np.float32)},
    ),
    Case(
        name="conv-zero-channel",
        body="y = Conv(x, w, b)",
        constants={"w": _DEAD, "b": np.array([0.1, 0.4, -0.2, 0.3], np.float32)},
    ),
    Case(
        name="conv-zero-weight",
        body="y = Conv(x, w, b)",
        constants={"w": np.zeros((3, 4, 1, 1), np.float32), "b": np.array([0.1, 0.4, -0.2], np.float32)},
    ),
    Case(
        name="conv-zero-input",
        body="y = Conv(x, w, b)",
        inputs={"x": np.zeros((1, 4, 6, 6), np.float32)},
        constants={"w": (3, 4, 3, 3), "b": (3,)},
    ),
    Case(
        name="conv-positive-input",
        body="y = Conv<pads=[1,1,1,1]>(x, w)",
        inputs={"x": Uniform(shape=(1, 4, 6, 6), lo=4.0, hi=5.0)},
        constants={"w": (5, 4, 3, 3)},
    ),
    _clamped("relu", "y = Relu(c)"),
    _clamped("clip-0-6", "y = Clip(c, l, h)", l=np.float32(0), h=np.float32(6)),
    _clamped("clip-0-1", "y = Clip(c, l, h)", l=np.float32(0), h=np.float32(1)),
    _clamped("clip-minus-1-1", "y = Clip(c, l, h)", l=np.float32(-1), h=np.float32(1)),
    _clamped("clip-max-only", "y = Clip(c, , h)", h=np.float32(0.5)),
    Case(
        name="conv-dynamic-batch",
        body="c = Conv(x, w, b)\ny = Relu(c)",
        inputs={"x": Uniform(shape=(2, 4, 6, 6), dynamic=1)},
        constants={"w": (5, 4, 3, 3), "b": (5,)},
    ),
    _transpose("2d", "", (4, 3, 3, 3), 3),
    _transpose("no-bias", "", (4, 3, 3, 3), 0),
    _transpose("1d", "<strides=[2]>", (4, 3, 4), 3, (1, 4, 6)),
    _transpose("3d", "", (2, 3, 2, 2, 2), 3, (1, 2, 3, 3, 3)),
    _transpose("grouped", "<group=2>", (4, 3, 3, 3), 6),
    _transpose("depthwise", "<group=4,strides=[2,2]>", (4, 1, 2, 2), 4),
    _transpose("strided", "<strides=[2,2],pads=[1,1,1,1],output_padding=[1,1]>", (4, 3, 3, 3), 3),
    Case(
        name="convtranspose-relu",
        body="c = ConvTranspose<strides=[2,2]>(x, w, b)\ny = Relu(c)",
        constants={"w": (4, 3, 2, 2), "b": (3,)},
    ),
)

"""Pools with all their options, and means."""

from conformance.case import Case


def _pool(op: str, name: str, attributes: str, x: tuple[int, ...] = (1, 3, 7, 7), **more: object) -> Case:
    # MaxPool passes codes on, so it needs an integer neighbour; its own result is an output too
    tail = "\nz = LeakyRelu(y)" if op == "MaxPool" else ""
    return Case(
        name=f"{op.lower()}-{name}",
        body=f"y = {op}<{attributes}>(x){tail}",
        inputs={"x": x},
        outputs=("y", "z") if tail else ("y",),
        **more,
    )


def _mean(axes: str, keepdims: int) -> Case:
    def body(opset: int) -> str:
        if opset < 18:
            return f"y = ReduceMean<axes=[{axes}],keepdims={keepdims}>(x)"
        return f"k = Constant<value_ints=[{axes}]>()\ny = ReduceMean<keepdims={keepdims}>(x, k)"

    return Case(name=f"reducemean-{axes}-keep{keepdims}", body=body, opsets=(13, 17, 18, 21))


def _extreme(op: str, axes: str, keepdims: int) -> Case:
    """Selects values, so it needs an integer neighbour; its own result is an output too."""

    def body(opset: int) -> str:
        if opset < 18:
            return f"y = {op}<axes=[{axes}],keepdims={keepdims}>(x)\nz = LeakyRelu(y)"
        return f"k = Constant<value_ints=[{axes}]>()\ny = {op}<keepdims={keepdims}>(x, k)\nz = LeakyRelu(y)"

    return Case(name=f"{op.lower()}-{axes}-keep{keepdims}", body=body, outputs=("y", "z"), opsets=(13, 17, 18, 21))


CASES = (
    *(_extreme(op, axes, keep) for op in ("ReduceMax", "ReduceMin") for axes in ("2,3", "-1", "1") for keep in (0, 1)),
    _pool("MaxPool", "2x2", "kernel_shape=[2,2],strides=[2,2]"),
    _pool("MaxPool", "1d", "kernel_shape=[2]", (2, 3, 8)),
    _pool("MaxPool", "3d", "kernel_shape=[2,2,2]", (1, 2, 4, 4, 4)),
    _pool("MaxPool", "padded", "kernel_shape=[3,3],strides=[2,2],pads=[1,1,1,1]"),
    _pool("MaxPool", "ceil", "kernel_shape=[3,3],strides=[2,2],ceil_mode=1", (1, 3, 8, 8)),
    _pool("MaxPool", "dilated", "kernel_shape=[2,2],dilations=[2,2]"),
    _pool("MaxPool", "same-upper", 'kernel_shape=[3,3],strides=[2,2],auto_pad="SAME_UPPER"'),
    Case(
        name="maxpool-with-indices",
        body="y, i = MaxPool<kernel_shape=[2,2]>(x)\nf = Cast<to=1>(i)",
        outputs=("y", "f"),
        stays_float=("MaxPool", "Cast"),
    ),
    Case(
        name="maxpool-behind-relu",
        body="c = Conv(x, w)\nr = Relu(c)\nm = MaxPool<kernel_shape=[2,2],pads=[1,1,1,1]>(r)\ny = LeakyRelu(m)",
        constants={"w": (5, 4, 3, 3)},
    ),
    *(
        _pool("AveragePool", f"pad-{include}-ceil-{ceil}", attributes, stays_float=("AveragePool",) * (include * ceil))
        for include in (0, 1)
        for ceil in (0, 1)
        for attributes in [
            f"kernel_shape=[3,3],strides=[2,2],pads=[1,1,1,1],count_include_pad={include},ceil_mode={ceil}"
        ]
    ),
    _pool("AveragePool", "2x2", "kernel_shape=[2,2],strides=[2,2]"),
    _pool("AveragePool", "1d", "kernel_shape=[3]", (2, 3, 8)),
    _pool("AveragePool", "3d", "kernel_shape=[2,2,2]", (1, 2, 4, 4, 4)),
    _pool("AveragePool", "asymmetric-pads", "kernel_shape=[3,3],pads=[0,1,1,0]"),
    _pool("AveragePool", "same-lower", 'kernel_shape=[3,3],strides=[2,2],auto_pad="SAME_LOWER"'),
    _pool(
        "AveragePool", "dilated", "kernel_shape=[2,2],dilations=[2,2]", opsets=(19, 21), stays_float=("AveragePool",)
    ),
    _pool("AveragePool", "trivially-dilated", "kernel_shape=[2,2],dilations=[1,1]", opsets=(19, 21)),
    Case(name="globalaveragepool-2d", body="y = GlobalAveragePool(x)"),
    Case(name="globalaveragepool-1d", body="y = GlobalAveragePool(x)", inputs={"x": (2, 3, 8)}),
    Case(name="globalaveragepool-3d", body="y = GlobalAveragePool(x)", inputs={"x": (1, 3, 3, 3, 3)}),
    Case(
        name="globalaveragepool-gemm",
        body="c = Conv(x, w)\nr = Relu(c)\ng = GlobalAveragePool(r)\nf = Flatten(g)\ny = Gemm(f, v, b)",
        constants={"w": (5, 4, 3, 3), "v": (5, 3), "b": (3,)},
    ),
    _mean("2,3", 1),
    _mean("2,3", 0),
    _mean("1", 1),
    _mean("-1", 0),
)

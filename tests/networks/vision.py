"""Convolution nets as the common families of image models have them."""

from __future__ import annotations

import numpy as np
from networks.builder import FLOAT, Builder, Network, network


def _mobilenet(opset: int) -> Network:
    b = Builder(opset=opset)
    x = b.input("image", ["batch", 3, 16, 16])
    x = b.relu6(b.batchnorm(b.conv(x, 3, 8, stride=2, bias=False), 8))
    c = 8
    for out, stride in ((8, 1), (16, 2), (16, 1)):
        y = b.relu6(b.batchnorm(b.conv(x, c, 4 * c, 1, bias=False), 4 * c))
        y = b.relu6(b.batchnorm(b.conv(y, 4 * c, 4 * c, stride=stride, group=4 * c, bias=False), 4 * c))
        y = b.batchnorm(b.conv(y, 4 * c, out, 1, bias=False), out)
        x = b.node("Add", x, y) if stride == 1 and out == c else y
        c = out
    b.output(b.head(b.relu6(b.conv(x, c, 32, 1)), 32), ["batch", 10])
    return Network(proto=b.model(), feeds=b.feeds(), quantized=("Conv", "Clip", "Add", "Gemm"))


@network
def mobilenet_v2() -> Network:
    """Inverted residuals, Relu6 as Clip with bounds in Constant nodes."""
    return _mobilenet(17)


@network
def mobilenet_v2_opset9() -> Network:
    """The same with Clip's bounds as attributes."""
    return _mobilenet(9)


@network
def densenet() -> Network:
    b = Builder(seed=1)
    x = b.conv(b.input("image", [1, 3, 16, 16]), 3, 16, bias=False)
    features, c = [x], 16
    for _ in range(3):
        y = b.node("Concat", *features, axis=1) if len(features) > 1 else features[0]
        y = b.conv(b.relu(b.batchnorm(y, c)), c, 16, 1, bias=False)
        features.append(b.conv(b.relu(b.batchnorm(y, 16)), 16, 8, bias=False))
        c += 8
    y = b.relu(b.batchnorm(b.node("Concat", *features, axis=1), c))
    y = b.node("AveragePool", b.conv(y, c, 16, 1, bias=False), kernel_shape=[2, 2], strides=[2, 2])
    b.output(b.head(b.relu(b.batchnorm(y, 16)), 16), [1, 10])
    return Network(proto=b.model(), feeds=b.feeds(), quantized=("Conv", "Concat"))


@network
def concat_of_concat() -> Network:
    """Two clamped branches joined, and joined with an unclamped one: one scale for all would undo the clamps."""
    b = Builder(seed=3)
    stem = b.conv(b.input("image", [1, 3, 16, 16]), 3, 16)
    clamped = b.node("Concat", b.relu(b.conv(stem, 16, 8)), b.relu(b.conv(stem, 16, 8)), axis=1)
    y = b.node("Concat", clamped, b.conv(stem, 16, 8), axis=1)
    b.output(b.head(b.conv(y, 24, 16), 16), [1, 10])
    return Network(proto=b.model(), feeds=b.feeds(), quantized=("Conv", "Concat"))


@network
def resnet() -> Network:
    b = Builder(seed=2)
    x = b.relu(b.batchnorm(b.conv(b.input("image", [1, 3, 16, 16]), 3, 8, bias=False), 8))
    x = b.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    for i, o, s in ((8, 8, 1), (8, 16, 2)):
        y = b.relu(b.batchnorm(b.conv(x, i, o, stride=s, bias=False), o))
        y = b.batchnorm(b.conv(y, o, o, bias=False), o)
        skip = x if i == o else b.batchnorm(b.conv(x, i, o, 1, stride=s, bias=False), o)
        x = b.relu(b.node("Add", y, skip))
    b.output(b.head(x, 16), [1, 10])
    return Network(
        proto=b.model(), feeds=b.feeds(), quantized=("Conv", "Add", "Relu", "MaxPool", "GlobalAveragePool", "Gemm")
    )


@network
def preactivation_resnet() -> Network:
    b = Builder(seed=3)
    x = b.conv(b.input("image", [1, 3, 16, 16]), 3, 8)
    for _ in range(2):
        y = b.conv(b.relu(b.batchnorm(x, 8)), 8, 8, bias=False)
        y = b.conv(b.relu(b.batchnorm(y, 8)), 8, 8, bias=False)
        x = b.node("Add", x, y)
    b.output(b.head(b.relu(b.batchnorm(x, 8)), 8), [1, 10])
    return Network(proto=b.model(), feeds=b.feeds(), quantized=("Conv",))


@network
def squeezenet() -> Network:
    b = Builder(seed=4)
    x = b.relu(b.conv(b.input("image", [1, 3, 16, 16]), 3, 16, stride=2))
    c = 16
    for _ in range(2):
        s = b.relu(b.conv(x, c, 8, 1))
        x = b.node("Concat", b.relu(b.conv(s, 8, 16, 1)), b.relu(b.conv(s, 8, 16)), axis=1)
        c = 32
        x = b.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)
    x = b.node("Dropout", x)
    x = b.node("GlobalAveragePool", b.relu(b.conv(x, c, 10, 1)))
    b.output(b.node("Reshape", x, b.ints(0, -1), out="scores"), [1, 10])
    return Network(proto=b.model(), feeds=b.feeds(), quantized=("Conv", "Concat", "MaxPool"))


def _unet(opset: int, up: str) -> Network:
    b = Builder(seed=5, opset=opset)
    x = b.input("image", ["n", 1, 16, 16])
    skip = b.relu(b.conv(x, 1, 8))
    y = b.node("MaxPool", skip, kernel_shape=[2, 2], strides=[2, 2])
    y = b.relu(b.conv(y, 8, 16))
    scales = np.asarray([1, 1, 2, 2], np.float32)
    if up == "ConvTranspose":
        y = b.node(
            "ConvTranspose", y, b.weight(16, 16, 2, 2, fan_in=16), b.vector(16), kernel_shape=[2, 2], strides=[2, 2]
        )
    elif up == "Resize":
        y = b.node(
            "Resize",
            y,
            "",
            b.constant_node(scales),
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )
    elif up == "linear":
        y = b.node("Resize", y, "", b.const(scales), mode="linear", coordinate_transformation_mode="half_pixel")
    elif opset < 9:
        y = b.node("Upsample", y, mode="nearest", scales=scales.tolist())
    else:
        y = b.node("Upsample", y, b.const(scales), mode="nearest")
    y = b.node("Concat", skip, y, axis=1)
    y = b.relu(b.conv(y, 24, 8))
    b.output(b.conv(y, 8, 2, 1, out="mask"), ["n", 2, 16, 16])
    return Network(proto=b.model(), feeds=b.feeds(), quantized=("Conv", "MaxPool"))


@network
def unet_convtranspose() -> Network:
    return _unet(17, "ConvTranspose")


@network
def unet_resize_nearest() -> Network:
    return _unet(13, "Resize")


@network
def unet_resize_linear() -> Network:
    return _unet(18, "linear")


@network
def unet_upsample_opset7() -> Network:
    return _unet(7, "Upsample")


@network
def unet_upsample_opset8() -> Network:
    return _unet(8, "Upsample")


@network
def unet_upsample_opset9() -> Network:
    return _unet(9, "Upsample")


@network
def ssd() -> Network:
    """Two heads, boxes decoded with Exp, scores with Sigmoid, NonMaxSuppression at the end."""
    b = Builder(seed=6, opset=12)
    x = b.relu(b.conv(b.input("image", [1, 3, 32, 32]), 3, 8, stride=2))
    maps = [b.relu(b.conv(x, 8, 16, stride=2))]
    maps.append(b.relu(b.conv(maps[0], 16, 16, stride=2)))
    boxes, scores = [], []
    for m in maps:
        for width, found in ((4, boxes), (3, scores)):
            h = b.node("Transpose", b.conv(m, 16, 2 * width), perm=[0, 2, 3, 1])
            found.append(b.node("Reshape", h, b.ints(1, -1, width)))
    raw = b.node("Concat", *boxes, axis=1)
    n = 2 * (64 + 16)
    centre = b.node("Slice", raw, b.ints(0), b.ints(2), b.ints(2))
    size = b.node("Slice", raw, b.ints(2), b.ints(4), b.ints(2))
    anchors = b.const(b.rng.random((1, n, 2)).astype(np.float32))
    centre = b.node("Add", b.node("Mul", centre, b.const(np.float32(0.1))), anchors)
    half = b.node("Mul", b.node("Exp", b.node("Mul", size, b.const(np.float32(0.2)))), b.const(np.float32(0.05)))
    decoded = b.node("Concat", b.node("Sub", centre, half), b.node("Add", centre, half), axis=2, out="boxes")
    b.output(decoded, [1, n, 4])
    probability = b.node("Sigmoid", b.node("Concat", *scores, axis=1), out="scores")
    b.output(probability, [1, n, 3])
    by_class = b.node("Transpose", probability, perm=[0, 2, 1])
    limit, iou, least = b.ints(5), b.const(np.asarray([0.5], np.float32)), b.const(np.asarray([0.3], np.float32))
    b.output(b.node("NonMaxSuppression", decoded, by_class, limit, iou, least, out="selected"), ["k", 3], 7)
    return Network(proto=b.model(), feeds=b.feeds(), quantized=("Conv",))


@network
def yolo() -> Network:
    """SiLU as Sigmoid and Mul, C2f with Split and Concat, SPPF, nearest Resize."""
    b = Builder(seed=7, opset=13)

    def silu(x: str) -> str:
        return b.node("Mul", x, b.node("Sigmoid", x))

    x = silu(b.conv(b.input("images", [1, 3, 32, 32]), 3, 8, stride=2))
    x = silu(b.conv(x, 8, 16, stride=2))
    left, right = b.nodes_out("Split", x, b.ints(8, 8), outs=["left", "right"], axis=1)
    y = silu(b.conv(silu(b.conv(right, 8, 8)), 8, 8))
    p3 = silu(b.conv(b.node("Concat", left, right, b.node("Add", right, y), axis=1), 24, 16, 1))
    x = silu(b.conv(p3, 16, 16, stride=2))
    pools = [silu(b.conv(x, 16, 8, 1))]
    for _ in range(3):
        pools.append(b.node("MaxPool", pools[-1], kernel_shape=[5, 5], pads=[2] * 4, strides=[1, 1]))
    p4 = silu(b.conv(b.node("Concat", *pools, axis=1), 32, 16, 1))
    up = b.node(
        "Resize",
        p4,
        "",
        b.const(np.asarray([1, 1, 2, 2], np.float32)),
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )
    p3 = silu(b.conv(b.node("Concat", up, p3, axis=1), 32, 16))
    flat = [b.node("Reshape", b.conv(p, 16, 7, 1), b.ints(1, 7, -1)) for p in (p3, p4)]
    joint = b.node("Concat", *flat, axis=2)
    box, score = b.nodes_out("Split", joint, b.ints(4, 3), outs=["box", "class"], axis=1)
    b.output(
        b.node("Concat", b.node("Mul", box, b.const(np.float32(8))), b.node("Sigmoid", score), axis=1, out="output0"),
        [1, 7, 80],
    )
    return Network(proto=b.model(), feeds=b.feeds(), quantized=("Conv",))


def _squeeze_excite(opset: int, fused: bool) -> Network:
    b = Builder(seed=8, opset=opset)

    def hardswish(x: str) -> str:
        if fused:
            return b.node("HardSwish", x)
        return b.node("Mul", x, b.node("HardSigmoid", x, alpha=1 / 6, beta=0.5))

    x = hardswish(b.conv(b.input("image", [1, 3, 16, 16]), 3, 16, stride=2))
    for _ in range(2):
        y = hardswish(b.conv(x, 16, 32, 1))
        y = hardswish(b.conv(y, 32, 32, group=32))
        gate = b.relu(b.conv(b.node("GlobalAveragePool", y), 32, 8, 1))
        gate = b.node("HardSigmoid", b.conv(gate, 8, 32, 1), alpha=1 / 6, beta=0.5)
        x = b.node("Add", x, b.conv(b.node("Mul", y, gate), 32, 16, 1))
    b.output(b.head(x, 16), [1, 10])
    return Network(proto=b.model(), feeds=b.feeds(), quantized=("Conv",))


@network
def squeeze_excite() -> Network:
    return _squeeze_excite(11, fused=False)


@network
def squeeze_excite_hardswish() -> Network:
    return _squeeze_excite(14, fused=True)


@network
def keras() -> Network:
    """tf2onnx: NHWC at the ends, Pad before Conv, ReduceMean for pooling, no node has a name."""
    b = Builder(seed=9, opset=12, named=False)
    x = b.node("Transpose", b.input("input_1:0", ["unk__1", 17, 17, 3]), perm=[0, 3, 1, 2])
    pads = b.const(np.asarray([0, 0, 0, 0, 0, 0, 1, 1], np.int64))
    x = b.conv(b.node("Pad", x, pads), 3, 8, stride=2, pad=0)
    x = b.relu6(b.batchnorm(x, 8))
    x = b.node("Conv", x, b.weight(8, 1, 3, 3), group=8, auto_pad="SAME_UPPER", kernel_shape=[3, 3], strides=[1, 1])
    x = b.relu6(b.node("Add", x, b.const((0.1 * b.rng.standard_normal((1, 8, 1, 1))).astype(np.float32))))
    x = b.node("ReduceMean", x, axes=[2, 3], keepdims=0)
    y = b.matmul(x, 8, 10)
    b.output(b.node("Softmax", y, axis=1, out="Identity:0"), ["unk__2", 10])
    return Network(proto=b.model(), feeds=b.feeds(), quantized=("Conv",))


@network
def nhwc_output() -> Network:
    """A segmentation net with NHWC input and output."""
    b = Builder(seed=10)
    x = b.node("Transpose", b.input("image", [1, 8, 8, 3]), perm=[0, 3, 1, 2])
    x = b.conv(b.relu(b.conv(x, 3, 8)), 8, 4)
    b.output(b.node("Transpose", x, perm=[0, 2, 3, 1], out="mask"), [1, 8, 8, 4])
    return Network(proto=b.model(), feeds=b.feeds(), quantized=("Conv",))


@network
def batchnorm_first() -> Network:
    """Input normalisation as BatchNormalization, before an unpadded and before a padded convolution."""
    b = Builder(seed=11)
    x = b.input("image", [1, 3, 12, 12])
    one = b.conv(b.batchnorm(x, 3), 3, 8, pad=0)
    two = b.conv(b.batchnorm(x, 3), 3, 8)
    b.output(b.node("Add", b.head(one, 8, out="one"), b.head(two, 8, out="two"), out="sum"), [1, 10])
    return Network(proto=b.model(), feeds=b.feeds(), quantized=("Conv",))


@network
def depth_to_space() -> Network:
    """Super-resolution, with a residual path from the image."""
    b = Builder(seed=12)
    image = b.input("image", [1, 1, 8, 8])
    x = b.relu(b.conv(image, 1, 16, 5))
    x = b.node("DepthToSpace", b.conv(x, 16, 4), blocksize=2)
    up = b.node("Resize", image, "", b.const(np.asarray([1, 1, 2, 2], np.float32)), mode="linear")
    b.output(b.node("Add", x, up, out="large"), [1, 1, 16, 16], FLOAT)
    return Network(proto=b.model(), feeds=b.feeds(), quantized=("Conv",))


@network
def shuffle_and_leaky() -> Network:
    """Channel shuffle (Reshape, Transpose, Reshape), grouped convolutions, LeakyRelu and PRelu."""
    b = Builder(seed=13)
    x = b.node("LeakyRelu", b.conv(b.input("image", [1, 4, 8, 8]), 4, 16), alpha=0.1)
    x = b.conv(x, 16, 16, group=4)
    x = b.node("Reshape", x, b.ints(1, 4, 4, 8, 8))
    x = b.node("Reshape", b.node("Transpose", x, perm=[0, 2, 1, 3, 4]), b.ints(1, 16, 8, 8))
    slope = b.const(np.full((16, 1, 1), 0.25, np.float32))
    x = b.node("PRelu", b.conv(x, 16, 16, group=2), slope)
    b.output(b.head(x, 16), [1, 10])
    return Network(proto=b.model(), feeds=b.feeds(), quantized=("Conv",))


@network
def split_with_unused_part() -> Network:
    """Split of which only the second part is read, between convolutions; MaxPool with its indices unused."""
    b = Builder(seed=14)
    x = b.relu(b.conv(b.input("image", [1, 3, 8, 8]), 3, 8))
    b.nodes_out("Split", x, b.ints(2, 6), outs=["unread", "read"], axis=1)
    b.nodes_out("MaxPool", b.relu(b.conv("read", 6, 8)), outs=["pooled", "places"], kernel_shape=[2, 2], strides=[2, 2])
    b.output(b.head(b.conv("pooled", 8, 8), 8), [1, 10])
    return Network(proto=b.model(), feeds=b.feeds(), quantized=("Conv",))

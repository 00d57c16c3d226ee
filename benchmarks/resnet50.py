"""A network with the shapes of ResNet-50 and random weights, for measurements of time and memory.

Source of the shapes: He et al. 2016, arXiv:1512.03385, table 1 (stride in the 3x3 convolution, as torchvision has it).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))


class _Net:
    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def node(self, op: str, inputs: list[str], **attributes: object) -> str:
        name = f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [f"{name}_y"], name=name, **attributes))
        return f"{name}_y"

    def constant(self, array: np.ndarray) -> str:
        name = f"w_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array.astype(np.float32), name))
        return name

    def conv(self, x: str, cin: int, cout: int, kernel: int, stride: int = 1, gain: float = 2.0) -> str:
        w = self.random.normal(0, np.sqrt(gain / (cin * kernel * kernel)), (cout, cin, kernel, kernel))
        b = self.random.normal(0, 0.1, cout)
        pad = kernel // 2
        return self.node(
            "Conv",
            [x, self.constant(w), self.constant(b)],
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[pad] * 4,
        )


def write_resnet50(path: Path, *, size: int = 224, batch: str | int = "batch", seed: int = 0) -> None:
    """Write the network to ``path``: input [batch, 3, size, size] float32, output [batch, 1000]."""
    net = _Net(seed)
    x = net.node("Relu", [net.conv("image", 3, 64, 7, 2)])
    x = net.node("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    channels = 64
    for width, blocks, first_stride in STAGES:
        for block in range(blocks):
            stride = first_stride if block == 0 else 1
            y = net.node("Relu", [net.conv(x, channels, width, 1)])
            y = net.node("Relu", [net.conv(y, width, width, 3, stride)])
            # a small gain keeps the sum of many residual branches from growing
            y = net.conv(y, width, 4 * width, 1, gain=0.2)
            skip = net.conv(x, channels, 4 * width, 1, stride, gain=1.0) if block == 0 else x
            x = net.node("Relu", [net.node("Add", [y, skip])])
            channels = 4 * width
    x = net.node("Flatten", [net.node("GlobalAveragePool", [x])])
    w = net.constant(net.random.normal(0, 0.02, (1000, channels)))
    logits = net.node("Gemm", [x, w, net.constant(np.zeros(1000))], transB=1)
    graph = helper.make_graph(
        net.nodes,
        "resnet50_shape",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, size, size])],
        [helper.make_tensor_value_info(logits, TensorProto.FLOAT, [batch, 1000])],
        net.constants,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)

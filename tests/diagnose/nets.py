"""Small quantized models with one fault each, made node by node: no quantizer decides what is in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

MS = "com.microsoft"
TYPES = {"float32": TensorProto.FLOAT, "uint8": TensorProto.UINT8, "int64": TensorProto.INT64}


class Net:
    """Nodes and constants of a graph with input ``x`` (float32) and output ``y``."""

    def __init__(self, *shape: int, dtype: str = "float32") -> None:
        self.shape, self.dtype = shape, dtype
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, NDArray[Any]] = {}
        self.random = np.random.default_rng(0)

    def put(self, name: str, value: Any, dtype: str = "float32") -> str:
        self.constants[name] = np.asarray(value, dtype)
        return name

    def add(self, op: str, inputs: list[str], output: str, *, domain: str = "", **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], name=f"n_{output}", domain=domain, **attributes))
        return output

    def weights(self, *shape: int, large: bool = True) -> NDArray[np.int8]:
        """Codes; large ones can saturate with any neighbour of their sign."""
        codes = self.random.integers(-127, 128, shape)
        return np.asarray(np.where(codes < 0, -1, 1) * np.maximum(np.abs(codes), 90) if large else codes // 2, np.int8)

    def q(self, source: str, scale: float = 0.05, zero: int = 0, dtype: str = "uint8") -> str:
        """Codes of ``source``."""
        names = [self.put(f"{source}_s", scale), self.put(f"{source}_z", zero, dtype)]
        return self.add("QuantizeLinear", [source, *names], f"{source}_q")

    def qdq(self, source: str, scale: float = 0.05, zero: int = 0, dtype: str = "uint8") -> str:
        """``source`` through QuantizeLinear and DequantizeLinear."""
        codes = self.q(source, scale, zero, dtype)
        return self.add("DequantizeLinear", [codes, f"{source}_s", f"{source}_z"], f"{source}_dq")

    def dq(self, name: str, codes: NDArray[Any], scale: Any = 0.01, axis: int | None = None) -> str:
        """Integer weights behind DequantizeLinear."""
        scale = np.asarray(scale, np.float32)
        names = [self.put(f"{name}_q", codes, codes.dtype.name), self.put(f"{name}_s", scale)]
        names.append(self.put(f"{name}_z", np.zeros(scale.shape), codes.dtype.name))
        attributes = {} if axis is None else {"axis": axis}
        return self.add("DequantizeLinear", names, f"{name}_dq", **attributes)

    def model(self) -> onnx.ModelProto:
        wide = any(value.dtype == np.uint16 for value in self.constants.values())
        graph = helper.make_graph(
            self.nodes,
            "g",
            [helper.make_tensor_value_info("x", TYPES[self.dtype], self.shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(value, name) for name, value in self.constants.items()],
        )
        opsets = [helper.make_opsetid("", 21 if wide else 17), helper.make_opsetid(MS, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10 if wide else 8)

    def save(self, folder: Path, name: str = "net.onnx") -> Path:
        onnx.save(self.model(), folder / name)
        return folder / name


def convolution(net: Net, source: str, name: str, outputs: int, inputs: int, *, group: int = 1, **kinds: Any) -> str:
    """A 3x3 convolution in QDQ form whose result is left in float."""
    codes = kinds.get("codes", net.weights(outputs, inputs // group, 3, 3))
    per_channel = kinds.get("per_channel", True)
    weight = net.dq(
        f"{name}_w", codes, np.full(outputs, 0.01) if per_channel else 0.01, axis=0 if per_channel else None
    )
    return net.add("Conv", [source, weight], name, pads=[1, 1, 1, 1], group=group)


def sound() -> Net:
    """Two convolutions and a residual addition, all fused by ONNX Runtime; no weight can saturate."""
    net = Net(1, 16, 8, 8)
    a = net.qdq("x", zero=128)
    codes = net.weights(16, 16, 3, 3, large=False)
    b = net.qdq(convolution(net, a, "c1", 16, 16, codes=codes), 0.2)
    c = net.qdq(convolution(net, b, "c2", 16, 16, codes=codes), 0.5, 128)
    net.add("Identity", [net.qdq(net.add("Add", [a, c], "sum"), 0.5, 128)], "y")
    return net


def pairs() -> Net:
    net = Net(1, 16, 8, 8)
    a = net.qdq(convolution(net, net.qdq("x", zero=128), "c1", 16, 16), 0.5, 128)
    b = net.qdq(net.add("Erf", [a], "e"), 0.01, 128)
    net.add("Erf", [b], "y")
    return net


def islands() -> Net:
    net = Net(1, 16, 8, 8)
    a = net.qdq(convolution(net, net.qdq("x", zero=128), "c1", 16, 16), 0.5, 128)
    b = net.qdq(net.add("Erf", [a], "e"), 0.01, 128)
    net.add("Identity", [net.qdq(convolution(net, b, "c2", 16, 16), 0.2, 128)], "y")
    return net


def residual() -> Net:
    """The sum is read in float before it is quantized, so it cannot be fused."""
    net = Net(1, 16, 8, 8)
    a = net.qdq(convolution(net, net.qdq("x", zero=128), "c1", 16, 16), 0.5, 128)
    b = net.qdq(convolution(net, a, "c2", 16, 16), 0.5, 128)
    net.add("Add", [a, b], "sum")
    net.add("Erf", ["sum"], "y")
    return net


def symmetric() -> Net:
    net = Net(1, 16, 8, 8)
    a = net.qdq(convolution(net, net.qdq("x", zero=128), "c1", 16, 16), 0.5, 128)
    b = net.qdq(net.add("Relu", [a], "r"), 0.4, 128)
    net.add("Identity", [net.qdq(convolution(net, b, "c2", 16, 16), 0.2, 128)], "y")
    return net


def dynamic() -> Net:
    net = Net(1, 8, 8, 8)
    net.nodes.append(helper.make_node("DynamicQuantizeLinear", ["x"], ["xq", "xs", "xz"], name="n_x"))
    w = net.put("w", net.weights(8, 8, 3, 3), "int8")
    net.add("Cast", [net.add("ConvInteger", ["xq", w, "xz"], "c")], "y", to=TensorProto.FLOAT)
    return net


def depthwise() -> Net:
    net = Net(1, 16, 8, 8)
    codes = np.ones((16, 1, 3, 3), np.int8) * 100
    codes[3] = 5
    c = convolution(net, net.qdq("x", zero=128), "c1", 16, 16, group=16, codes=codes, per_channel=False)
    net.add("Identity", [net.qdq(c, 0.5)], "y")
    return net


def summed_axis() -> Net:
    net = Net(4, 16)
    w = net.dq("w", net.weights(16, 12), np.full(16, 0.01), axis=0)
    net.add("MatMul", [net.qdq("x", zero=128), w], "y")
    return net


def unsigned() -> Net:
    net = Net(4, 16)
    w = net.dq("w", (net.weights(16, 12).astype(int) + 128).astype(np.uint8))
    net.constants["w_z"] = np.asarray(128, np.uint8)
    net.add("MatMul", [net.qdq("x", zero=128), w], "y")
    return net


def mostly_float() -> Net:
    net = Net(4, 64)
    net.add("MatMul", [net.qdq("x", zero=128), net.dq("w", net.weights(64, 8))], "h")
    net.put("v", net.random.standard_normal((8, 400)))
    net.add("MatMul", ["h", "v"], "y")
    return net


def late() -> Net:
    """Float weights behind QuantizeLinear, as training with quantization leaves them."""
    net = Net(4, 64)
    net.put("w", net.random.standard_normal((64, 32)))
    w = net.qdq("w", 0.02, 0, "int8")
    net.add("MatMul", [net.qdq("x", zero=128), w], "y")
    return net


def wide() -> Net:
    """Two convolutions and a residual addition between codes of 16 bits."""
    net = Net(1, 16, 8, 8)
    a = net.qdq("x", 2e-4, 32768, "uint16")
    b = net.qdq(convolution(net, a, "c1", 16, 16), 1e-3, 32768, "uint16")
    c = net.qdq(net.add("Relu", [b], "r"), 1e-3, 32768, "uint16")
    net.add("Identity", [net.qdq(net.add("Add", [a, c], "sum"), 2e-3, 32768, "uint16")], "y")
    return net


def unpacked() -> Net:
    net = Net(1, 16, 8, 8)
    w = net.dq("w", net.weights(16, 16, 3, 3))
    net.add("ConvTranspose", [net.qdq("x", zero=128), w], "y")
    return net


def floating() -> Net:
    net = Net(4, 64)
    net.put("w", net.random.standard_normal((64, 32)))
    net.add("MatMul", ["x", "w"], "y")
    return net

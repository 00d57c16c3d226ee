"""Network and Builder: a small language for ONNX models, with weights scaled as trained ones are (He et al. 2015)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Feed = dict[str, object]
FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


@dataclass(frozen=True, kw_only=True)
class Network:
    """A model to quantize.

    Attributes:
        proto: the model.
        feeds: inputs, one sample each.
        least_db: SQNR that the quantized outputs must reach; None when that says nothing about the model.
        quantized: operator types of which at least one must run on integers under the default recipe.
        float_copies: weights that a float operator reads too, so that a float copy has to stay.
    """

    proto: onnx.ModelProto
    feeds: Sequence[Feed]
    least_db: float | None = 20.0
    quantized: tuple[str, ...] = ()
    float_copies: tuple[str, ...] = ()


NETWORKS: dict[str, Callable[[], Network]] = {}


def network(make: Callable[[], Network]) -> Callable[[], Network]:
    """Put a generator into NETWORKS under its own name."""
    NETWORKS[make.__name__] = make
    return make


@dataclass
class Builder:
    """Collects nodes; each method returns the name of what it made."""

    seed: int = 0
    opset: int = 17
    prefix: str = ""
    named: bool = True
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[TensorProto] = field(default_factory=list)
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    outputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    shapes: dict[str, tuple[int, Sequence[int | str | None]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.count = 0

    def fresh(self, stem: str) -> str:
        self.count += 1
        return f"{self.prefix}{stem}_{self.count}"

    def input(self, name: str, shape: Sequence[int | str | None], dtype: int = FLOAT) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, dtype, shape))
        self.shapes[name] = (dtype, shape)
        return name

    def output(self, name: str, shape: Sequence[int | str | None] | None = None, dtype: int = FLOAT) -> str:
        self.outputs.append(helper.make_tensor_value_info(name, dtype, shape))
        return name

    def const(self, array: object, name: str | None = None, dtype: object = None) -> str:
        name = name or self.fresh("const")
        self.initializers.append(numpy_helper.from_array(np.asarray(array, dtype), name))
        return name

    def ints(self, *values: int) -> str:
        return self.const(np.asarray(values, np.int64))

    def constant_node(self, array: object) -> str:
        return self.node("Constant", value=numpy_helper.from_array(np.asarray(array)))

    def weight(self, *shape: int, fan_in: int | None = None, name: str | None = None) -> str:
        fan = fan_in or int(np.prod(shape[1:]))
        return self.const((self.rng.standard_normal(shape) * np.sqrt(2.0 / fan)).astype(np.float32), name)

    def vector(self, n: int, scale: float = 0.1, name: str | None = None) -> str:
        return self.const((self.rng.standard_normal(n) * scale).astype(np.float32), name)

    def node(
        self,
        op: str,
        *inputs: str,
        out: str | None = None,
        name: str | None = None,
        domain: str = "",
        **attributes: object,
    ) -> str:
        return self.nodes_out(op, *inputs, outs=[out or self.fresh(op)], name=name, domain=domain, **attributes)[0]

    def nodes_out(
        self,
        op: str,
        *inputs: str,
        outs: Sequence[str],
        name: str | None = None,
        domain: str = "",
        **attributes: object,
    ) -> Sequence[str]:
        title = name if name is not None else (f"{op}_{len(self.nodes)}" if self.named else "")
        self.nodes.append(
            helper.make_node(
                op, list(inputs), list(outs), name=self.prefix + title if title else "", domain=domain, **attributes
            )
        )
        return outs

    def conv(
        self,
        x: str,
        i: int,
        o: int,
        k: int = 3,
        *,
        stride: int = 1,
        group: int = 1,
        bias: bool = True,
        rank: int = 2,
        pad: int | None = None,
        out: str | None = None,
        **attributes: object,
    ) -> str:
        p = k // 2 if pad is None else pad
        operands = [self.weight(o, i // group, *[k] * rank)]
        if bias:
            operands.append(self.vector(o))
        return self.node(
            "Conv",
            x,
            *operands,
            out=out,
            kernel_shape=[k] * rank,
            pads=[p] * (2 * rank),
            strides=[stride] * rank,
            group=group,
            **attributes,
        )

    def batchnorm(self, x: str, c: int, out: str | None = None) -> str:
        scale = self.const((1 + 0.2 * self.rng.standard_normal(c)).astype(np.float32))
        shift, mean = self.vector(c, 0.2), self.vector(c, 0.2)
        var = self.const((0.5 + self.rng.random(c)).astype(np.float32))
        return self.node("BatchNormalization", x, scale, shift, mean, var, out=out, epsilon=1e-5)

    def relu(self, x: str) -> str:
        return self.node("Relu", x)

    def relu6(self, x: str) -> str:
        """Clip(0, 6): attributes before opset 11, Constant nodes from then on (as PyTorch exports it)."""
        if self.opset < 11:
            return self.node("Clip", x, min=0.0, max=6.0)
        return self.node("Clip", x, self.constant_node(np.float32(0)), self.constant_node(np.float32(6)))

    def gemm(self, x: str, i: int, o: int, out: str | None = None, **attributes: object) -> str:
        return self.node("Gemm", x, self.weight(o, i), self.vector(o), out=out, transB=1, **attributes)

    def matmul(self, x: str, i: int, o: int, *, bias: bool = True, out: str | None = None) -> str:
        w = self.weight(i, o, fan_in=i)
        if not bias:
            return self.node("MatMul", x, w, out=out)
        return self.node("Add", self.node("MatMul", x, w), self.vector(o), out=out)

    def head(self, x: str, c: int, classes: int = 10, out: str = "logits") -> str:
        """GlobalAveragePool - Flatten - Gemm."""
        return self.gemm(self.node("Flatten", self.node("GlobalAveragePool", x)), c, classes, out=out)

    def graph(self, name: str = "net") -> onnx.GraphProto:
        return helper.make_graph(self.nodes, name, self.inputs, self.outputs, self.initializers)

    def model(
        self, *, ir: int = 8, domains: Mapping[str, int] | None = None, functions: Sequence[onnx.FunctionProto] = ()
    ) -> onnx.ModelProto:
        opsets = [helper.make_opsetid("", self.opset), *(helper.make_opsetid(d, v) for d, v in (domains or {}).items())]
        model = helper.make_model(
            self.graph(),
            opset_imports=opsets,
            ir_version=ir,
            functions=functions,
            producer_name="pytorch",
            producer_version="2.6",
            doc_string="made for a test",
            domain="ai.example",
            model_version=7,
        )
        helper.set_model_props(model, {"labels": "a,b,c", "author": "tests"})
        return model

    def feeds(
        self, n: int = 4, sizes: Mapping[str, int] | None = None, **given: Callable[[np.random.Generator], object]
    ) -> list[Feed]:
        """``n`` samples: normal floats, small integers, coin flips; ``sizes`` fills symbolic dimensions."""
        rng = np.random.default_rng(self.seed + 1)
        return [
            {k: given[k](rng) if k in given else _random(rng, t, s, sizes or {}) for k, (t, s) in self.shapes.items()}
            for _ in range(n)
        ]


def _random(
    rng: np.random.Generator, dtype: int, shape: Sequence[int | str | None], sizes: Mapping[str, int]
) -> NDArray[np.generic]:
    dims = [d if isinstance(d, int) else sizes.get(d or "", 2) for d in shape]
    kind = helper.tensor_dtype_to_np_dtype(dtype)
    if kind == np.bool_:
        return np.asarray(rng.integers(0, 2, dims), kind)
    if np.issubdtype(kind, np.integer):
        return np.asarray(rng.integers(0, 8, dims), kind)
    return np.asarray(rng.standard_normal(dims), kind)

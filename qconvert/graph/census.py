"""How ONNX Runtime really runs a quantized model: the graph is loaded with all optimizations, saved, and counted."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx

from qconvert.graph.model import Model
from qconvert.graph.signature import session_of

_KERNELS = ("QLinear", "QGemm", "MatMulInteger", "ConvInteger", "DynamicQuantizeMatMul", "QAttention", "Nhwc")
_FLOAT_FORMS = ("Conv", "FusedConv", "ConvTranspose", "Gemm", "FusedGemm", "MatMul", "FusedMatMul")


def is_integer_kernel(op_type: str) -> bool:
    """Whether an operator of ONNX Runtime's optimized graphs computes on integers."""
    return op_type.startswith(_KERNELS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Census:
    """What the optimized graph holds, control-flow bodies included.

    Attributes:
        nodes: all nodes.
        integer_kernels: nodes that compute on integers.
        quantize, dequantize: QuantizeLinear and DequantizeLinear nodes left over.
        weights_dequantized: DequantizeLinear nodes on constants: weights that are unpacked at every run.
        unfused: planned integer nodes that ONNX Runtime runs in float all the same.
        boundaries: the tensors that the left-over QuantizeLinear and DequantizeLinear nodes on activations read.
        ops: operator -> count.
    """

    nodes: int
    integer_kernels: int
    quantize: int
    dequantize: int
    weights_dequantized: int
    unfused: tuple[str, ...]
    boundaries: tuple[str, ...]
    ops: dict[str, int]


def take_census(model: Model, planned: Iterable[str]) -> Census:
    """Load ``model`` into ONNX Runtime and count its optimized graph.

    Args:
        model: quantized.
        planned: names of weighted nodes that should run on integers.

    Raises:
        ModelError: ONNX Runtime refuses the model.
    """
    with tempfile.TemporaryDirectory(prefix="qconvert-") as folder:
        path = Path(folder) / "optimized.onnx"
        session_of(model, optimized_path=path)
        graph = onnx.load_model(str(path), load_external_data=False).graph
    graphs = list(_graphs(graph))
    nodes = [n for g in graphs for n in g.node]
    constants = {i.name for g in graphs for i in g.initializer}
    wanted = set(planned)
    ops = Counter(n.op_type for n in nodes)
    on_constants = [n for n in nodes if n.op_type == "DequantizeLinear" and n.input[0] in constants]
    boundaries = [
        n.input[0] for n in nodes if n.op_type in ("QuantizeLinear", "DequantizeLinear") and n.input[0] not in constants
    ]
    return Census(
        nodes=len(nodes),
        integer_kernels=sum(c for op, c in ops.items() if is_integer_kernel(op)),
        quantize=ops.get("QuantizeLinear", 0),
        dequantize=ops.get("DequantizeLinear", 0) - len(on_constants),
        weights_dequantized=len(on_constants),
        unfused=tuple(n.name for n in nodes if n.op_type in _FLOAT_FORMS and n.name in wanted),
        boundaries=tuple(boundaries),
        ops=dict(sorted(ops.items())),
    )


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """``graph`` and the control-flow bodies in it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for body in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _graphs(body)

"""Whether a model is quantized already."""

from __future__ import annotations

import re
from collections.abc import Iterator

import onnx_ir as ir

from qconvert.graph.model import Model

# Operators that hold, make or compute on integer codes: ONNX's own, those of ONNX Runtime (com.microsoft) and the
# plug-ins of TensorRT. "QuickGelu" must not match.
_QUANTIZED = re.compile(
    r"(Quantize|Dequantize)(Linear|BFP|WithOrder|LSTM|MatMul)"
    r"|Integer(ToFloat)?$"
    r"|^(QLinear|QGemm|QAttention|QEmbed|QMoE|QOrdered)"
    r"|^MatMul(NBits|BnB4|Bnb4|FpQ4)$"
    r"|^GatherBlockQuantized$"
)


def quantized_ops(model: Model) -> tuple[str, ...]:
    """Names of the operators that show ``model`` to be quantized, sorted; empty for a float model.

    The main graph, the bodies of control flow and the model's functions are searched.
    """
    return tuple(sorted({n.op_type for n in _nodes(model.ir) if is_quantized_op(n.op_type)}))


def is_quantized_op(op_type: str) -> bool:
    """Whether an operator holds, makes or computes on integer codes."""
    return _QUANTIZED.search(op_type) is not None


def _nodes(model: ir.Model) -> Iterator[ir.Node]:
    yield from model.graph.all_nodes()
    for function in model.functions.values():
        yield from function.all_nodes()

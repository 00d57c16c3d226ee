"""Values that are never negative, by what makes them."""

from __future__ import annotations

import onnx_ir as ir

from qconvert.graph.edit import constant_of

_NEVER = frozenset({"Relu", "Sigmoid", "HardSigmoid", "Softmax", "Abs", "Exp", "Softplus", "Sqrt", "ReduceL2"})
_PASS_ON = frozenset(
    """MaxPool AveragePool GlobalAveragePool GlobalMaxPool Pad Concat Add Mul Reshape Flatten Transpose Squeeze
    Unsqueeze Identity Dropout Slice Split DepthToSpace SpaceToDepth ReduceMean ReduceMax ReduceSum""".split()
)
# Nodes that are looked back at; a chain of sums could double them at each step.
_MOST = 64


def never_negative(value: ir.Value | None) -> bool:
    """Whether ``value`` cannot hold negative numbers; False where that is not plain to see."""
    waiting, seen = [value], 0
    while waiting:
        current, seen = waiting.pop(), seen + 1
        producer = current.producer() if current is not None else None
        if producer is None or seen > _MOST:
            return False
        op = producer.op_type
        if op in _NEVER or (op == "Clip" and _least(producer) >= 0):
            continue
        if op not in _PASS_ON:
            return False
        data = producer.inputs if op in ("Concat", "Add", "Mul") else producer.inputs[:1]
        for source in data:
            known = constant_of(source)
            if known is None:
                waiting.append(source)
            elif known.size and known.min() < 0:
                return False
    return True


def _least(clip: ir.Node) -> float:
    """The lower bound of a Clip, minus infinity where it has none that is constant."""
    if "min" in clip.attributes:
        return clip.attributes.get_float("min", float("-inf"))
    bound = constant_of(clip.inputs[1]) if len(clip.inputs) > 1 else None
    return float(bound.reshape(-1)[0]) if bound is not None and bound.size else float("-inf")

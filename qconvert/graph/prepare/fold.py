"""Constant folding and graph rewrites by onnxscript's optimizer.

Its defaults leave constants beyond 8192 elements alone; weights behind Identity, Reshape, Transpose or arithmetic are just
those, so folding is allowed wherever the result is no larger than what goes in. What would grow (Expand, Tile,
ConstantOfShape) keeps the default limit: a small file does not become a large one.
"""

from __future__ import annotations

import onnx_ir as ir
import onnxscript.optimizer

# onnxscript's own limit for the inputs of a folded node, in elements
_ALWAYS_FOLDED = 8192

_KEEPS_SIZE = frozenset(
    """Identity Reshape Transpose Squeeze Unsqueeze Flatten Cast Slice Split Concat Neg Abs Sqrt Exp Reciprocal
    Add Sub Mul Div Pow Min Max Gather DepthToSpace SpaceToDepth ReduceSum ReduceMean""".split()
)


def _should_fold(node: ir.Node) -> bool | None:
    if node.domain not in ("", "ai.onnx") or node.op_type not in _KEEPS_SIZE:
        return None
    tensors = [v.const_value for v in node.inputs if v is not None and v.const_value is not None]
    if sum(int(t.size) for t in tensors) <= _ALWAYS_FOLDED:
        return None
    shared = any(
        v.const_value.size > 1024 and len(v.uses()) > 1
        for v in node.inputs
        if v is not None and v.const_value is not None
    )
    # a tied weight (embedding and transposed output matrix) must stay one tensor
    return not shared


def fold_and_fuse(model: ir.Model, *, rewrite: bool) -> None:
    """Fold constants and, with ``rewrite``, fuse BatchNormalization and Pad into convolutions and drop no-ops. In place."""
    onnxscript.optimizer.fold_constants(model, should_fold=_should_fold)
    if rewrite:
        onnxscript.optimizer.optimize(model)

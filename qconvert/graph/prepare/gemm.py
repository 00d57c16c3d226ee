"""Gemm in the form that integer kernels take: y = x W + b, b [N], no alpha or beta, x not transposed.

    y = alpha * op(A) op(B) + beta * C        ->        y = op'(A) op(alpha B) + (beta C)

alpha goes into the constant B, beta into the constant C, and a C of one value or [1, N] becomes [N]. MatMul followed by
Add of a constant [N] on rank-2 operands becomes Gemm, so that the bias joins the int32 accumulator.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from qconvert.graph.edit import add_initializer, constant_of, replace_by, take_over


def canonical_gemm(model: ir.Model) -> None:
    """Rewrite each Gemm with constant B and C as far as it can be, in place."""
    graph = model.graph
    for node in list(graph):
        if node.op_type != "Gemm" or node.domain not in ("", "ai.onnx"):
            continue
        b = constant_of(node.inputs[1])
        c_value = node.inputs[2] if len(node.inputs) > 2 else None
        c = constant_of(c_value)
        if b is None or b.dtype != np.float32 or (c_value is not None and c is None):
            continue
        alpha = node.attributes.get_float("alpha", 1.0)
        beta = node.attributes.get_float("beta", 1.0)
        columns = b.shape[0] if node.attributes.get_int("transB", 0) else b.shape[1]
        if c is not None and c.size not in (1, columns):
            continue
        if c is not None and c.size == columns and c.size > 1 and c.shape[-1:] != (columns,):
            continue  # [M, 1]: a bias a row, not a column
        if c is not None and (c.shape != (columns,) or beta != 1.0):
            flat = np.broadcast_to(np.multiply(c.reshape(-1), np.float32(beta)), (columns,)).astype(np.float32)
            node.replace_input_with(2, add_initializer(graph, f"{node.name}_bias", flat.copy()))
        if alpha != 1.0:
            node.replace_input_with(1, add_initializer(graph, f"{node.name}_weight", np.multiply(b, np.float32(alpha))))
        for name in ("alpha", "beta"):
            node.attributes.pop(name, None)


def matmul_add_to_gemm(model: ir.Model) -> None:
    """MatMul(x [M, K], W [K, N]) + constant b [N] -> Gemm, in place; the Add's output name stays."""
    graph = model.graph
    for add in list(graph):
        if add.op_type != "Add" or add.domain not in ("", "ai.onnx"):
            continue
        for port in (0, 1):
            product, bias = add.inputs[port], add.inputs[1 - port]
            matmul = product.producer() if product is not None else None
            b = constant_of(bias)
            if matmul is None or product is None or bias is None or b is None or b.dtype != np.float32:
                continue
            if matmul.op_type != "MatMul" or matmul.graph is not graph or product.is_graph_output():
                continue
            x, w = matmul.inputs
            weight = constant_of(w)
            if x is None or w is None or weight is None or weight.ndim != 2 or x.shape is None or len(x.shape) != 2:
                continue
            if len(product.uses()) != 1 or b.ndim > 2 or b.size != weight.shape[1] or b.shape[-1:] != weight.shape[1:]:
                continue
            gemm = ir.node("Gemm", [x, w, bias], name=matmul.name)
            graph.insert_before(add, gemm)
            take_over(gemm.outputs[0], add.outputs[0])
            graph.remove([add, matmul], safe=True)
            break


def matmul_before_add_to_gemm(model: ir.Model) -> None:
    """MatMul(x [M, K], W [K, N]) whose product is added to something computed -> Gemm without bias, in place.

    ONNX Runtime would fuse MatMul and Add into a Gemm with that summand as its bias, which has no integer form: the
    weights would be unpacked at every run. A Gemm of its own is left alone.
    """
    graph = model.graph
    for node in list(graph):
        if node.op_type != "MatMul" or node.domain not in ("", "ai.onnx"):
            continue
        x, w = node.inputs
        weight = constant_of(w)
        if x is None or weight is None or weight.ndim != 2 or x.shape is None or len(x.shape) != 2:
            continue
        if weight.dtype != np.float32 or not any(u.node.op_type == "Add" for u in node.outputs[0].uses()):
            continue
        gemm = ir.node("Gemm", [x, w], name=node.name)
        graph.insert_before(node, gemm)
        replace_by(gemm.outputs[0], node)

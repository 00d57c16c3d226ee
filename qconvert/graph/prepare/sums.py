"""Sum of two operands is Add, which has an integer kernel: residual connections of older exports are written so.

Sum(a, b) -> Add(a, b)        Sum(a, b, c) -> Add(Add(a, b), c), in the order in which Sum adds
"""

from __future__ import annotations

import onnx_ir as ir

from qconvert.graph.edit import replace_by


def sum_to_add(model: ir.Model) -> None:
    """Rewrite every Sum of two or more operands, in place; the last Add keeps the node's and the output's name."""
    graph = model.graph
    for node in list(graph):
        operands = [v for v in node.inputs if v is not None]
        if node.op_type != "Sum" or node.domain not in ("", "ai.onnx") or len(operands) < 2:
            continue
        total = operands[0]
        for i, operand in enumerate(operands[1:], start=1):
            last = i == len(operands) - 1
            add = ir.node("Add", [total, operand], name=node.name if last else f"{node.name}_{i}")
            add.outputs[0].type = node.outputs[0].type
            if not last:
                add.outputs[0].name = f"{node.outputs[0].name}_{i}"
            graph.insert_before(node, add)
            total = add.outputs[0]
        replace_by(total, node)

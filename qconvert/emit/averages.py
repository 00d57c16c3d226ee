"""AveragePool on integers, where the runtime's kernel for it is slow: a depthwise convolution of equal weights.

    DQ(x) -> AveragePool -> Q      becomes      DQ(x) -> Conv(DQ(1), scale 1 / taps) -> Q

The sums are the same, and divided by the same number wherever padding counts or there is none (ops/pooling.py).
QLinearAveragePool takes 12 to 25 times as long as QLinearConv here, channels last or not (ONNX Runtime 1.32). It is
also what comes of a float AveragePool between pairs, so that is hidden (emit/keep_float.py).
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from qconvert.emit.additions import Additions
from qconvert.emit.keep_float import hide, reads_codes
from qconvert.errors import InternalError
from qconvert.graph.build_view import view_of
from qconvert.graph.edit import replace_by
from qconvert.graph.model import Model
from qconvert.ops.pooling import is_filter
from qconvert.plan.model import QuantPlan

_KEPT = ("kernel_shape", "strides", "pads", "auto_pad", "dilations")


def write_averages(model: Model, base: Model, plan: QuantPlan) -> None:
    """Rewrite every AveragePool that ``plan`` runs on integers and that is a filter, in place; names and results stay.
    Those in float are kept so.

    Args:
        model: as :func:`qconvert.emit.qdq.emit_qdq` has written ``plan``.
        base: what that was made of.
        plan: the same.
    """
    pools = [n for n in model.ir.graph if n.op_type == "AveragePool"]
    taken = {n.node for n in plan.taken() if n.op_type == "AveragePool" and n.activations}
    view = view_of(base) if pools else None
    additions: Additions | None = None
    for node in pools:
        x, shape = node.inputs[0], node.outputs[0].shape
        if node.name not in taken and reads_codes(x):
            hide(model.ir.graph, node.outputs[0])
        if node.name not in taken or view is None or not is_filter(view, view.nodes[node.name or ""]):
            continue
        if x is None or shape is None or not isinstance(shape[1], int):
            raise InternalError(f"the channels of {node.name} are not known, as was planned")
        additions = additions or Additions(model=model.ir)
        taps = list(node.attributes.get_ints("kernel_shape", []))
        constants = (
            additions.constant(model.ir.graph, f"{node.name}_{what}", array)
            for what, array in (
                ("ones", np.ones((shape[1], 1, *taps), np.int8)),
                ("share", np.asarray(1.0 / math.prod(taps), np.float32)),
                ("zero", np.asarray(0, np.int8)),
            )
        )
        weight = additions.node(node, "DequantizeLinear", list(constants), name=f"{node.name}_filter")
        kept = [a for name, a in node.attributes.items() if name in _KEPT]
        made = ir.Node("", "Conv", [x, weight], [*kept, ir.AttrInt64("group", shape[1])], name=node.name)
        model.ir.graph.insert_before(node, made)
        replace_by(made.outputs[0], node)

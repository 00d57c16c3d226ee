"""Whether one scale for a whole weight loses little against a scale a channel.

With rows W_o and the greatest magnitude m of all, rounding to steps of m / 127 makes an error of (m / 127)^2 / 12
an element. What is held against the least SQNR is the mean over the outputs of its share of the row's power:

    SQNR = -10 log10( mean_o (m / 127)^2 / 12 / mean(W_o^2) )
"""

from __future__ import annotations

import math

import numpy as np

from qconvert.graph.view import GraphView


def is_even(graph: GraphView, product: str, least_db: float) -> bool:
    """Whether the weight [K, N], or [N, K] with transB, of a Gemm or MatMul keeps ``least_db`` with one scale."""
    node = graph.nodes[product]
    weight = np.asarray(graph.constant(node.inputs[1] or ""), np.float64)
    power = (weight**2).mean(axis=1 if node.attr_int("transB", 0) else 0)
    noise = (float(np.abs(weight).max(initial=0.0)) / 127) ** 2 / 12
    heard = power[power > 0]  # a row of zeros stays one
    share = float((noise / heard).mean()) if heard.size else 0.0
    return share <= 0 or -10 * math.log10(share) >= least_db

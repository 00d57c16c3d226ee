"""Embedding tables that are stored a second time as the output matrix: the copy becomes a Transpose of the table.

    table [V, D] read by Gather,   matrix [D, V] = table^T read by MatMul   ->   MatMul reads Transpose(table)

Exporters write both when the two are tied in training. Schemes store one weight for all who read it.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qconvert.emit.additions import Additions
from qconvert.emit.sites import Kind, Site, find_sites
from qconvert.graph.model import Model

# Rows that are compared before whole weights are.
_PROBE = 4


def tie_tables(model: Model) -> int:
    """Let products read the tables that their weights are copies of, in place; how many now do."""
    sites = find_sites(model)
    tables = {s.weight: s for s in sites if s.kind is Kind.TABLE}
    tied = 0
    for site in sites:
        if site.kind is not Kind.PRODUCT or site.axis != 1 or site.weight in tables:
            continue
        table = next((t for t in tables.values() if _equal(t, site)), None)
        if table is None:
            continue
        turned = Additions(model=model.ir).node(
            site.node, "Transpose", [table.weight], {"perm": (1, 0)}, name=f"{site.name}_table"
        )
        kind, shape = site.weight.type, site.weight.shape
        site.node.replace_input_with(site.port, turned)
        turned.type, turned.shape = kind, shape
        tied += 1
    return tied


def _equal(table: Site, product: Site) -> bool:
    """Whether the product's weight is the table's transpose, to the bit, and both are of the main graph."""
    if table.shape != product.shape[::-1] or table.weight.graph is not product.node.graph:
        return False
    a, b = _array(table.weight), _array(product.weight).T
    return np.array_equal(a[:_PROBE], b[:_PROBE]) and np.array_equal(a, b)


def _array(value: ir.Value) -> NDArray[np.generic]:
    return value.const_value.numpy() if value.const_value is not None else np.zeros(0)

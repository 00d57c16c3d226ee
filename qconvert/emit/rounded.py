"""A float model that computes what a plain quantizer with the best of ranges would: what ranges alone can cost.

    x -> DynamicQuantizeLinear -> DequantizeLinear -> y   what a weighted operator reads, 8 bits in the range of each x
    W -> round(W / s) s                                   symmetric int8, s an output channel (a table's row)

Results stay float, as do recurrent operators and small weights (of layers that no time depends on), so nothing is here
that a quantizer is not free to leave out; what it has in common with dynamic quantization is the rounding, not the
kernels, which for convolutions are slow.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from qconvert.emit.additions import Additions
from qconvert.emit.dynamic import int8_rows
from qconvert.emit.sites import Kind, Site, find_sites, shared
from qconvert.graph.model import Model

_READERS = frozenset({Kind.CONVOLUTION, Kind.PRODUCT, Kind.ATTENTION})


def with_sample_ranges(model: Model) -> Model:
    """A copy of ``model`` in which what weighted operators read is rounded in the range that it has in that run."""
    copy = model.clone()
    additions = Additions(model=copy.ir)
    rounded: dict[tuple[ir.Value, ir.Graph], ir.Value] = {}
    for sites in shared(find_sites(copy)).values():
        if any(s.kind is Kind.RECURRENT for s in sites) or all(map(_is_factor, sites)):
            continue
        _round_weight(sites[0])
        for site in sites:
            if site.kind in _READERS:
                _round_input(site.node, additions, rounded)
    return copy


def _is_factor(site: Site) -> bool:
    """A factor for each channel, written as a convolution: no quantizer sees a weight there."""
    return site.kind is Kind.CONVOLUTION and all(size == 1 for size in site.shape[1:])


def _round_weight(site: Site) -> None:
    moved = np.moveaxis(np.empty(site.shape, np.bool_), site.axis, 0).shape
    real = int8_rows(site.rows(), saturates=False).real()
    array = np.ascontiguousarray(np.moveaxis(real.reshape(moved), 0, site.axis))
    site.weight.const_value = ir.Tensor(array, name=site.weight.name)


def _round_input(node: ir.Node, additions: Additions, rounded: dict[tuple[ir.Value, ir.Graph], ir.Value]) -> None:
    value, graph = node.inputs[0], node.graph
    if value is None or not isinstance(graph, ir.Graph) or value.const_value is not None:
        return
    if (value, graph) not in rounded:
        name = value.name or ""
        codes = ir.node("DynamicQuantizeLinear", [value], num_outputs=3, name=additions.fresh(f"{name}_codes"))
        for output, what in zip(codes.outputs, ("codes", "scale", "zero"), strict=True):
            output.name = additions.fresh(f"{name}_{what}")
        real = ir.node("DequantizeLinear", list(codes.outputs), name=additions.fresh(f"{name}_real"))
        real.outputs[0].name = additions.fresh(f"{name}_rounded")
        producer = value.producer()
        if producer is not None and producer.graph is graph:
            graph.insert_after(producer, [codes, real])
        else:
            graph.insert_before(graph[0], [codes, real])
        rounded[value, graph] = real.outputs[0]
    node.replace_input_with(0, rounded[value, graph])

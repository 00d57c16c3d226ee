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
from qconvert.emit.dynamic import DynamicEmitter, int8_rows
from qconvert.emit.sites import Kind, Site, find_sites, shared
from qconvert.graph.model import Model

_READERS = frozenset({Kind.CONVOLUTION, Kind.PRODUCT, Kind.ATTENTION})


def with_sample_ranges(model: Model) -> Model:
    """A copy of ``model`` in which what weighted operators read is rounded in the range that it has in that run."""
    copy = model.clone()
    additions = Additions(model=copy.ir)
    emitter = DynamicEmitter(additions=additions)
    for sites in shared(find_sites(copy)).values():
        if any(s.kind is Kind.RECURRENT for s in sites) or all(map(_is_factor, sites)):
            continue
        _round_weight(sites[0])
        for site in sites:
            value = site.node.inputs[0]
            if site.kind in _READERS and value is not None and value.const_value is None:
                real = emitter.quantized(site.node)
                rounded = additions.node(site.node, "DequantizeLinear", real, name=f"{site.name}_rounded")
                site.node.replace_input_with(0, rounded)
    return copy


def _is_factor(site: Site) -> bool:
    """A factor for each channel, written as a convolution: no quantizer sees a weight there."""
    return site.kind is Kind.CONVOLUTION and all(size == 1 for size in site.shape[1:])


def _round_weight(site: Site) -> None:
    moved = (site.shape[site.axis], *(size for i, size in enumerate(site.shape) if i != site.axis))
    real = int8_rows(site.rows(), saturates=False).real()
    array = np.ascontiguousarray(np.moveaxis(real.reshape(moved), 0, site.axis))
    site.weight.const_value = ir.Tensor(array, name=site.weight.name)

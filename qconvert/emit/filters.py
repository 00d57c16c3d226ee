"""Filters of convolutions rounded so that the sums of their errors stay small (:mod:`qconvert.rounding.sums`)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from qconvert.emit.signs import never_negative
from qconvert.emit.sites import Site
from qconvert.numerics.blocks import BlockSpec, Rows
from qconvert.rounding.method import Rounded
from qconvert.rounding.sums import keeping_sums


def filter_rows(sites: Sequence[Site], rows: Rows, spec: BlockSpec) -> Rounded:
    """``rows`` of the filters that ``sites`` read, rounded as ``spec`` says: a scale for each."""
    site = sites[0]
    apart = site.node.op_type == "ConvTranspose" and site.node.attributes.get_int("group", 1) > 1
    across = not apart and all(never_negative(s.node.inputs[0]) for s in sites)
    taps = math.prod(site.shape[2:])
    return Rounded(codes=keeping_sums(rows, spec, taps, across=across), method="sums")

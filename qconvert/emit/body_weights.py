"""Weights of control-flow bodies as bytes, wherever the body is: whatever is float there stays float arithmetic.

    W -> operator     ->     codes -> Cast -> Sub -> Mul -> operator        a scale and a zero point an output channel

ONNX Runtime computes the three when it loads the model, in bodies, too (measured with 1.32), so the operator runs at
float speed. Products and LSTMs that run again and again may take bytes instead (:mod:`qconvert.emit.dynamic`).
A weight that the main graph reads, too, stays as it is there, and the bodies get codes of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from qconvert.emit.additions import Additions
from qconvert.emit.block_weights import BlockEmitter, Form
from qconvert.emit.dynamic import DynamicEmitter, int8_rows, lstm_objection, product_objection
from qconvert.emit.filters import filter_rows
from qconvert.emit.sites import Kind, Site, find_sites, layout_objection, other_readers, shared
from qconvert.graph.bodies import Body, bodies
from qconvert.graph.model import Model
from qconvert.numerics.blocks import BlockSpec, Rows
from qconvert.rounding.method import ROUNDINGS, Rounded

# A weight that bytes hold worse than this, in dB, stays float: outputs of a body that no sample reaches are not seen.
LEAST_DB = 30.0

STORED = "computes in float; its weight is stored as bytes and unpacked when the model is loaded"
DYNAMIC = "runs again and again: its input is quantized as the model runs"


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyNode:
    """A node of a body that reads a weight.

    Attributes:
        place: of the body, "loop/body".
        node, op_type: which.
        repeats: whether the body runs again and again.
        able: whether it could take bytes.
        stored, dynamic: whether its weight is bytes now, and whether its input is, too.
        reason: why (not), for people.
    """

    place: str
    node: str
    op_type: str
    repeats: bool
    able: bool
    stored: bool
    dynamic: bool
    reason: str


Chooser = Callable[[str, str, str], bool]
"""(place, node name, operator type) -> whether; the place of the main graph is ""."""


def store_body_weights(
    model: Model, *, wanted: Chooser, dynamic: Chooser, symmetric: bool, saturates: bool
) -> tuple[Model, tuple[BodyNode, ...]]:
    """(a copy of ``model`` whose bodies hold bytes, what became of each node that reads a weight there).

    Args:
        model: canonical, or with branches that are quantized already.
        wanted: the nodes whose weights may be rounded.
        dynamic: those that are to take bytes, if they can.
        symmetric: codes without zero points.
        saturates: kernels add two products in 16 bits: weights that take bytes must be small enough.
    """
    model = model.clone()
    where = bodies(model)
    additions = Additions(model=model.ir)
    blocks, bytewise = BlockEmitter(additions=additions, accuracy_level=0), DynamicEmitter(additions=additions)
    spec = BlockSpec(bits=8, block=0, symmetric=symmetric)
    told: dict[tuple[str, str], BodyNode] = {}
    lstms: dict[ir.Node, list[Site]] = {}

    def tell(sites: Iterable[Site], reason: str, *, stored: bool = False, as_bytes: bool = False) -> None:
        for site in sites:
            body = _body(site, where)
            key = (body.place, site.name)
            if key in told and told[key].stored and not stored:
                continue  # one of its two weights is
            told[key] = BodyNode(
                place=body.place,
                node=site.name,
                op_type=site.node.op_type,
                repeats=body.repeats,
                able=body.repeats and not _objection(site),
                stored=stored,
                dynamic=as_bytes,
                reason=reason,
            )

    def store(sites: Sequence[Site]) -> None:
        rounded = _rounded(sites, spec)
        if rounded is None:
            tell(sites, "bytes with a scale a channel do not hold its weight")
            return
        tell(sites, STORED, stored=True)
        blocks.write(sites, rounded.codes, [Form.UNPACK] * len(sites), None)

    for readers in shared(find_sites(model)).values():
        sites = tuple(s for s in readers if s.node.graph in where)
        if not sites:
            continue
        if reason := _kept(readers, sites, where, wanted):
            tell(sites, reason)
            continue
        takes_bytes = [s for s in sites if dynamic(_body(s, where).place, s.name, s.node.op_type) and not _objection(s)]
        if len(takes_bytes) < len(sites) or (len(sites) > 1 and sites[0].kind is Kind.RECURRENT):
            store(sites)
        elif sites[0].kind is Kind.PRODUCT:
            tell(sites, DYNAMIC, stored=True, as_bytes=True)
            rows = int8_rows(sites[0].rows(), saturates=saturates)
            for site in sites:
                bytewise.product(site, rows)
        else:
            lstms.setdefault(sites[0].node, []).append(sites[0])
    for node, both in lstms.items():
        if len(both) < 2:
            store(both)
            continue
        tell(both, DYNAMIC, stored=True, as_bytes=True)
        w, r = sorted(both, key=lambda s: s.port)
        codes = [(s, int8_rows(s.rows(), saturates=saturates)) for s in (w, r)]
        bytewise.lstm(node, *codes)
    return model, tuple(told.values())


def _body(site: Site, where: dict[ir.Graph, Body]) -> Body:
    graph = site.node.graph
    return where[graph] if isinstance(graph, ir.Graph) and graph in where else Body(place="", repeats=False)


def _kept(readers: tuple[Site, ...], sites: tuple[Site, ...], where: dict[ir.Graph, Body], wanted: Chooser) -> str:
    """Why the weight of ``sites``, one of ``readers`` each, stays float; "" if it need not."""
    if any(s.kind is Kind.ATTENTION for s in sites):
        return "Attention takes float weights only"
    if not all(wanted(_body(s, where).place, s.name, s.node.op_type) for s in sites):
        return "excluded by --exclude, or not among --include"
    if other := other_readers(readers):
        return f"{other} reads its weight, too"
    outside = [s for s in readers if s not in sites]
    if not all(wanted("", s.name, s.node.op_type) for s in outside):
        return f"{outside[0].name} reads its weight in float"
    return layout_objection(sites)


def _objection(site: Site) -> str:
    """Why the node of ``site`` cannot take bytes; "" if it can."""
    if site.kind is Kind.PRODUCT:
        return product_objection(site)
    if site.node.op_type == "LSTM":
        return lstm_objection(site.node)
    return f"{site.node.op_type} has no form that takes bytes"


def _rounded(sites: Sequence[Site], spec: BlockSpec) -> Rounded | None:
    """The codes of the one weight of ``sites``; None if they hold it worse than ``LEAST_DB``."""
    rows = sites[0].rows()
    is_filter = all(s.kind is Kind.CONVOLUTION for s in sites)
    rounded = filter_rows(sites, rows, spec) if is_filter else ROUNDINGS.get("rtn").round(rows, spec, None)
    return rounded if _db(rows, rounded.real()) >= LEAST_DB else None


def _db(rows: Rows, real: Rows) -> float:
    signal = float(np.square(rows, dtype=np.float64).sum())
    noise = float(np.square(rows.astype(np.float64) - real).sum())
    if not math.isfinite(noise):
        return -math.inf
    return 10 * math.log10(signal / noise) if noise > 0 and signal > 0 else math.inf

"""Dynamic int8: scales of activations are computed while the model runs; no calibration data are needed.

Products, Attention and LSTM run on integers; embedding tables are stored as int8 rows. Convolutions stay float: on
ONNX Runtime's CPU provider ConvInteger took 2 to 18 times as long as the float Conv in every net that was measured
(DS-CNN, MobileNetV1, ResNet-8, superres). GRU and RNN have no integer form, nor have some products and LSTMs; their
weights are stored in 8 bits. This is decided weight by weight, in the bodies of control flow as in the main graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from qconvert.emit.additions import Additions
from qconvert.emit.block_weights import BlockEmitter, Form
from qconvert.emit.dynamic import DynamicEmitter, Int8Rows, int8_rows, lstm_objection, product_objection, scale_input
from qconvert.emit.sites import Kind, Site, find_sites, layout_objection, other_readers, shared
from qconvert.emit.ties import tie_tables
from qconvert.errors import ModelError, RecipeError
from qconvert.graph.build_view import view_of
from qconvert.numerics.blocks import BlockSpec
from qconvert.plan.model import Decision, NodePlan
from qconvert.recipe.recipe import Recipe
from qconvert.recover.samples import Samples
from qconvert.rounding.method import ROUNDINGS, Rounded
from qconvert.schemes.made_samples import made_samples
from qconvert.schemes.scheme import SCHEMES, Converted, Scheme, Work
from qconvert.schemes.smoothing import extremes, factors_of
from qconvert.schemes.tally import Tally
from qconvert.targets.auto import target_of

_SAMPLES = 64
_ROWS = BlockSpec(bits=8, block=0, symmetric=True)
_DONE = {
    Kind.PRODUCT: "its input is quantized as the model runs",
    Kind.ATTENTION: "its input is quantized as the model runs (QAttention)",
    Kind.RECURRENT: "its inputs are quantized as the model runs (DynamicQuantizeLSTM)",
    Kind.TABLE: "its table is stored as int8, a scale a row",
}
_CONVOLUTION = "convolutions quantized as the model runs are slower than float ones"


@dataclass(slots=True, kw_only=True)
class _Decisions:
    """Decisions by node."""

    nodes: dict[str, NodePlan] = field(default_factory=dict)

    def say(self, sites: Sequence[Site], reason: str, *, taken: bool = False) -> None:
        """One decision for the nodes of all ``sites``."""
        for site in sites:
            decision = Decision(taken=taken, reason=reason)
            self.nodes[site.name] = NodePlan(node=site.name, op_type=site.node.op_type, decision=decision)


def convert(work: Work) -> Converted:
    """Rewrite the nodes of the scheme."""
    model = work.model.clone()
    tie_tables(model)
    additions = Additions(model=model.ir, spool=work.spool)
    emitter = DynamicEmitter(additions=additions)
    tables = BlockEmitter(additions=additions, accuracy_level=0)
    saturates = target_of(work.recipe.target).saturates
    decisions, tally = _Decisions(), Tally()
    recurrent: dict[str, list[Site]] = {}
    groups = [g for g in shared(find_sites(model)).values() if _is_ours(g, work)]
    samples, made = work.samples, ""
    if samples is None and work.trials:  # what is known to run
        samples, made = made_samples(work.model), " by inputs that were made up, for want of data"
    smoothed = _smooth(work, samples, groups, additions) if samples is not None else {}
    total = sum(g[0].bytes for g in groups)
    for group in work.progress.track(groups, label="dynamic", total=total, size=lambda group: group[0].bytes):
        kinds = {s.kind for s in group}
        if other := other_readers(group):
            decisions.say(group, f"{other} reads its weight, too")
        elif objection := layout_objection(group):
            decisions.say(group, objection)
        elif len({work.owner(s.name, s.node.op_type) for s in group}) > 1:
            decisions.say(group, "its weight is shared with nodes of another scheme")
        elif Kind.CONVOLUTION in kinds:
            decisions.say(group, _CONVOLUTION)
        elif kinds == {Kind.RECURRENT} and any(s.node.op_type != "LSTM" for s in group):
            _store(group, "no integer form", tables, decisions, tally)
        elif kinds == {Kind.RECURRENT} and len(group) == 1:
            recurrent.setdefault(group[0].name, []).append(group[0])
        elif kinds == {Kind.TABLE}:
            rounded = _rounded(group[0], tally)
            tables.write(group, rounded.codes, [Form.ROWS] * len(group), None)
            decisions.say(group, _DONE[Kind.TABLE], taken=True)
        elif kinds == {Kind.TABLE, Kind.PRODUCT}:
            rounded = _rounded(group[0], tally)
            forms = [Form.ROWS if s.kind is Kind.TABLE else Form.DEQUANTIZE for s in group]
            tables.write(group, rounded.codes, forms, None)
            decisions.say(group, "8-bit weights, stored once for table and product", taken=True)
        elif objection := next(filter(None, map(product_objection, group)), ""):
            _store(group, objection, tables, decisions, tally)
        else:
            rows = group[0].rows() * smoothed.get(group[0].name, np.float32(1))
            _products(group, int8_rows(rows, saturates=saturates), emitter, decisions, tally)
    for sites in recurrent.values():
        reason = lstm_objection(sites[0].node) or (
            "" if len(sites) == 2 else "one of its weights is too small or shared"
        )
        if reason:
            for site in sites:
                _store([site], reason, tables, decisions, tally)
        else:
            _recurrent(sites, emitter, decisions, tally, saturates=saturates)
    return Converted(
        model=model,
        nodes=decisions.nodes,
        notes=(
            *((f"inputs of {len(smoothed)} products smoothed{made}",) if smoothed else ()),
            *tally.sparsity(),
        ),
        method="as the model runs",
        samples=len(work.samples.first(_SAMPLES)) if smoothed and work.samples is not None else 0,
    )


def _smooth(
    work: Work, samples: Samples, groups: Sequence[Sequence[Site]], additions: Additions
) -> dict[str, NDArray[np.float32]]:
    """Divide inputs of products by factors where that pays; the factors [K] by node.

    A product takes part if its weight is its own; products that read one value share its factors, so all of them must.
    """
    graph = view_of(work.model)
    readers: dict[str, list[Site]] = {}
    for site in (s for group in groups for s in group):
        source = graph.nodes[site.name].input(0) if site.name in graph.nodes else None
        if site.kind is Kind.PRODUCT and source is not None and not graph.is_constant(source):
            readers.setdefault(source, []).append(site)
    alone = {s.name for g in groups if len(g) == 1 and not other_readers(tuple(g)) for s in g}
    kept = {t: s for t, s in readers.items() if all(x.name in alone and not product_objection(x) for x in s)}
    try:
        seen = extremes(work.model, list(kept), samples.first(_SAMPLES))
    except ModelError:
        if work.samples is not None:
            raise
        return {}  # made-up inputs need not be what the model takes
    factors = {}
    for source, extreme in seen.items():
        found = factors_of(extreme, np.concatenate([x.rows() for x in kept[source]]))
        if found is not None:
            factors[source] = found
    for source, f in factors.items():
        scale_input([x.node for x in kept[source]], f, additions)
    return {x.name: f for source, f in factors.items() for x in kept[source]}


def _is_ours(group: Sequence[Site], work: Work) -> bool:
    return any(work.owner(s.name, s.node.op_type) == "dynamic" for s in group)


def _rounded(site: Site, tally: Tally) -> Rounded:
    rows = site.rows()
    rounded = ROUNDINGS.get("rtn").round(rows, _ROWS, None)
    tally.add(rows, rounded.real())
    return rounded


def _store(group: Sequence[Site], reason: str, emitter: BlockEmitter, decisions: _Decisions, tally: Tally) -> None:
    """Store the one weight of ``group`` in bytes, for arithmetic in float."""
    rounded = _rounded(group[0], tally)
    emitter.write(group, rounded.codes, [Form.UNPACK] * len(group), None)
    decisions.say(group, f"{reason}: 8-bit weights, float arithmetic", taken=True)


def _products(
    group: Sequence[Site], rows: Int8Rows, emitter: DynamicEmitter, decisions: _Decisions, tally: Tally
) -> None:
    tally.add(group[0].rows(), rows.real())
    for site in group:
        decisions.say([site], _DONE[site.kind], taken=True)
        emitter.attention(site, rows) if site.kind is Kind.ATTENTION else emitter.product(site, rows)


def _recurrent(
    sites: Sequence[Site], emitter: DynamicEmitter, decisions: _Decisions, tally: Tally, *, saturates: bool
) -> None:
    w, r = sorted(sites, key=lambda s: s.port)
    decisions.say(sites, _DONE[Kind.RECURRENT], taken=True)
    codes = [(s, int8_rows(s.rows(), saturates=saturates)) for s in (w, r)]
    for site, rows in codes:
        tally.add(site.rows(), rows.real())
    emitter.lstm(sites[0].node, *codes)


def _check(recipe: Recipe) -> None:
    if recipe.format != "qdq":
        raise RecipeError(
            "dynamic quantization has one form: DynamicQuantizeLinear and MatMulInteger",
            hint="leave --format out, or use --scheme int8 for QOperator",
        )


SCHEMES.add(
    "dynamic",
    Scheme(
        name="dynamic",
        convert=convert,
        least_opset=lambda recipe: 13,
        check=_check,
    ),
)

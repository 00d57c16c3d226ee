"""Weight-only schemes: weights of few bits, arithmetic in float.

What becomes of a weight follows from what reads it:

    products            blocks, or a scale for each output channel; small ones unpacked when the model is loaded, which
                        is faster then (docs/decisions/0042)
    embedding tables    blocks (GatherBlockQuantized), or 8 bits a row
    convolutions, LSTM, GRU, RNN    8 bits a channel, unpacked when the model is loaded: for size alone

A weight that several operators read is stored once, which takes that all of them are of the scheme.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qconvert.emit.additions import Additions
from qconvert.emit.block_weights import LEAST_BLOCK, BlockEmitter, Form
from qconvert.emit.dynamic import product_objection
from qconvert.emit.filters import filter_rows
from qconvert.emit.sites import Kind, Site, find_sites, layout_objection, other_readers, shared
from qconvert.emit.ties import tie_tables
from qconvert.errors import RecipeError
from qconvert.graph.model import Model
from qconvert.numerics.blocks import BlockCodes, BlockSpec
from qconvert.plan.model import Decision, NodePlan
from qconvert.recipe.recipe import AUTO, WHOLE_ROW, Recipe
from qconvert.rounding.method import ROUNDINGS, Moments, Rounded
from qconvert.schemes.moments import SAMPLES, each_with_moments
from qconvert.schemes.scheme import Converted, Work
from qconvert.schemes.tally import Tally

# without and with calibration data, where the recipe leaves it open (docs/decisions/0022)
_DATA_FREE, _WITH_DATA = "mse", "gptq"
_DEFAULT_BLOCK = 32
# Products with weights of fewer numbers run faster in float: packed ones of 64 x 64 to 128 x 128 have 0.2 to 1.0 times
# the speed of float, those of 256 x 256 0.9 to 1.5 times with 8 and 4 bits (ONNX Runtime 1.32, 1 to 128 rows).
_LEAST_PACKED = 1 << 16
# Numbers of a weight that are rounded at once: temporaries of 64 MB.
_PART = 1 << 24
_PACKABLE = frozenset({Kind.PRODUCT, Kind.TABLE})
_OPSETS = {8: 13, 4: 21, 2: 25}


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightOnly:
    """A weight-only scheme.

    Attributes:
        name: as users write it.
        bits: of products and tables.
    """

    name: str
    bits: int

    def block(self, recipe: Recipe) -> int:
        """Weights that share a scale, 0 for all of a row."""
        if recipe.block == 0:
            return 0 if self.bits == 8 else _DEFAULT_BLOCK
        return 0 if recipe.block == WHOLE_ROW else recipe.block

    def nbits(self, recipe: Recipe) -> bool:
        """Whether products are MatMulNBits."""
        if recipe.weight_format == AUTO:
            return self.bits < 8 and self.block(recipe) > 0
        return recipe.weight_format == "nbits"

    def check(self, recipe: Recipe) -> None:
        """Refuse what cannot be.

        Raises:
            RecipeError: with the nearest that works.
        """
        if recipe.rounding != AUTO:
            ROUNDINGS.get(recipe.rounding)
        if recipe.weight_format == "nbits" and self.block(recipe) == 0:
            raise RecipeError(
                f"{self.name} with a scale for each output channel cannot be MatMulNBits, which has blocks",
                hint="give --block 32 (16 to 256), or --weight-format qdq",
            )
        if recipe.per_channel is False:
            raise RecipeError(
                f"{self.name} has a scale for each block or output channel, not one in all",
                hint="leave --per-tensor out; --block -1 has the fewest scales",
            )

    def least_opset(self, recipe: Recipe) -> int:
        """DequantizeLinear knows axes from 13 on, blocks and 4 bits from 21, 2 bits from 25."""
        if self.nbits(recipe):
            return _OPSETS[8]
        if recipe.weight_format == "unpack":
            return _OPSETS[self.bits]
        return max(_OPSETS[self.bits], 21 if self.block(recipe) else 13)

    def opset_for(self, recipe: Recipe, model: Model) -> int:
        """What small products want in order to be unpacked when the model is loaded: Cast of 4 or 2 bits."""
        least = self.least_opset(recipe)
        small = (s.kind in _PACKABLE and math.prod(s.shape) < _LEAST_PACKED for s in find_sites(model))
        if not self.nbits(recipe) or recipe.weight_format != AUTO or not any(small):
            return least
        return max(least, _OPSETS[self.bits])

    def convert(self, work: Work) -> Converted:
        """Store the weights of the scheme's nodes otherwise."""
        model = work.model.clone()
        tie_tables(model)
        plans, nodes = self._plans(find_sites(model), work)
        rounder = _Rounder(work=work)
        additions = Additions(model=model.ir, spool=work.spool)
        emitter = BlockEmitter(additions=additions, accuracy_level=work.recipe.accuracy_level)
        tally = Tally()
        samples = work.samples if rounder.uses_data else None
        turns = each_with_moments([p.sites for p in plans], work.model, samples)
        tracked = work.progress.track(
            turns,
            label=self.name,
            total=sum(p.sites[0].bytes for p in plans),
            size=lambda turn: plans[turn[0]].sites[0].bytes,
        )
        for i, moments in tracked:
            plan = plans[i]
            rounded = rounder.round(plan, moments, tally)
            emitter.write(plan.sites, rounded.codes, plan.forms, rounded.factors)
            plan.sites[0].unmap()
        return Converted(
            model=model,
            nodes=nodes,
            notes=tally.notes(),
            method=rounder.method,
            samples=min(SAMPLES, len(samples)) if samples is not None else 0,
        )

    def _plans(self, sites: tuple[Site, ...], work: Work) -> tuple[list[_Plan], dict[str, NodePlan]]:
        plans: list[_Plan] = []
        nodes: dict[str, NodePlan] = {}
        for readers in shared(sites).values():
            owners = {work.owner(s.name, s.node.op_type) for s in readers}
            if self.name not in owners:
                continue
            plan, reason = self._plan(readers, owners, work.recipe, work.model.opset)
            if plan is not None:
                plans.append(plan)
            for site in readers:
                known = nodes.get(site.name)
                if known is None or not known.decision.taken:
                    decision = Decision(taken=plan is not None, reason=reason)
                    nodes[site.name] = NodePlan(node=site.name, op_type=site.node.op_type, decision=decision)
        return plans, nodes

    def _plan(
        self, readers: tuple[Site, ...], owners: set[str], recipe: Recipe, opset: int
    ) -> tuple[_Plan | None, str]:
        """(what becomes of a weight, why); None: it stays float."""
        if len(owners) > 1:
            return None, f"its weight is shared with nodes of {', '.join(sorted(owners - {self.name}))}"
        if other := other_readers(readers):
            return None, f"{other} reads its weight, too"
        if objection := layout_objection(readers):
            return None, objection
        kinds = {s.kind for s in readers}
        if Kind.ATTENTION in kinds:
            return None, "Attention takes float weights only"
        parts = {recipe.embeddings} if Kind.TABLE in kinds else set()
        parts |= {recipe.lm_head} if any(s.is_head for s in readers) else set()
        if "float" in parts:
            return None, "kept in float by --embeddings or --lm-head"
        qdq = recipe.weight_format == "qdq"
        bits, block = (8, 0) if "w8" in parts else (self.bits, self.block(recipe))
        nbits = self.nbits(recipe) and block > 0 and not any(map(product_objection, readers))
        small = recipe.weight_format == AUTO and opset >= _OPSETS[bits] and math.prod(readers[0].shape) < _LEAST_PACKED
        if kinds - _PACKABLE:
            bits, block, nbits = 8, 0, False
        elif Kind.TABLE in kinds and not (small and nbits):
            columns = readers[0].shape[1]
            while nbits and block >= LEAST_BLOCK and columns % block:
                block //= 2
            if not nbits or block < LEAST_BLOCK:  # standard operators pick rows of whole bytes
                bits, block, nbits = 8, 0, False
        unpacked = recipe.weight_format == "unpack" or (bool(kinds - _PACKABLE) and not qdq)
        unpacked |= small
        picked = Form.UNPACK if small and (nbits or len(readers) == 1) else Form.ROWS
        nbits = nbits and not unpacked
        whole = Form.UNPACK if unpacked else Form.DEQUANTIZE
        forms = tuple(Form.NBITS if nbits else picked if s.kind is Kind.TABLE else whole for s in readers)
        spec = BlockSpec(bits=bits, block=block, symmetric=bool(recipe.symmetric))
        shared_by = "a scale for each channel" if not block else f"blocks of {block}"
        once = ", stored once for all that read it" if len(readers) > 1 else ""
        loaded = ", unpacked when the model is loaded" if Form.UNPACK in forms and kinds <= _PACKABLE else ""
        return _Plan(sites=readers, spec=spec, forms=forms), f"{bits}-bit weights, {shared_by}{loaded}{once}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """One weight: who reads it, and how it is stored."""

    sites: tuple[Site, ...]
    spec: BlockSpec
    forms: tuple[Form, ...]


@dataclass(slots=True, kw_only=True)
class _Rounder:
    """Rounds weights by the recipe's method."""

    work: Work

    @property
    def method(self) -> str:
        """The method's name."""
        if self.work.recipe.rounding != AUTO:
            return self.work.recipe.rounding
        return _DATA_FREE if self.work.samples is None else _WITH_DATA

    @property
    def uses_data(self) -> bool:
        """Whether moments help."""
        return ROUNDINGS.get(self.method).needs_moments and self.work.samples is not None

    def round(self, plan: _Plan, moments: Moments | None, tally: Tally) -> Rounded:
        """The codes of one weight; 8 bits need no method, but for filters.

        Rows are rounded a part at a time where no data join them.
        """
        method = ROUNDINGS.get("rtn" if plan.spec.bits == 8 else self.method)
        is_filter = all(s.kind is Kind.CONVOLUTION for s in plan.sites)
        view = plan.sites[0].row_view()
        step = view.shape[0] if moments is not None else max(1, _PART // max(1, view.shape[1]))
        parts = []
        for start in range(0, view.shape[0], step):
            rows = np.ascontiguousarray(view[start : start + step], np.float32)
            parts.append(
                filter_rows(plan.sites, rows, plan.spec) if is_filter else method.round(rows, plan.spec, moments)
            )
            tally.add(rows, parts[-1].real())
        tally.weights += 1
        return parts[0] if len(parts) == 1 else _joined(parts)


def _joined(parts: Sequence[Rounded]) -> Rounded:
    codes = [p.codes for p in parts]
    whole = BlockCodes(
        spec=codes[0].spec,
        codes=np.concatenate([c.codes for c in codes]),
        scale=np.concatenate([c.scale for c in codes]),
        zero=np.concatenate([c.zero for c in codes]),
    )
    return Rounded(codes=whole, method=parts[0].method)

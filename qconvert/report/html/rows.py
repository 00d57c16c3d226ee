"""The rows of the layer table, and the regions of the graph that they form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import groupby

from qconvert.report.model import NodeDecision, TensorReport, WeightReport
from qconvert.report.renderers import phrases, tally


class Kind(Enum):
    """Where a node runs. The value is a class of ``style.css`` and what the page calls it."""

    INTEGER = "integer"
    ABSORBED = "absorbed"
    FLOAT = "float"
    SHAPES = "shapes"

    @property
    def meaning(self) -> str:
        """For the legend."""
        return {
            Kind.INTEGER: "computed on integers",
            Kind.ABSORBED: "part of the integer operator before it",
            Kind.FLOAT: "stays in float",
            Kind.SHAPES: "no float arithmetic: shapes, indices, masks",
        }[self]


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorRef:
    """A tensor with the id of its figure."""

    anchor: str
    tensor: TensorReport

    @property
    def text(self) -> str:
        """uint8, 0.0235."""
        return f"{self.tensor.dtype}, {phrases.significant(self.tensor.scale)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One node.

    Attributes:
        anchor: id of its row.
        number: its place in the graph, from 1.
        decision: what the report says of it.
        kind: where it runs.
        input, output: the first quantized tensor that it reads, and that it writes.
    """

    anchor: str
    number: int
    decision: NodeDecision
    kind: Kind
    input: TensorRef | None
    output: TensorRef | None

    @property
    def weighted(self) -> bool:
        """Whether it has weights stored as integers."""
        return self.decision.weight is not None

    @property
    def weight(self) -> str:
        """int8, 0.00123; int8, 32 scales 0.00123..0.0112; "" without an integer weight."""
        w = self.decision.weight
        return _scales(w) if w is not None else ""

    @property
    def strongest(self) -> str:
        """The largest part of the error, with its share: "71 % activation rounding"; "" where it was not measured."""
        split = self.decision.error_split
        if not split:
            return ""
        cause = max(split, key=lambda c: split[c])
        return f"{split[cause]:.0%} {cause}".replace("% ", "\u00a0% ", 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """Neighbours in graph order that run on the same kind of numbers; what computes no floats belongs to either."""

    integer: bool
    rows: tuple[Row, ...]

    @property
    def text(self) -> str:
        """27 Conv, 26 Clip: what it holds, without shape arithmetic where there is anything else."""
        counted = [r.decision for r in self.rows if r.kind is not Kind.SHAPES] or [r.decision for r in self.rows]
        totals = sorted(tally.op_totals(counted).items(), key=lambda item: -item[1])
        return tally.listed(totals)


def rows_of(decisions: Sequence[NodeDecision], tensors: Mapping[str, TensorRef]) -> list[Row]:
    """A row for every node, in graph order."""
    return [
        Row(
            anchor=f"n{i}",
            number=i,
            decision=d,
            kind=_kind(d),
            input=_first(d.reads, tensors),
            output=_first(d.writes, tensors),
        )
        for i, d in enumerate(decisions, 1)
    ]


def regions_of(rows: Sequence[Row]) -> list[Region]:
    """The rows cut where integers meet float."""
    sides: list[tuple[bool, Row]] = []
    for row in rows:
        on_integers = row.kind in (Kind.INTEGER, Kind.ABSORBED)
        if row.kind is Kind.SHAPES:
            on_integers = sides[-1][0] if sides else False
        sides.append((on_integers, row))
    return [Region(integer=side, rows=tuple(r for _, r in run)) for side, run in groupby(sides, key=lambda s: s[0])]


def columns_of(rows: Sequence[Row]) -> frozenset[str]:
    """The optional columns of the layer table that hold anything."""
    filled = {
        "input": any(r.input for r in rows),
        "output": any(r.output for r in rows),
        "weight": any(r.weight for r in rows),
        "sqnr": any(r.decision.sqnr_db is not None for r in rows),
        "split": any(r.decision.error_split for r in rows),
        "float": any(r.decision.float_ms is not None for r in rows),
        "integer": any(r.decision.integer_ms is not None for r in rows),
    }
    return frozenset(name for name, there in filled.items() if there)


def _kind(decision: NodeDecision) -> Kind:
    if decision.quantized:
        return Kind.ABSORBED if decision.absorbed_into else Kind.INTEGER
    return Kind.SHAPES if tally.reason_of(decision) == tally.SHAPES else Kind.FLOAT


def _first(names: Sequence[str], tensors: Mapping[str, TensorRef]) -> TensorRef | None:
    return next((tensors[n] for n in names if n in tensors), None)


def _scales(weight: WeightReport) -> str:
    if weight.least_scale is None or weight.greatest_scale is None:
        return weight.dtype
    low, high = phrases.significant(weight.least_scale), phrases.significant(weight.greatest_scale)
    return f"{weight.dtype}, {low}" if weight.scales == 1 else f"{weight.dtype}, {weight.scales} scales {low}..{high}"

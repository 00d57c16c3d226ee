"""Placements that are tried, and what is told of the choice among them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from qconvert.conversion import Quantized
from qconvert.evaluate.fidelity import output_energies, sqnr_db
from qconvert.evaluate.latency import Latency, speedup
from qconvert.graph.session import Feed, Session
from qconvert.measure.forms import Gain
from qconvert.plan.model import QuantPlan
from qconvert.recipe.recipe import Recipe
from qconvert.report.model import FormReport, PlacementReport, PlacementTrial

# Names of the float model, of the plan by the target's table, and of the one that leaves everything in float.
FP32, STATIC_TRIAL, IN_FLOAT = "fp32", "static", "float"


# Samples on which outputs of trials are compared.
_LOOKED_AT = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A placement, by the recipe that asks for it, and the model in it."""

    name: str
    recipe: Recipe
    result: Quantized

    @property
    def integer(self) -> frozenset[str]:
        return integer_nodes(self.result.plan)


def integer_nodes(plan: QuantPlan) -> frozenset[str]:
    """The nodes of ``plan`` that run on integers; those that only store their weights so do not."""
    return frozenset(n.node for n in plan.taken() if n.activations or n.form or n.absorbed_into or n.table)


def output_sqnr(trials: Sequence[Trial], reference: Session, samples: Iterable[Feed]) -> list[float]:
    """The SQNR of the outputs of each of ``trials`` in dB, on the first few of ``samples``, pooled."""
    feeds, found = list(islice(samples, _LOOKED_AT)), []
    for trial in trials:
        energies = output_energies(reference, trial.result.session, feeds)
        found.append(sqnr_db(sum(s for s, _ in energies), sum(n for _, n in energies)))
    return found


def placement_report(
    best: Trial,
    trials: Sequence[Trial],
    latencies: Mapping[str, Latency],
    gains: Sequence[Gain],
    *,
    pinned: tuple[str, ...],
    seconds: float,
) -> PlacementReport:
    """What was tried and chosen.

    Args:
        best: the choice.
        trials: all of them.
        latencies: theirs, and that of the float model.
        gains: what other forms of operators gain in the choice.
        pinned: the operators that could run on integers and do not.
        seconds: what the search took.
    """
    return PlacementReport(
        chosen=best.name,
        fp32_ms=latencies[FP32].median_ms,
        trials=tuple(
            PlacementTrial(
                name=t.name,
                integer_nodes=len(t.integer),
                median_ms=latencies[t.name].median_ms,
                speedup=speedup(latencies[FP32], latencies[t.name]),
            )
            for t in trials
        ),
        pinned_float=pinned,
        pinned_forms=best.recipe.forms,
        forms=tuple(
            FormReport(
                nodes=tuple(g.forms),
                forms=tuple(g.forms.values()),
                plain_ms=g.plain_us / 1e3,
                form_ms=g.form_us / 1e3,
            )
            for g in gains
        ),
        seconds=seconds,
    )


def told(report: PlacementReport, best: Trial, operations: int) -> str:
    """The choice in a sentence."""
    found = next(t for t in report.trials if t.name == best.name)
    if best.name == IN_FLOAT:
        others = max((t.speedup.median for t in report.trials if t.name != IN_FLOAT), default=0.0)
        return (
            f"integers do not pay for this model on this machine ({others:.2f} times the speed of FP32 at best): it "
            "computes in float, and weights are stored as integers and unpacked when it is loaded"
        )
    return (
        f"placement measured, one thread: {found.integer_nodes} of {operations} operators on integers take "
        f"{found.median_ms:.3g} ms, FP32 takes {report.fp32_ms:.3g} ms"
    )


def told_forms(plan: QuantPlan, gains: Sequence[Gain]) -> tuple[str, ...]:
    """What the forms gain, in a sentence; of those that ``plan`` began with it is not known."""
    if not gains:
        joined = sum(bool(n.takes) for n in plan.nodes.values())
        return (f"{joined} activation functions as one float operator each, between integers",) if joined else ()
    counts = Counter(form for g in gains for form in g.forms.values())
    listed = ", ".join(f"{n} {form}" for form, n in counts.items())
    before, after = (sum(us) for us in zip(*((g.plain_us, g.form_us) for g in gains), strict=True))
    return (f"operators in other forms, {listed}: with what they are fused with {after:,.0f} us, {before:,.0f} before",)

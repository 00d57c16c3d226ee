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


# A placement takes the place of a simpler one only if it is faster by this factor, in the median of paired runs.
HYSTERESIS = 1.02
# Outputs of which nobody asks for better ones for a price.
GOOD_DB = 30.0
# Of placements that are equally fast, one whose outputs are better by so much is taken, unless all are as good as that;
# a small difference may be gone after recovery.
_MUCH_DB, _ENOUGH_DB = 1.0, 50.0
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


def fastest(trials: Sequence[Trial], latencies: Mapping[str, Latency]) -> Trial:
    """The fastest; a later one only if it is faster than those before it by more than noise."""
    best = trials[0]
    for other in trials[1:]:
        if speedup(latencies[best.name], latencies[other.name]).median > HYSTERESIS:
            best = other
    return best


def as_fast(best: Trial, trials: Sequence[Trial], latencies: Mapping[str, Latency]) -> list[Trial]:
    """Those of ``trials`` that are no slower than ``best``, but for noise; itself among them."""
    return [t for t in trials if speedup(latencies[best.name], latencies[t.name]).median * HYSTERESIS >= 1]


def most_accurate(best: Trial, trials: Sequence[Trial], found_db: Sequence[float]) -> Trial:
    """That of ``trials``, with outputs of ``found_db``, that is much better than ``best``, if not good enough."""
    of = {t.name: db for t, db in zip(trials, found_db, strict=True)}
    other = max(trials, key=lambda t: of[t.name])
    return other if of[best.name] < _ENOUGH_DB and of[other.name] > of[best.name] + _MUCH_DB else best


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

"""A model made again with some of its operators back in float, and how near its outputs are then.

What is held against a limit is not the SQNR of the samples looked at but the end of its confidence interval, where few
samples say little about others. With s_i and e_i the energies of sample i and of its error, n samples, t Student's
quantile,

    R = sum e_i / sum s_i       d_i = (e_i - R s_i) / mean s       least SQNR = -10 log10( R + t std(d) / sqrt(n) )

which is the usual linearisation of a ratio of means (Cochran 1977, Sampling Techniques, section 2.11).
"""

from __future__ import annotations

import math
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace

import numpy as np

from qconvert.conversion import Quantized
from qconvert.evaluate.fidelity import FLOOR_DB, output_energies, sqnr_db
from qconvert.evaluate.interval import score_interval
from qconvert.forms import DYNAMIC, TITLES, TWO_BYTES
from qconvert.graph.build_view import view_of
from qconvert.graph.session import Feed, Session
from qconvert.pipeline import Started, make_quantized
from qconvert.plan.build import MEASURED_FLOAT, PINNED_FLOAT
from qconvert.plan.costs import LEAST_STORED
from qconvert.plan.forms import entries, without
from qconvert.plan.model import told_as
from qconvert.recipe.recipe import NO_RECOVERY, PINNED, Recipe
from qconvert.recover.samples import Feeds, Samples, seen_and_judging
from qconvert.sensitivity.analysis import Analysis
from qconvert.trials import integer_nodes
from qconvert.tuning.search import noise_at
from qconvert.tuning.tuning import FOR_ACCURACY

RUNNING = f"integer kernel; for the accuracy of the outputs {TITLES[DYNAMIC]}"

# How sure it has to be that other samples reach it: the interval has two ends, of which one is looked at.
_CONFIDENCE = 0.9
# Samples that are looked at, at most; and where those that judge recovery are fewer, all are.
_SAMPLES, _ENOUGH = 16, 8
# Of the noise that is tolerated, what stored weights of operators that went back to float may make.
_STORED_SHARE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """SQNR of the outputs in dB: ``db`` on the samples looked at, pooled, and ``least_db`` that others should reach."""

    db: float
    least_db: float

    @classmethod
    def of(cls, energies: Sequence[tuple[float, float]]) -> Measured:
        """From (energy, energy of the error) of each sample. With fewer than five samples both figures are the same."""
        signal, noise = (np.array([pair[i] for pair in energies], np.float64) for i in (0, 1))
        if not signal.sum() > 0 or not np.isfinite(noise).all():
            return cls(db=math.inf, least_db=math.inf)
        share = noise.sum() / signal.sum()
        interval = score_interval(share + (noise - share * signal) / signal.mean(), 2 * _CONFIDENCE - 1)
        most = share if interval is None else interval.high
        return cls(db=sqnr_db(1.0, float(share)), least_db=sqnr_db(1.0, float(most)))

    def __str__(self) -> str:
        return f"{self.db:.1f} dB"

    def because(self) -> str:
        """Why it is too little, in a clause."""
        if self.db < FLOOR_DB:
            return f"the outputs have an SQNR of {self} on calibration samples, less than {FLOOR_DB:g} dB"
        return (
            f"the outputs have an SQNR of {self} on calibration samples, but it differs so much between them that on "
            f"others it may be {self.least_db:.1f} dB, less than {FLOOR_DB:g} dB"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Fallback:
    """A model in a placement that was chosen for it, to be made again with less of it on integers.

    Attributes:
        started: the run.
        quantized: its result.
        order: all nodes.
        pinned, forms: those that are in float there, and the forms of others, as a recipe says it.
        excluded: those whose weights are float there, too.
    """

    started: Started
    quantized: Quantized
    order: tuple[str, ...]
    pinned: tuple[str, ...]
    forms: tuple[str, ...]
    excluded: tuple[str, ...] = ()

    @classmethod
    def of(cls, started: Started, quantized: Quantized) -> Fallback:
        """Where nothing was measured, what the target's table left in float stays there."""
        order = tuple(view_of(started.prepared.model).nodes)
        placed, integer = quantized.placement, integer_nodes(quantized.plan)
        left = tuple(name for name in order if name not in integer)
        if placed is None:
            return cls(started=started, quantized=quantized, order=order, pinned=left, forms=started.run.recipe.forms)
        return cls(
            started=started,
            quantized=quantized,
            order=order,
            pinned=placed.pinned_float,
            forms=placed.pinned_forms,
            excluded=placed.excluded,
        )

    def made(
        self,
        back: Set[str],
        whole: Set[str] = frozenset(),
        running: Set[str] = frozenset(),
        *,
        bytes_each: int = 2,
        trial: bool = False,
    ) -> Quantized:
        """The model with ``back`` in float arithmetic, and weights of ``whole`` stored in two bytes each, or in four.

        What picks rows of a table reads a float one in any case. Those of ``back`` that are ``running``, too, quantize
        what they read as the model runs, unless they are ``whole``. The placement is pinned. A ``trial`` takes of
        recovery what was kept of it before, which is several times as fast; a recipe that names the placement does not.
        """
        run = self.started.run
        tables = {n.node for n in self.quantized.plan.taken() if n.table is not None}
        bare = whole if bytes_each > 2 else whole & tables
        excluded = tuple(name for name in self.order if name in bare or name in self.excluded)
        stored = self._stored(whole - bare)
        dynamic = [name for name in self.order if name in (back & running) - whole]
        forms = without(self.forms, back, DYNAMIC)
        floats = {*self.pinned, *back} - set(excluded)
        recipe = replace(
            run.recipe,
            placement=PINNED,
            pinned_float=tuple(name for name in self.order if name in floats),
            forms=(*forms, *entries({**dict.fromkeys(stored, TWO_BYTES), **dict.fromkeys(dynamic, DYNAMIC)})),
            exclude=(*run.recipe.exclude, *excluded),
        )
        used = replace(recipe, recover=self._kept) if trial else recipe
        made = make_quantized(self.started.prepared, replace(run, recipe=used), required=False)
        told = replace(made, plan=told_as(made.plan, self.quantized.plan))  # what was measured, and why
        return _reported(_explained(told, back | whole), self.quantized, recipe, excluded)

    @property
    def as_trials(self) -> bool:
        """Whether a trial is what it would be otherwise: recovery is asked for by name, or not at all."""
        return self._kept == self.started.run.recipe.recover

    @property
    def _kept(self) -> tuple[str, ...]:
        return tuple(r.name for r in self.quantized.recoveries if r.kept) or (NO_RECOVERY,)

    def _stored(self, names: Set[str]) -> list[str]:
        """Those of ``names`` whose weights are stored as integers where they compute in float."""
        if not names:
            return []
        tensors, nodes = view_of(self.started.prepared.model).tensors, self.quantized.plan.nodes
        sizes = {n: sum(tensors[w.tensor].elements() for w in (nodes[n].weight, nodes[n].second) if w) for n in names}
        return [name for name in self.order if sizes.get(name, 0) >= LEAST_STORED]


def sqnr_of(reference: Session, quantized: Session, feeds: Sequence[Feed]) -> Measured:
    """Of all float outputs together; inf where there are none."""
    return Measured.of(output_energies(reference, quantized, feeds))


def looked_at(feeds: Feeds, most: int = _SAMPLES) -> Samples:
    """The samples whose outputs are looked at, ``most`` at most: those that judge recovery, unless they are few."""
    seen, judging = seen_and_judging(feeds)
    every = Samples(feeds=feeds, indices=sorted({*seen.indices, *judging.indices}))
    return (judging if len(judging) >= _ENOUGH else every).first(most)


def too_noisy(analysis: Analysis, back: Set[str], db: float) -> frozenset[str]:
    """Those of ``back`` whose weights must not be stored as integers either, if outputs are to have an SQNR of ``db``:
    together, what rounding them does to the outputs would be a good part of what is tolerated."""
    weights = [
        (noise.noise, source.nodes)
        for source, noise in zip(analysis.sources, analysis.measured.sources, strict=True)
        if source.is_weight and source.nodes <= back
    ]
    left = noise_at(db) * _STORED_SHARE
    whole = set[str]()
    for noise, nodes in sorted(weights, key=lambda weight: weight[0]):
        left -= noise
        if left < 0:
            whole.update(nodes)
    return frozenset(whole)


def _explained(made: Quantized, back: Set[str]) -> Quantized:
    """``made`` with the reason why ``back`` is in float, in place of that of the recipe which was made for it."""
    nodes = dict(made.plan.nodes)
    for name in back & nodes.keys():
        node = nodes[name]
        if node.form == DYNAMIC and node.second is None:
            nodes[name] = replace(node, decision=replace(node.decision, reason=RUNNING))
        elif not node.decision.taken or not (node.activations or node.form):
            stored = ""
            if node.decision.taken and node.weight is not None:
                bits = node.weight.spec.qtype.bits
                stored = f"; its weight is stored as integers{'' if bits == 8 else f' of {bits} bits'}"
            nodes[name] = replace(node, decision=replace(node.decision, reason=f"{FOR_ACCURACY}{stored}"))
    for name, node in nodes.items():
        if node.decision.reason.startswith(PINNED_FLOAT):  # by the recipe that was made here
            reason = node.decision.reason.replace(PINNED_FLOAT, MEASURED_FLOAT, 1)
            nodes[name] = replace(node, decision=replace(node.decision, reason=reason))
    return replace(made, plan=replace(made.plan, nodes=nodes))


def _reported(made: Quantized, before: Quantized, recipe: Recipe, excluded: tuple[str, ...]) -> Quantized:
    """``made`` with what was measured for ``before``, and what ``recipe`` has changed."""
    report = before.placement
    if report is None:
        return made
    changed = replace(report, pinned_float=recipe.pinned_float, pinned_forms=recipe.forms, excluded=excluded)
    return replace(made, placement=changed, costs=before.costs)

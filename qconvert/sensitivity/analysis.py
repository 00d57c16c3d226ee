"""What each group of nodes does to the outputs: the stage behind ``qconvert sensitivity``.

It looks at the model that ``qconvert quantize`` makes, recovery included (corrected biases aside, which make up for the
errors of all groups together): the scales, and the rounded weights, are those of that model, from one set of
statistics. Groups, sources and their noise: :mod:`qconvert.sensitivity.sources`, :mod:`qconvert.sensitivity.measure`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from qconvert.conversion import Quantized, quantizes
from qconvert.errors import ModelError
from qconvert.evaluate.fidelity import sqnr_db
from qconvert.graph.build_view import view_of
from qconvert.graph.view import GraphView
from qconvert.inputs import ConversionJob
from qconvert.pipeline import Started, make_quantized, start
from qconvert.plan.damage import Term
from qconvert.plan.tradeoff import Tradeoff
from qconvert.progress import Progress, Silent
from qconvert.recover.recovery import Subject
from qconvert.recover.samples import Samples
from qconvert.report.notebook import MAX_ROWS, inline
from qconvert.report.renderers import phrases
from qconvert.report.renderers.facts import Fact, Level
from qconvert.report.summary import Grid
from qconvert.sensitivity.measure import Measured, MeasureOptions, measure
from qconvert.sensitivity.scores import GroupScores, score_groups
from qconvert.sensitivity.sources import NodeGroup, Source, find_groups, find_sources
from qconvert.targets.auto import target_of


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupDamage:
    """What one group does to the outputs.

    Attributes:
        name, op_type: the operator.
        nodes: what would go to float together.
        noise: squared error of the outputs with this group alone on integers, as a share of their power.
        sqnr_db: the same in dB; inf without any error.
        weight_rounding, weight_clipping, activation_rounding, activation_clipping: noise of each part alone.
        drop: how much worse the metric is with this group alone on integers, in its unit; None without labels.
        extra_us: what the group alone would cost more in float, by the target's estimates, in microseconds.
    """

    name: str
    op_type: str
    nodes: tuple[str, ...]
    noise: float
    sqnr_db: float
    weight_rounding: float
    weight_clipping: float
    activation_rounding: float
    activation_clipping: float
    drop: float | None
    extra_us: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """The whole analysis.

    Attributes:
        model: the file.
        groups: the worst first.
        sqnr_db: of the outputs with everything on integers.
        together, summed: noise of all sources at once, and the sum of each alone: equal where errors are independent.
        additivity_db: the sum against that of all together.
        sources: how many sources of error there are; neighbours share those between them.
        samples, runs: how many samples were used, and how often the model was run.
        source: where they come from.
        metric: the score of the float model, and with everything on integers; None without labels.
        notes: what else to know.
    """

    model: str
    groups: tuple[GroupDamage, ...]
    sqnr_db: float
    together: float
    summed: float
    additivity_db: float
    sources: int
    samples: int
    runs: int
    source: str
    metric: GroupScores | None = None
    notes: tuple[str, ...] = ()

    def _repr_html_(self) -> str:
        """What a notebook shows: the groups that do most damage."""
        shown = self.groups[:MAX_ROWS]
        title = f"The worst {MAX_ROWS} of {len(self.groups)} groups" if len(shown) < len(self.groups) else ""
        grid = Grid(
            title=title,
            columns=("group", "alone", "weight", "clipping", "activations", "clipping", "in float"),
            rows=tuple(_row(group) for group in shown),
            numeric=6,
        )
        told = f"{phrases.count(len(self.groups), 'group')} on integers, SQNR {phrases.decibels(self.sqnr_db)} together"
        notes = [Fact(label="note", text=note, level=Level.WARNING) for note in self.notes]
        return inline(f"{phrases.file_name(self.model)}: {told}", [grid], notes)


def _row(group: GroupDamage) -> tuple[str, ...]:
    """A group's SQNR alone, the shares of its causes, what it would cost more in float."""
    parts = (group.weight_rounding, group.weight_clipping, group.activation_rounding, group.activation_clipping)
    shares = (f"{part / (sum(parts) or 1.0):.0%}" for part in parts)
    extra = f"+{phrases.significant(group.extra_us, 2)} us"
    name = group.name if group.op_type in group.name else f"{group.name} {group.op_type}"
    return (name, phrases.decibels(group.sqnr_db), *shares, extra)


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """Sources and groups of a quantized model, with their noise.

    Attributes:
        graph: the canonical model.
        sources, groups: what was found.
        measured: their noise.
        tradeoff: every placement that is best at some exchange rate of noise and time.
    """

    graph: GraphView
    sources: tuple[Source, ...]
    groups: tuple[NodeGroup, ...]
    measured: Measured
    tradeoff: Tradeoff


def sensitivity(
    job: ConversionJob, progress: Progress | None = None, options: MeasureOptions | None = None
) -> Sensitivity:
    """Quantize in memory and measure every group; nothing is written.

    Raises:
        InputError: the model, the data or the recipe are unusable, or nothing is quantized in the main graph.
    """
    progress = progress or Silent()
    started = start(job, progress)
    quantized = make_quantized(started.prepared, started.run)
    found = analyze(started, quantized, options)
    scores = None
    notes = [f"the branches of If were not examined: {', '.join(quantized.branches)}"] if quantized.branches else []
    if started.labels is not None:
        scores = score_groups(_subject(started, quantized), quantized.plan, found.sources, found.groups, started)
        if scores is None:
            notes.append("no metric for each group: labels are not for one sample each, or samples were passed over")
    return _told(started, found, scores, tuple(notes))


def analyze(started: Started, quantized: Quantized, options: MeasureOptions | None = None) -> Analysis:
    """The noise of every source and group of ``quantized``, on calibration samples.

    Raises:
        ModelError: nothing is quantized in the main graph.
    """
    if not quantizes(quantized.plan):
        raise ModelError(
            f"{started.job.model}: nothing in the main graph runs on integers",
            hint="`qconvert inspect MODEL` gives the reason for every operator",
        )
    run, plan = started.run, quantized.plan
    subject = _subject(started, quantized)
    target = target_of(run.recipe.target)
    sources = find_sources(subject.graph, plan, target)
    groups = find_groups(subject.graph, plan, sources)
    with run.watch.stage("sensitivity"):
        measured = measure(subject, plan, sources, groups, options or MeasureOptions(), run.progress)
    terms = tuple(Term(nodes=s.nodes, noise=n.noise) for s, n in zip(sources, measured.sources, strict=True))
    tradeoff = Tradeoff.of(
        subject.graph, replace(run.recipe, include=(), exclude=()), target, plan, terms, quantized.costs
    )
    return Analysis(graph=subject.graph, sources=sources, groups=groups, measured=measured, tradeoff=tradeoff)


def _subject(started: Started, quantized: Quantized) -> Subject:
    """The canonical float model of ``quantized``, with what recovery has made of its weights; biases are its own."""
    samples = started.data.calibration
    plan = quantized.plan
    weights = {
        port: value
        for port, value in quantized.changes.constants.items()
        if (stored := plan.nodes[port[0]].weight) is not None and stored.port == port[1]
    }
    return Subject(
        model=quantized.prepared.model,
        graph=view_of(quantized.prepared.model),
        samples=Samples(feeds=samples, indices=range(len(samples))),
        plan=plan,
        changes=replace(quantized.changes, constants=weights),
    )


def damages_of(found: Analysis, scores: GroupScores | None = None) -> tuple[GroupDamage, ...]:
    """What every group of ``found`` does, in graph order; ``scores`` say what it does to the metric."""
    measured = found.measured
    extra = found.tradeoff.extra(g.name for g in found.groups)
    damages = []
    for i, group in enumerate(found.groups):
        known = measured.known is None or measured.known >= set(group.sources)
        parts = [(found.sources[s].is_weight, measured.sources[s]) for s in group.sources if known]
        damages.append(
            GroupDamage(
                name=group.name,
                op_type=group.op_type,
                nodes=group.nodes,
                noise=measured.groups[i],
                sqnr_db=sqnr_db(1.0, measured.groups[i]),
                weight_rounding=sum(n.rounding for weight, n in parts if weight),
                weight_clipping=sum(n.clipping for weight, n in parts if weight),
                activation_rounding=sum(n.rounding for weight, n in parts if not weight),
                activation_clipping=sum(n.clipping for weight, n in parts if not weight),
                drop=scores.drops[i] if scores is not None else None,
                extra_us=extra[group.name] / 1000,
            )
        )
    return tuple(damages)


def _told(started: Started, found: Analysis, scores: GroupScores | None, notes: tuple[str, ...]) -> Sensitivity:
    measured = found.measured
    return Sensitivity(
        model=str(started.job.model),
        groups=tuple(sorted(damages_of(found, scores), key=lambda d: -d.noise)),
        sqnr_db=sqnr_db(1.0, measured.together),
        together=measured.together,
        summed=measured.summed,
        additivity_db=measured.additivity_db,
        sources=len(found.sources),
        samples=measured.samples,
        runs=measured.runs,
        source=started.run.source,
        metric=scores,
        notes=notes,
    )

"""What each group does to the metric: the float model with this group alone on integers, on labelled samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from qconvert.calibrate.labels import Labels
from qconvert.evaluate.fidelity import leading_axis
from qconvert.evaluate.metric import METRICS, Metric, infer_metric
from qconvert.graph.session import Feed
from qconvert.pipeline import Started
from qconvert.plan.model import QuantPlan
from qconvert.recover.recovery import Subject
from qconvert.sensitivity.measure import all_of
from qconvert.sensitivity.sources import NodeGroup, Source
from qconvert.sensitivity.switchboard import Switchboard

# Every group costs a run for each; a drop of a percent or two is what so many can tell.
_MOST_LABELS = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupScores:
    """The metric, and what becomes of it.

    Attributes:
        name, unit: of the metric.
        reference: of the float model.
        quantized: with everything on integers.
        samples: how many samples it was computed on, spread over the evaluation data.
        drops: how much worse each group alone makes it, in the groups' order; positive is worse.
    """

    name: str
    unit: str
    reference: float
    quantized: float
    samples: int
    drops: tuple[float, ...] = field(repr=False)


def score_groups(
    subject: Subject, plan: QuantPlan, sources: Sequence[Source], groups: Sequence[NodeGroup], started: Started
) -> GroupScores | None:
    """Score every group on a part of the evaluation data; None where the labels do not go with single samples."""
    data, labels = started.data.evaluation, started.labels
    if labels is None or data.ledger.limit:
        return None
    board = Switchboard.of(subject.model, subject.graph, plan, subject.changes, sources)
    outputs = board.run(data.feed(0), {})
    metric = METRICS.get(started.job.metric or infer_metric(labels, [a.shape for a in outputs]))
    rows = metric.samples_needed(labels) // len(labels)
    if leading_axis(outputs) != 1 or rows * len(labels) != len(data):
        return None
    count = min(len(labels), _MOST_LABELS)
    chosen = [(2 * j + 1) * len(labels) // (2 * count) for j in range(count)]
    # the samples of label i are i, N + i, ... of N labels
    feeds = [data.feed(k * len(labels) + i) for k in range(rows) for i in chosen]
    picked = labels[chosen]
    with started.run.watch.stage("metric"):
        reference = _score(board, metric, picked, feeds, {})
        together = _score(board, metric, picked, feeds, all_of(board, sources))
        sign = 1.0 if metric.higher_is_better else -1.0
        drops = []
        for group in started.run.progress.track(groups, label="metric", total=len(groups)):
            on = all_of(board, [sources[i] for i in group.sources])
            value = _score(board, metric, picked, feeds, on)
            drops.append(0.0 if value == reference else sign * (reference - value))
    return GroupScores(
        name=metric.name,
        unit=metric.unit,
        reference=reference,
        quantized=together,
        samples=len(feeds),
        drops=tuple(drops),
    )


def _score(board: Switchboard, metric: Metric, labels: Labels, feeds: Sequence[Feed], on: Feed) -> float:
    accumulator = metric.start(labels)
    for number, feed in enumerate(feeds):
        accumulator.update(board.run(feed, on), feed, number)
    return accumulator.value()

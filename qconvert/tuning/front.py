"""The front between speed and accuracy, point by point."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from qconvert.evaluate.compare import MetricResult
from qconvert.report import model as report


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One model that was made and measured.

    Attributes:
        corner: its place on the estimated front, 0 where everything runs on integers that would without a budget.
        price: lambda, in microseconds for noise as strong as the outputs.
        float_nodes: the nodes that went back to float.
        integer_nodes: how many run on integers.
        estimated_us: cost of what can run on integers, and of conversions: from what was measured for the placement, or
            else by the target's estimates.
        expected_db: SQNR by the sum of noises, before a last Softmax.
        latency_ms, speedup: measured: median of a run on one sample, and how many times as fast as the float model.
        sqnr_db: of all outputs of all evaluation samples.
        metric: with labels.
        weight_bytes: of all constants.
        shortfall: by how much the budget is missed; 0 where it is met, or there is none.
        on_front: no other point has a lower estimated cost and no lower SQNR.
    """

    corner: int
    price: float
    float_nodes: tuple[str, ...]
    integer_nodes: int
    estimated_us: float
    expected_db: float
    latency_ms: float
    speedup: float
    sqnr_db: float
    metric: MetricResult | None
    weight_bytes: int
    shortfall: float
    on_front: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """What a search found.

    Attributes:
        points: the models that were measured, from the fastest to the most accurate by the estimates.
        chosen: the corner of the one that was written.
        corners: how many there are to choose from.
        budget: the limits, as the user wrote them; "" without.
        met: whether the model that was written keeps them.
        samples: evaluation samples.
        seconds: what the search took.
        complete: it ended by itself, and not for want of time.
        additivity_db: sum of the noises of all sources against that of all together; 0 where they add up.
        notes: what went wrong on the way.
    """

    points: tuple[Point, ...]
    chosen: int
    corners: int
    budget: str
    met: bool
    samples: int
    seconds: float
    complete: bool
    additivity_db: float
    notes: tuple[str, ...] = ()

    @property
    def point(self) -> Point:
        """The one that was written."""
        return next(p for p in self.points if p.corner == self.chosen)


def reported(front: Front) -> report.Front | None:
    """``front`` as a report shows it, by the metric where there is one; None where a single model was made."""
    if len(front.points) < 2:
        return None
    metric = front.point.metric
    return report.Front(
        quantity=metric.name if metric is not None else "SQNR",
        unit=metric.unit if metric is not None else "dB",
        higher_is_better=metric.higher_is_better if metric is not None else True,
        reference=metric.reference if metric is not None else None,
        points=tuple(
            report.FrontPoint(
                label=f"{len(p.float_nodes)} back in float" if p.float_nodes else "all that pays on integers",
                speedup=p.speedup,
                value=p.metric.quantized if p.metric is not None else p.sqnr_db,
                chosen=p.corner == front.chosen,
            )
            for p in front.points
        ),
    )


def dominated(point: Point, others: Iterable[Point]) -> bool:
    """Whether one of ``others`` costs no more by the estimates and has no lower SQNR, and is better in one of them."""
    return any(
        o.estimated_us <= point.estimated_us
        and o.sqnr_db >= point.sqnr_db
        and (o.estimated_us < point.estimated_us or o.sqnr_db > point.sqnr_db)
        for o in others
    )

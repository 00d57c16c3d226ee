"""A budget of accuracy on the command line, and the front that a search for it leaves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from qconvert.cli.choices import Positive
from qconvert.cli.options import stacked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console, RenderableType
    from rich.table import Table

    from qconvert.tuning.front import Front

_TIME_IS_UP = "the time was up before the search was done: --time-budget gives it more"

F = TypeVar("F", bound=Callable[..., Any])


def budget_options(function: F) -> F:
    """--max-drop, --min-sqnr, --time-budget and --pareto."""
    options = [
        click.option(
            "--max-drop",
            metavar="X",
            help="Send operators back to float until the metric drops by X at most, in absolute points (0.5%); needs "
            "labels. Exit with 3 if that is not reached.",
        ),
        click.option(
            "--min-sqnr",
            type=float,
            metavar="DB",
            help="Send operators back to float until the outputs have this SQNR. Exit with 3 if that is not reached.",
        ),
        click.option(
            "--time-budget",
            type=Positive(),
            metavar="S",
            help="Begin no further trial that would end later than S seconds after the start.",
        ),
        click.option(
            "--pareto",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="Write the models that were tried, with speed, accuracy and size, as JSON.",
        ),
    ]
    return stacked(options, function)


def front_document(front: Front) -> str:
    """``front`` as a JSON document; an SQNR without any error is null."""
    import json

    from qconvert.report.document import to_plain

    return json.dumps(to_plain(front), indent=2, allow_nan=False) + "\n"


def require_met(front: Front, output: Path) -> None:
    """Raise GateMissed, which ends the command with 3, where the budget was missed."""
    from qconvert.errors import GateMissed

    if front.met:
        return
    point = front.point
    found = f"{point.metric.name} drops by {point.metric.drop:.3g}, " if point.metric is not None else ""
    raise GateMissed(
        f"{front.budget} was missed: {found}SQNR {point.sqnr_db:.1f} dB; {output} is the best model found",
        hint="; ".join(front.notes) or (_TIME_IS_UP if not front.complete else "more calibration samples may help"),
    )


def show_front(front: Front, console: Console) -> None:
    """Print ``front`` for people; the console's width decides the layout."""
    from qconvert.report.renderers.console import MAX_WIDTH

    for block in _blocks(front):
        console.print(block, width=min(console.width, MAX_WIDTH), highlight=False, markup=False)


def _blocks(front: Front) -> Iterator[RenderableType]:
    from rich.text import Text

    from qconvert.report.renderers import phrases

    verdict = "" if not front.budget else f", {front.budget} {'kept' if front.met else 'MISSED'}"
    yield Text.assemble(
        ("Front", "bold"),
        f": {len(front.points)} of {phrases.count(front.corners, 'placement')} tried in {front.seconds:.0f} s{verdict}",
    )
    yield ""
    yield _table(front)
    yield ""
    legend = "; . has a rival that costs no more, by the estimate, and has no lower SQNR"
    yield Text(f"> was written{'' if all(p.on_front for p in front.points) else legend}")
    for note in (*front.notes, *(() if front.complete else (_TIME_IS_UP,))):
        yield Text(note, style="yellow")


def _table(front: Front) -> Table:
    from rich.table import Table
    from rich.text import Text

    from qconvert.report.renderers import phrases
    from qconvert.report.renderers.console import BOX

    table = Table(box=BOX, show_edge=False, header_style="bold")
    metric = next((p.metric for p in front.points if p.metric is not None), None)
    scored = (metric.name,) if metric is not None else ()
    for name in ("", "lambda", "in float", "estimate", "latency", "speed", "SQNR", *scored, "size"):
        table.add_column(name, justify="right", no_wrap=True)
    for point in front.points:
        mark = ">" if point.corner == front.chosen else "" if point.on_front else "."
        score = (phrases.metric_value(point.metric, point.metric.quantized),) if point.metric is not None else ()
        table.add_row(
            Text(mark),
            phrases.significant(point.price, 2),
            f"{len(point.float_nodes):,}",
            f"{phrases.significant(point.estimated_us)} us" if len(front.points) > 1 else "",
            phrases.milliseconds(point.latency_ms),
            f"{point.speedup:.2f}x",
            phrases.decibels(point.sqnr_db),
            *score,
            phrases.size(point.weight_bytes),
            style="bold" if point.corner == front.chosen else None,
        )
    return table

"""The report on a terminal, with rich: what changed, what was quantized, and what a person should look at.

The text is plain ASCII, so that it is the same on every terminal and in every log; colour only underlines what the
words say already.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from qconvert.evaluate.fidelity import OutputFidelity
from qconvert.report.model import AccuracyReport, LatencyReport, NodeDecision, Report
from qconvert.report.renderer import register
from qconvert.report.renderers import phrases, tally
from qconvert.report.renderers.facts import Fact, Level, facts
from qconvert.report.result import Result
from qconvert.report.summaries import summary_of
from qconvert.report.summary import Grid, Summary

MAX_WIDTH = 120
MAX_OUTPUTS = 8
# columns under a dashed line: the frame of box.SIMPLE in ASCII
BOX = box.Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)
_GOOD, _BAD, _DIM, _HEAD = "green", "bold red", "dim", "bold"
_STYLES = {Level.BAD: _BAD, Level.WARNING: "yellow", Level.GOOD: _GOOD, Level.PLAIN: "", Level.QUIET: _DIM}


def render_console(report: Report, console: Console, verbosity: int = 0) -> None:
    """Print ``report``.

    Args:
        report: what to print.
        console: where; its width decides the layout.
        verbosity: -1 the headline only, 0 the report, 1 every decision too.
    """
    headline = Text(phrases.headline(report), style=_HEAD)
    if verbosity < 0:
        console.print(headline, soft_wrap=True)
        return
    width = min(console.width, MAX_WIDTH)
    blocks: list[RenderableType] = [headline, "", _changes(report)]
    if report.accuracy is not None and len(report.accuracy.comparison.fidelity.outputs) > 1:
        blocks += ["", _outputs(report.accuracy)]
    blocks += [
        "",
        *decision_blocks(report.decisions, phrases.outcomes(report.recipe)),
        *_bodies(report),
        "",
        _of_facts(facts(report, everything=verbosity > 0)),
    ]
    if verbosity > 0:
        blocks += ["", every_decision(report.decisions)]
    for block in blocks:
        console.print(block, width=width, highlight=False, markup=False)


def decision_blocks(decisions: Sequence[NodeDecision], verbs: tuple[str, str]) -> list[RenderableType]:
    """What runs on integers and what stays float, each with counts and reasons.

    Args:
        decisions: of every node.
        verbs: headings of the two.
    """
    totals = tally.op_totals(decisions)
    yes, no = tally.taken(decisions), tally.left_float(decisions)
    n_yes, n_no = sum(g.nodes for g in yes), sum(g.nodes for g in no)
    blocks: list[RenderableType] = [_heading(verbs[0], f"{n_yes} of {phrases.count(n_yes + n_no, 'operation')}")]
    grid = _grid()
    for group in yes:
        grid.add_row(Text(tally.listed(group.ops, totals)), Text(group.reason))
    blocks.append(Padding(grid, (0, 0, 0, 2)) if yes else Text("  nothing"))
    if no:
        grid = _grid()
        for group in no:
            shapes = group.reason == tally.SHAPES
            ops = phrases.count(group.nodes, "node") if shapes else tally.listed(group.ops)
            grid.add_row(Text(ops), Text(group.reason), style=_DIM if shapes else "")
        blocks += ["", _heading(verbs[1], f"{n_no}, by reason"), Padding(grid, (0, 0, 0, 2))]
    return blocks


def every_decision(decisions: Sequence[NodeDecision]) -> Table:
    """A row for each node: its name, operator, whether it runs on integers, and why."""
    table = _table("Every decision")
    table.add_column("node", overflow="fold", ratio=3)
    table.add_column("operator", overflow="fold")
    table.add_column("on", no_wrap=True)
    table.add_column("why", overflow="fold", ratio=4)
    for d in decisions:
        on = Text("integers", style=_GOOD) if d.quantized else Text("float")
        reason = d.reason
        if d.float_ms is not None and d.integer_ms is not None:
            reason += f" ({1e3 * d.float_ms:.3g} us in float, {1e3 * d.integer_ms:.3g} us on integers)"
        table.add_row(Text(d.node), Text(d.op_type), on, Text(reason))
    return table


def _table(title: str | None = None) -> Table:
    return Table(box=BOX, show_edge=False, header_style=_HEAD, title=title, title_justify="left", title_style=_HEAD)


def _heading(text: str, detail: str) -> Text:
    return Text.assemble((text, _HEAD), f": {detail}")


def _grid() -> Table:
    """Two columns of words."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(overflow="fold")
    grid.add_column(overflow="fold")
    return grid


def _changes(report: Report) -> Table:
    """Before, after, change."""
    table = _table()
    table.add_column("", no_wrap=True)
    for name in ("before", "after"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("change", overflow="fold")
    before, after = report.model, report.output
    shrunk = after.bytes < before.bytes
    table.add_row(
        "size",
        phrases.size(before.bytes),
        phrases.size(after.bytes),
        Text(phrases.size_change(before.bytes, after.bytes), style=_GOOD if shrunk else _BAD),
    )
    for kind, *counts in phrases.sizes_by_kind(before, after):
        table.add_row(f"  {kind}", *(phrases.size(n) if n else "-" for n in counts), style=_DIM)
    if report.accuracy is not None:
        _accuracy_rows(table, report.accuracy)
    if report.latency is not None:
        _latency_rows(table, report.latency)
    return table


def _latency_rows(table: Table, latency: LatencyReport) -> None:
    ratio = latency.speedup
    slower = ratio.median < 1 - phrases.SAME_SPEED
    table.add_row(
        f"latency, {phrases.threads(latency.threads)}",
        phrases.milliseconds(latency.fp32.median_ms),
        phrases.milliseconds(latency.quantized.median_ms),
        Text(phrases.speed_change(ratio.median), style=_BAD if slower else _GOOD),
    )
    table.add_row(
        f"  p10..p90 of {phrases.count(latency.fp32.runs, 'run')}",
        *(phrases.spread(m.p10_ms, m.p90_ms) for m in (latency.fp32, latency.quantized)),
        f"{ratio.p10:.2f}x..{ratio.p90:.2f}x",
        style=_DIM,
    )


def _accuracy_rows(table: Table, accuracy: AccuracyReport) -> None:
    comparison = accuracy.comparison
    metric, fidelity = comparison.metric, comparison.fidelity
    if metric is not None:
        table.add_row(
            f"{metric.name}, {phrases.count(metric.samples, 'sample')}",
            phrases.metric_value(metric, metric.reference),
            phrases.metric_value(metric, metric.quantized),
            Text(phrases.metric_change(metric), style="yellow" if metric.drop > 0 else _GOOD),
        )
        if metric.interval is not None:
            table.add_row("  drop, 95 % confidence", "", "", phrases.drop_interval(metric), style=_DIM)
    only = fidelity.outputs[0] if len(fidelity.outputs) == 1 else None
    pooled = "" if only else "all outputs"
    table.add_row("SQNR", "", phrases.decibels(only.sqnr_db if only else fidelity.sqnr_db), pooled)
    if not only:
        table.add_row("  worst output", "", phrases.decibels(fidelity.worst_sqnr_db), Text(fidelity.worst_output or ""))
    table.add_row("cosine similarity", "", f"{fidelity.cosine:.5f}", "mean of the outputs" if not only else "")
    table.add_row(
        "largest error", "", phrases.significant(fidelity.max_abs_error), f"on {_range(only)}" if only else ""
    )
    if fidelity.top1_agreement is not None:
        table.add_row("same top-1 class", "", phrases.percent(fidelity.top1_agreement), "of samples")
    for output in fidelity.outputs:
        for problem in _problems(output):
            table.add_row(Text("differs", style=_BAD), "", "", Text(problem, style=_BAD))


def _problems(output: OutputFidelity) -> list[str]:
    found = []
    if output.mismatched_nonfinite:
        found.append(f"{output.name}: NaN or infinity in {phrases.count(output.mismatched_nonfinite, 'place')}")
    if output.shape_mismatches:
        found.append(f"{output.name}: another shape for {phrases.count(output.shape_mismatches, 'sample')}")
    if not output.numeric and not output.equal:
        found.append(f"{output.name}: other values (it holds no numbers)")
    return found


def _range(output: OutputFidelity) -> str:
    """Least and greatest value of the original."""
    if output.reference_range is None:
        return "nothing"
    low, high = output.reference_range
    return f"{phrases.significant(low)}..{phrases.significant(high)}"


def _outputs(accuracy: AccuracyReport) -> Table:
    """A row for each output, the worst first."""
    outputs = accuracy.comparison.fidelity.outputs
    shown = sorted(outputs, key=lambda o: (o.sqnr_db is None, o.sqnr_db or 0.0))[:MAX_OUTPUTS]
    title = (
        "Outputs, the worst first"
        if len(shown) == len(outputs)
        else f"The worst {len(shown)} of {len(outputs)} outputs"
    )
    table = _table(title)
    table.add_column("output", overflow="fold")
    for name in ("SQNR", "cosine", "largest error"):
        table.add_column(name, justify="right", overflow="fold")
    table.add_column("range", overflow="fold")
    for o in shown:
        cosine = "" if o.cosine is None else f"{o.cosine:.5f}"
        error = phrases.significant(o.max_abs_error) if o.numeric else ("equal" if o.equal else "differs")
        table.add_row(Text(o.name), phrases.decibels(o.sqnr_db), cosine, error, _range(o))
    return table


def _of_facts(lines: Sequence[Fact]) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for fact in lines:
        style = _STYLES[fact.level]
        grid.add_row(Text(fact.label, style=style or _HEAD), Text(fact.text, style=style))
    return grid


def _bodies(report: Report) -> list[RenderableType]:
    if not report.body_parameters:
        return []
    return [Text(f"  {report.body_parameters:,} float parameters inside control-flow bodies stay as they are")]


def render_summary(summary: Summary, console: Console) -> None:
    """Print the result of any command: its headline, tables and facts."""
    blocks: list[RenderableType] = [Text(summary.headline, style=_HEAD)]
    for grid in summary.grids:
        blocks += ["", _of_grid(grid)]
    if summary.facts:
        blocks += ["", _of_facts(summary.facts)]
    for block in blocks:
        console.print(block, width=min(console.width, MAX_WIDTH), highlight=False, markup=False)


def _of_grid(grid: Grid) -> Table:
    table = _table(grid.title or None)
    for i, name in enumerate(grid.columns):
        labels = i == 0 and not name  # ours, and short
        table.add_column(name, justify="right" if 0 < i <= grid.numeric else "left", overflow="fold", no_wrap=labels)
    for row in grid.rows:
        table.add_row(*map(Text, row))
    return table


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleRenderer:
    """The terminal's report as a text file."""

    name: str = "text"
    suffixes: tuple[str, ...] = (".txt",)

    def render(self, result: Result) -> str:
        """The result with every decision or tensor, 100 columns wide, without colour."""
        text = io.StringIO()
        console = Console(file=text, width=100, color_system=None, force_terminal=False)
        if isinstance(result, Report):
            render_console(result, console, 1)
        else:
            render_summary(summary_of(result, everything=True), console)
        return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"


register(ConsoleRenderer())

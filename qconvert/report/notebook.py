"""What notebooks show of results that have no report of their own: a headline, a few tables, what matters.

``Inspection`` and ``Sensitivity``, which are made above this layer, hand over their tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from qconvert.diagnose.diagnosis import Diagnosis
from qconvert.diagnose.finding import Finding, Severity
from qconvert.report.model import NodeDecision
from qconvert.report.renderers import phrases, tally
from qconvert.report.renderers.facts import Fact, Level
from qconvert.report.summary import Grid

MAX_ROWS = 15
_MAX_REASONS = 10
_MAX_NODES = 3


def inline(headline: str, grids: Iterable[Grid], said: Iterable[Fact] = ()) -> str:
    """HTML for a cell; of ``said`` what is bad, or a warning."""
    from qconvert.report.html.page import render_inline_grids

    return render_inline_grids(headline, tuple(grids), tuple(said))


def reasons(decisions: Sequence[NodeDecision], title: str) -> list[Grid]:
    """The operations by where they run and why, the most frequent first; none where nothing was decided."""
    yes, no = tally.taken(decisions), tally.left_float(decisions)
    rows = [
        (tally.listed(g.ops, most=4), where, g.reason) for where, gs in (("integers", yes), ("float", no)) for g in gs
    ]
    if not rows:
        return []
    more = f": {_MAX_REASONS} of {len(rows)} reasons" if len(rows) > _MAX_REASONS else ""
    columns = ("operations", "on", "reason")
    return [Grid(title=title + more, columns=columns, rows=tuple(rows[:_MAX_REASONS]), numeric=0)]


def diagnosis(found: Diagnosis) -> str:
    """The findings, the worst first."""
    faults = [f for f in found.findings if f.severity is not Severity.NOTE]
    told = phrases.count(len(faults), "finding") if faults else "nothing to mend"
    parts = [f"for {found.isa.title}"]
    if found.quantized:
        kernels = phrases.count(found.census.integer_kernels, "integer kernel")
        parts.insert(0, f"{kernels} among {phrases.count(found.census.nodes, 'node')}")
    if found.milliseconds:
        parts.append(f"{phrases.milliseconds(found.milliseconds)} in one thread")
    shown = found.findings[:MAX_ROWS]
    more = f"The worst {MAX_ROWS} of {len(found.findings)}" if len(shown) < len(found.findings) else ""
    columns = ("level", "finding", "where", "cost", "cure")
    grid = Grid(title=more, columns=columns, rows=tuple(map(_finding, shown)), numeric=0)
    notes = [Fact(label="note", text=note, level=Level.WARNING) for note in found.notes]
    headline = f"{phrases.file_name(found.path)}: {told}; {', '.join(parts)}"
    return inline(headline, [grid] if shown else [], notes)


def _finding(finding: Finding) -> tuple[str, ...]:
    more = len(finding.nodes) - _MAX_NODES
    where = ", ".join(finding.nodes[:_MAX_NODES]) + (f" and {more:,} more" if more > 0 else "")
    return finding.severity.value, f"{finding.what} [{finding.check}]", where, finding.cost, finding.cure

"""Summary: a result as people read it, in words and tables, before any form is chosen.

``qconvert/report/summaries.py`` makes one of every kind of result; the Markdown, JUnit and text forms draw on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from qconvert.evaluate.gates import Verdict
from qconvert.report.renderers.facts import Fact


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A table of text.

    Attributes:
        title: what it shows; "" needs none.
        columns: their headings.
        numeric: how many of the columns after the first hold figures, which are set right.
        rows: one cell a column.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: int
    title: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One result.

    Attributes:
        command: "quantize".
        subject: the models' names.
        headline: the result in one line.
        grids: tables, the main one first.
        gates: what became of each --fail-if.
        values: model -> quantity -> value, as in ``report/quantities.py``.
        facts: everything else, as lines with a label.
        seconds: of the whole run.
    """

    command: str
    subject: str
    headline: str
    grids: tuple[Grid, ...]
    gates: tuple[Verdict, ...]
    values: Mapping[str, Mapping[str, float]]
    facts: tuple[Fact, ...]
    seconds: float

"""The result as GitHub-flavoured Markdown: for pull requests, job summaries, wikis.

Every cell is plain text: names of models, tensors and files are escaped, so that none of them can change the page.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from qconvert.evaluate.gates import Verdict, found
from qconvert.report.renderer import register
from qconvert.report.renderers.facts import GATE_LABELS, Level
from qconvert.report.result import Result
from qconvert.report.summaries import summary_of
from qconvert.report.summary import Grid

# what Markdown or HTML would take for markup; "_" and "~" within words are text to GitHub, but not at their edges
_MARKUP = re.compile(r"([\\`*_{}\[\]<>#|~&@!])")


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkdownRenderer:
    """A section of a page: a heading, the gates, the main table, and the rest folded away."""

    name: str = "markdown"
    suffixes: tuple[str, ...] = (".md",)

    def render(self, result: Result) -> str:
        """The section with a newline at its end."""
        summary = summary_of(result)
        main, *others = summary.grids
        loud = [f for f in summary.facts if f.level in (Level.WARNING, Level.BAD) and f.label not in GATE_LABELS]
        lines = [f"## qconvert {summary.command}: {escaped(summary.subject)}", "", escaped(summary.headline), ""]
        if summary.gates:
            lines += [*_table(_gates(summary.gates)), ""]
        lines += [f"> **{escaped(f.label)}** {escaped(f.text)}\n>" for f in loud]
        lines += ["", *_table(main), ""]
        for grid in others:
            lines += ["<details>", f"<summary>{escaped(grid.title)}</summary>", "", *_table(grid), "", "</details>", ""]
        quiet = [f for f in summary.facts if f not in loud and f.label not in GATE_LABELS]
        lines += [f"- {escaped(f.label)}: {escaped(f.text)}" for f in quiet]
        return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


def escaped(text: str) -> str:
    """``text`` so that it is shown as it is, on one line."""
    return _MARKUP.sub(r"\\\1", " ".join(text.split()))


def _gates(verdicts: Sequence[Verdict]) -> Grid:
    several = any(v.model for v in verdicts)
    return Grid(
        columns=("gate", *(("model",) if several else ()), "fails if", "found"),
        rows=tuple(
            (
                "BROKEN" if v.broken else "kept",
                *((v.model,) if several else ()),
                v.gate,
                found(v),
            )
            for v in verdicts
        ),
        numeric=0,
    )


def _table(grid: Grid) -> Iterator[str]:
    yield _row(grid.columns)
    yield "|" + "|".join("---:" if 0 < i <= grid.numeric else "---" for i in range(len(grid.columns))) + "|"
    yield from map(_row, grid.rows)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(escaped, cells))} |"


register(MarkdownRenderer())

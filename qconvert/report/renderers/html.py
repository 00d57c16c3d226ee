"""The report as one HTML file, for people: ``report/html/`` holds its template, style and script."""

from __future__ import annotations

from dataclasses import dataclass

from qconvert.report.html.page import render_page, render_summary
from qconvert.report.model import Report
from qconvert.report.renderer import register
from qconvert.report.result import Result
from qconvert.report.summaries import summary_of


@dataclass(frozen=True, slots=True, kw_only=True)
class HtmlRenderer:
    """One self-contained file that needs no network and is read without scripts."""

    name: str = "html"
    suffixes: tuple[str, ...] = (".html", ".htm")

    def render(self, result: Result) -> str:
        """The file with a newline at its end."""
        page = render_page(result) if isinstance(result, Report) else render_summary(summary_of(result))
        return page.rstrip() + "\n"


register(HtmlRenderer())

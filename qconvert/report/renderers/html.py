"""The report as one HTML file, for people: ``report/html/`` holds its template, style and script."""

from __future__ import annotations

from dataclasses import dataclass

from qconvert.report.html.page import render_page
from qconvert.report.model import Report
from qconvert.report.renderer import register


@dataclass(frozen=True, slots=True, kw_only=True)
class HtmlRenderer:
    """One self-contained file that needs no network and is read without scripts."""

    name: str = "html"
    suffixes: tuple[str, ...] = (".html", ".htm")

    def render(self, report: Report) -> str:
        """The file with a newline at its end."""
        return render_page(report).rstrip() + "\n"


register(HtmlRenderer())

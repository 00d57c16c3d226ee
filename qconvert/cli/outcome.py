"""Options of what becomes of a result (``qconvert/outcome.py``), and printing it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from qconvert.cli.options import stacked
from qconvert.cli.terminal import stdout

if TYPE_CHECKING:
    from qconvert.report.result import Result

F = TypeVar("F", bound=Callable[..., Any])
_VARIABLE = "GITHUB_STEP_SUMMARY"


def outcome_options(gates: str) -> Callable[[F], F]:
    """--fail-if, --report, --github-summary and --track: the arguments fail_if, reports, github_summary, track.

    Args:
        gates: conditions that the command knows, for its help page.
    """
    options = [
        click.option(
            "--fail-if",
            multiple=True,
            metavar="CONDITION",
            help=f"Exit with 3 if CONDITION holds, such as {gates} (repeatable); everything is measured and written "
            "first. A wrong name is answered with all of them.",
        ),
        report_option,
        click.option(
            "--github-summary",
            is_flag=True,
            help=f"Append the Markdown report to the file that ${_VARIABLE} names.",
        ),
        click.option(
            "--track",
            multiple=True,
            metavar="TRACKER",
            help="Log parameters, metrics and reports with mlflow, mlflow:EXPERIMENT or python:MODULE:FUNCTION "
            "(repeatable).",
        ),
    ]
    return lambda function: stacked(options, function)


def report_option(function: F) -> F:
    """--report: the argument reports."""
    return click.option(
        "--report",
        "reports",
        multiple=True,
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Write a report; the suffix decides the form: .html, .json, .md (Markdown), .xml (JUnit), .txt "
        "(repeatable).",
    )(function)


def tell(result: Result, *, as_json: bool, verbose: bool = False) -> None:
    """Print ``result``, on stdout: one JSON document, or tables for people."""
    from qconvert.report.renderer import RENDERERS
    from qconvert.report.renderers.console import render_summary
    from qconvert.report.summaries import summary_of

    if as_json:
        click.echo(RENDERERS.get("json").render(result), nl=False)
    else:
        render_summary(summary_of(result, everything=verbose), stdout())

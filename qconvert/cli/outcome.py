"""What becomes of a result: judged by --fail-if, written as --report and --github-summary say, then the exit code."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from qconvert.cli.options import stacked

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qconvert.evaluate.gates import Gate
    from qconvert.report.renderer import Renderer
    from qconvert.report.result import Result

F = TypeVar("F", bound=Callable[..., Any])
R = TypeVar("R", bound="Result")
_VARIABLE = "GITHUB_STEP_SUMMARY"


def outcome_options(function: F) -> F:
    """--fail-if, --report and --github-summary: the arguments fail_if, reports and github_summary."""
    options = [
        click.option(
            "--fail-if",
            multiple=True,
            metavar="CONDITION",
            help='Exit with 3 if CONDITION holds, such as "top1_drop > 0.5%", "sqnr < 20" or "speedup < 1.2" '
            "(repeatable); everything is measured and written first.",
        ),
        click.option(
            "--report",
            "reports",
            multiple=True,
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="Write a report; the suffix decides the form: .html, .json, .md (Markdown), .xml (JUnit), .txt "
            "(repeatable).",
        ),
        click.option(
            "--github-summary",
            is_flag=True,
            help=f"Append the Markdown report to the file that ${_VARIABLE} names.",
        ),
    ]
    return stacked(options, function)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What is to become of a result, all of it checked before any work is done.

    Attributes:
        gates: the conditions.
        renderers: reports to write, each with its form.
        summary: the file to append Markdown to.
    """

    gates: tuple[Gate, ...]
    renderers: tuple[tuple[Path, Renderer], ...]
    summary: Path | None

    def settle(self, result: R) -> R:
        """Judge ``result`` and write its reports; returns it with the verdicts.

        Raises:
            OutputError: a report cannot be written.
        """
        from qconvert.report.output import append_text, write_text
        from qconvert.report.quantities import judged
        from qconvert.report.renderer import RENDERERS

        result = judged(result, self.gates)
        for path, renderer in self.renderers:
            write_text(path, renderer.render(result))
        if self.summary is not None:
            append_text(self.summary, RENDERERS.get("markdown").render(result))
        return result


def tell(result: Result, *, as_json: bool, verbose: bool = False) -> None:
    """Print ``result``, on stdout: one JSON document, or tables for people."""
    from rich.console import Console

    from qconvert.report.renderer import RENDERERS
    from qconvert.report.renderers.console import render_summary
    from qconvert.report.summaries import summary_of

    if as_json:
        click.echo(RENDERERS.get("json").render(result), nl=False)
    else:
        render_summary(summary_of(result, everything=verbose), Console())


def outcome(
    command: str,
    *,
    fail_if: Iterable[str],
    reports: Iterable[Path],
    github_summary: bool,
    force: bool,
    inputs: Iterable[Path],
    models: int = 2,
) -> Outcome:
    """Read the options of :func:`outcome_options`.

    Args:
        command: the command's name.
        fail_if, reports, github_summary: as given.
        force: replace reports that exist.
        inputs: what may not be written over.
        models: how many models take part.

    Raises:
        RecipeError: a condition is none, a form is unknown, or there is no summary to append to.
        OutputError: a report cannot be written there.
    """
    from qconvert.errors import RecipeError
    from qconvert.evaluate.gates import parse_gate
    from qconvert.report.output import check_distinct, check_output
    from qconvert.report.quantities import quantities
    from qconvert.report.renderer import renderer_for

    known = quantities(command, models=models)
    gates = tuple(parse_gate(text, known) for text in fail_if)
    reports, inputs = tuple(reports), tuple(inputs)
    renderers = tuple((path, renderer_for(path)) for path in reports)
    check_distinct(("--report", path) for path in reports)
    for path in reports:
        check_output(path, force=force, inputs=inputs)
    place = os.environ.get(_VARIABLE, "")
    if github_summary and not place:
        raise RecipeError(
            f"--github-summary has no file to append to: ${_VARIABLE} is not set",
            hint="GitHub Actions sets it in every step; elsewhere use --report summary.md",
        )
    return Outcome(gates=gates, renderers=renderers, summary=Path(place) if github_summary else None)

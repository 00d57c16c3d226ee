"""What becomes of a result: judged by gates, and written as reports."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from qconvert.errors import RecipeError
from qconvert.evaluate.gates import Gate, parse_gate
from qconvert.report.output import append_text, check_distinct, check_output, write_text
from qconvert.report.quantities import judged, quantities
from qconvert.report.renderer import RENDERERS, Renderer, renderer_for
from qconvert.report.result import Result
from qconvert.tracking.tracker import Tracker, log, tracked, tracker_of

SUMMARY_VARIABLE = "GITHUB_STEP_SUMMARY"

R = TypeVar("R", bound=Result)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What is to become of a result, all of it checked before any work is done.

    Attributes:
        gates: the conditions.
        renderers: reports to write, each with its form.
        summary: the file to append Markdown to.
        trackers: what the run is logged with, by the text that names it.
        models: files that are logged, too, once they are written.
    """

    gates: tuple[Gate, ...]
    renderers: tuple[tuple[Path, Renderer], ...]
    summary: Path | None
    trackers: Mapping[str, Tracker] = field(default_factory=dict)
    models: tuple[Path, ...] = ()

    @property
    def shows_layers(self) -> bool:
        """Whether a report is to be written that has a table of layers."""
        return RENDERERS.get("html") in [renderer for _, renderer in self.renderers]

    def settle(self, result: R) -> R:
        """Judge ``result``, write its reports and log it; returns it with the verdicts.

        A tracker that fails costs a warning: what took the time is done and written.

        Raises:
            OutputError: a report cannot be written.
        """
        result = judged(result, self.gates)
        for path, renderer in self.renderers:
            write_text(path, renderer.render(result))
        if self.summary is not None:
            append_text(self.summary, RENDERERS.get("markdown").render(result))
        if not self.trackers:
            return result
        failures = log(self.trackers, tracked(result, (*(path for path, _ in self.renderers), *self.models)))
        return replace(result, warnings=(*result.warnings, *failures))


def outcome(
    command: str,
    *,
    fail_if: Iterable[str],
    reports: Iterable[Path],
    github_summary: bool,
    force: bool,
    inputs: Iterable[Path],
    models: int = 2,
    track: Iterable[str] = (),
    tracked_models: Iterable[Path] = (),
) -> Outcome:
    """Read and check what is to become of a result.

    Args:
        command: the command's name.
        fail_if: conditions, such as "top1_drop > 0.5%".
        reports: files to write; the suffix decides the form.
        github_summary: append Markdown to the file that $GITHUB_STEP_SUMMARY names.
        force: replace reports that exist.
        inputs: what may not be written over.
        models: how many models take part.
        track: what to log the run with.
        tracked_models: files to log with it.

    Raises:
        RecipeError: a condition is none, a form is unknown, there is no summary to append to, or a tracker cannot be
            used.
        OutputError: a report cannot be written there.
    """
    known = quantities(command, models=models)
    gates = tuple(parse_gate(text, known) for text in fail_if)
    reports, inputs = tuple(reports), tuple(inputs)
    renderers = tuple((path, renderer_for(path)) for path in reports)
    check_distinct(("--report", path) for path in reports)
    for path in reports:
        check_output(path, force=force, inputs=inputs)
    place = os.environ.get(SUMMARY_VARIABLE, "")
    if github_summary and not place:
        raise RecipeError(
            f"--github-summary has no file to append to: ${SUMMARY_VARIABLE} is not set",
            hint="GitHub Actions sets it in every step; elsewhere use --report summary.md",
        )
    return Outcome(
        gates=gates,
        renderers=renderers,
        summary=Path(place) if github_summary else None,
        trackers={text: tracker_of(text) for text in track},
        models=tuple(tracked_models),
    )

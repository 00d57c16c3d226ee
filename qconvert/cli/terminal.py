"""What people see while a command runs: progress bars, errors, warnings; all on stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")

# columns where nobody's terminal says how many there are
LOG_WIDTH = 120


def stdout() -> Console:
    """What tables are printed on: as wide as the terminal, or as $COLUMNS, or, in the log of a pipeline, as LOG_WIDTH.

    Libraries take 80 columns there, where names of tensors break into pieces.
    """
    from rich.console import Console

    seen = "COLUMNS" in os.environ or any(s.isatty() for s in (sys.stdin, sys.stdout, sys.stderr) if s is not None)
    return Console() if seen else Console(width=LOG_WIDTH)


class TerminalProgress:
    """Progress bars by rich, on stderr and only on a terminal; notes only with -v."""

    def __init__(self, verbosity: int) -> None:
        self.verbosity = verbosity

    def track(
        self,
        items: Iterable[T],
        *,
        label: str,
        total: int | None = None,
        size: Callable[[T], int] | None = None,
    ) -> Iterator[T]:
        """Yield ``items`` under a bar with rate and time left, in bytes where ``size`` tells them."""
        if self.verbosity < 0 or not sys.stderr.isatty():
            yield from items
            return
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            MofNCompleteColumn,
            Progress,
            ProgressColumn,
            Task,
            TextColumn,
            TransferSpeedColumn,
        )
        from rich.progress import TimeRemainingColumn as Left
        from rich.text import Text

        class Rate(ProgressColumn):
            """Samples a second."""

            def render(self, task: Task) -> Text:
                return Text(f"{task.speed:.1f}/s" if task.speed else "", style="progress.data.speed")

        amounts = (DownloadColumn(), TransferSpeedColumn()) if size else (MofNCompleteColumn(), Rate())
        columns = (TextColumn("{task.description:<12}"), BarColumn(), *amounts, Left())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            if size is None:
                yield from bar.track(items, total=total, description=label)
                return
            task = bar.add_task(label, total=total)
            for item in items:
                done = size(item)  # before it is worked on: a weight may be let go of by that
                yield item
                bar.advance(task, done)

    def note(self, text: str) -> None:
        """A line on stderr, in verbose mode."""
        if self.verbosity > 0:
            click.echo(text, err=True)


def show_error(message: str, hint: str) -> None:
    """An error of the user's input: what is wrong, and what to do."""
    click.secho("error: ", fg="red", bold=True, nl=False, err=True)
    click.echo(message, err=True)
    if hint:
        click.secho("hint:  ", fg="cyan", nl=False, err=True)
        click.echo(hint, err=True)


def show_defect(message: str, hint: str, trace: str) -> None:
    """An error of ours: where it happened, and what to attach to a report."""
    if trace:
        click.echo(trace, err=True)
    click.secho("defect in qconvert: ", fg="red", bold=True, nl=False, err=True)
    click.echo(message, err=True)
    click.echo(
        hint
        or "please report it with the text above, the command line, `qconvert --version` and, if you can, the model",
        err=True,
    )


def show_warnings(warnings: Iterable[str]) -> None:
    """What a person should look at, a line each, on stderr."""
    for warning in warnings:
        click.secho("warning: ", fg="yellow", bold=True, nl=False, err=True)
        click.echo(warning, err=True)

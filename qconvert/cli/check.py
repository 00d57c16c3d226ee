"""``qconvert check``: what is wrong with a quantized model, what that costs, and what to do about it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from qconvert.cli.choices import Choice
from qconvert.cli.options import dry_run_option
from qconvert.cli.terminal import TerminalProgress, stdout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console, RenderableType

    from qconvert.diagnose.diagnosis import Diagnosis
    from qconvert.diagnose.finding import Finding

_MOST_NODES = 3


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="SOURCE",
    help="Samples to run, same forms as quantize --calib: real inputs for the times, and saturation is measured.",
)
@click.option(
    "--isa",
    type=Choice(["vnni", "avx2"]),
    help="x86 processor that the model is meant for: with or without VNNI.  [default: this machine]",
)
@click.option(
    "--fail-on",
    type=Choice(["warning", "error"]),
    help="Exit with 3 if anything as bad as this, or worse, is found.",
)
@dry_run_option("whether model and data fit together, and what would be examined")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
@click.option("-v", "--verbose", is_flag=True, help="Every node by name, and notes that need no cure.")
def command(
    model: Path,
    data: Path | None,
    isa: str | None,
    fail_on: str | None,
    dry_run: bool,
    as_json: bool,
    verbose: bool,
) -> None:
    """Examine a quantized MODEL, whichever tool made it.

    ONNX Runtime loads the model with all optimizations; what it makes of it is searched for what costs time, memory or
    accuracy for nothing. Each fault comes with its nodes, its cost and its cure. Nothing is written.

    \b
    Example:
      qconvert check sample_models/digits_cnn.onnx
    """
    from qconvert.api import judging
    from qconvert.diagnose.finding import Severity
    from qconvert.errors import GateMissed

    if dry_run:
        from qconvert.cli.forecast import show_examination

        show_examination(model, data=data, isa=isa, fail_on=fail_on)
        return
    found = judging.check(model, isa=isa, data=data, progress=TerminalProgress(int(verbose)))
    if as_json:
        import json

        click.echo(json.dumps(document(found), indent=2, allow_nan=False))
    else:
        show(found, stdout(), verbose=verbose)
    if fail_on is not None:
        bad = found.worse_than(Severity(fail_on))
        if bad:
            raise GateMissed(
                f"--fail-on {fail_on}: {', '.join(dict.fromkeys(f.check for f in bad))}",
                hint="each finding names its cure",
            )


def document(found: Diagnosis) -> object:
    """``found`` as plain data for JSON."""
    from dataclasses import fields

    from qconvert.report.document import to_plain

    plain = {f.name: getattr(found, f.name) for f in fields(found)}
    plain["isa"] = found.isa.value
    plain["findings"] = [
        {f.name: getattr(finding, f.name) for f in fields(finding)} | {"severity": finding.severity.value}
        for finding in found.findings
    ]
    return to_plain(plain)


def show(found: Diagnosis, console: Console, *, verbose: bool = False) -> None:
    """Print ``found`` for people; the console's width decides the layout."""
    from qconvert.report.renderers.console import MAX_WIDTH

    headline, *others = _blocks(found, verbose)
    console.print(headline, soft_wrap=True, highlight=False, markup=False)
    for block in others:
        console.print(block, width=min(console.width, MAX_WIDTH), highlight=False, markup=False)


def _blocks(found: Diagnosis, verbose: bool) -> Iterator[RenderableType]:
    from rich.text import Text

    from qconvert.diagnose.finding import Severity

    faults = [f for f in found.findings if f.severity is not Severity.NOTE]
    yield Text.assemble((Path(found.path).name, "bold"), f": {_summary(found, faults)}")
    for finding in found.findings if verbose else faults:
        yield ""
        yield _finding(finding, verbose)
    for note in found.notes:
        yield ""
        yield Text.assemble(("note", "bold"), f"  {note}")


def _summary(found: Diagnosis, faults: list[Finding]) -> str:
    """The model in one line."""
    from qconvert.report.renderers import phrases

    census = found.census
    parts = [f"for {found.isa.title}"]
    if found.quantized:
        kernels = phrases.count(census.integer_kernels, "integer kernel")
        parts.insert(0, f"{kernels} among {phrases.count(census.nodes, 'node')}")
    if found.milliseconds:
        parts.append(f"{phrases.milliseconds(found.milliseconds)} in one thread")
    notes = len(found.findings) - len(faults)
    more = f" ({phrases.count(notes, 'note')}: -v)" if notes else ""
    if not faults:
        return f"nothing to mend{more}; {', '.join(parts)}"
    return f"{phrases.count(len(faults), 'finding')}{more}; {', '.join(parts)}"


def _finding(finding: Finding, verbose: bool) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    styles = {"error": "bold red", "warning": "yellow", "note": "bold"}
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    level = finding.severity.value
    grid.add_row(Text(level, style=styles[level]), Text(f"{finding.what} [{finding.check}]", style="bold"))
    if finding.nodes:
        shown = finding.nodes if verbose else finding.nodes[:_MOST_NODES]
        more = len(finding.nodes) - len(shown)
        names = ", ".join(shown) + (f" and {more:,} more" if more else "")
        grid.add_row(Text("  where"), Text(f"{len(finding.nodes):,}: {names}"))
    for label, text in (("  cost", finding.cost), ("  cure", finding.cure)):
        if text:
            grid.add_row(Text(label), Text(text))
    return grid

"""``qconvert bench``: how fast models are, side by side, and what memory they take."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from qconvert.cli.choices import Positive
from qconvert.cli.options import dry_run_option
from qconvert.cli.outcome import outcome_options, tell
from qconvert.cli.terminal import TerminalProgress, stdout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console, RenderableType
    from rich.table import Table

    from qconvert.evaluate.benchmark import Benchmark


@click.command()
@click.argument("models", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="SOURCE",
    help="Samples to run, same forms as quantize --calib.  [default: made from the models' inputs]",
)
@click.option(
    "--threads", type=click.IntRange(min=0), default=0, metavar="N", help="Threads; 0 is ONNX Runtime's choice."
)
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    metavar="N",
    help="Samples in each run.  [default: 1, or the samples as they are stored]",
)
@click.option(
    "--dim",
    "dims",
    multiple=True,
    metavar="NAME=SIZE",
    help="Size of a symbolic dimension of made inputs (repeatable); INPUT:AXIS names one without a name.",
)
@click.option(
    "--seconds",
    type=Positive(),
    metavar="S",
    help="Time for all timed runs together.  [default: 5]",
)
@click.option(
    "--rounds", type=click.IntRange(min=3), metavar="N", help="An exact number of rounds; each runs every model once."
)
@click.option(
    "--require-speedup",
    type=Positive(),
    metavar="X",
    help="Exit with 3 if a later model is not at least X times as fast as the first.",
)
@outcome_options('"speedup < 1.2", "p95_ms > 5" or "memory_mb > 100"')
@dry_run_option("whether all of it fits together, and how long it would take")
@click.option("--force", is_flag=True, help="Replace reports that exist.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def command(
    models: tuple[Path, ...],
    data: Path | None,
    threads: int,
    batch: int | None,
    dims: tuple[str, ...],
    seconds: float | None,
    rounds: int | None,
    require_speedup: float | None,
    fail_if: tuple[str, ...],
    reports: tuple[Path, ...],
    github_summary: bool,
    track: tuple[str, ...],
    dry_run: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Time MODELS side by side; ratios are relative to the first.

    In each round every model runs once, in changing order, so that all meet the same machine. A ratio is the median
    over rounds. Load time and memory are measured in a process of its own for each model.

    \b
    Example:
      qconvert bench sample_models/digits_cnn.onnx sample_models/digits_cnn.onnx --seconds 1
    """
    if seconds is not None and rounds is not None:
        raise click.UsageError("--seconds and --rounds exclude each other.")
    if require_speedup is not None and len(models) < 2:
        raise click.UsageError("--require-speedup needs a second model.")
    sizes = dict(_size(text) for text in dims)

    from qconvert.api import judging
    from qconvert.errors import GateMissed
    from qconvert.evaluate.gates import raise_if_broken

    if dry_run:
        from qconvert.cli.forecast import show_rehearsal
        from qconvert.evaluate.benchmark import BenchJob

        job = BenchJob(
            models=models,
            data=data,
            threads=threads,
            batch=batch,
            dims=sizes,
            seconds=5.0 if seconds is None else seconds,
            rounds=rounds,
        )
        show_rehearsal(
            "bench",
            job,
            fail_if=fail_if,
            reports=reports,
            github_summary=github_summary,
            track=track,
            force=force,
        )
        return
    result = judging.bench(
        *models,
        data=data,
        threads=threads,
        batch=batch,
        dims=sizes,
        seconds=5.0 if seconds is None else seconds,
        rounds=rounds,
        fail_if=fail_if,
        reports=reports,
        github_summary=github_summary,
        track=track,
        force=force,
        progress=TerminalProgress(0),
    )
    if as_json:
        tell(result, as_json=True)
    else:
        show(result, stdout())
    for warning in result.warnings:
        click.echo(f"warning: {warning}", err=True)
    if require_speedup is not None:
        slow = [m for m in result.models[1:] if m.ratio.median < require_speedup]
        if slow:
            told = ", ".join(f"{m.name} {m.ratio.median:.2f}x" for m in slow)
            raise GateMissed(
                f"--require-speedup {require_speedup:g} was missed: {told}",
                hint="the spread of the ratio tells whether that is noise; --seconds gives it more rounds",
            )
    raise_if_broken(result.gates)


def _size(text: str) -> tuple[str, int]:
    name, _, size = text.rpartition("=")
    if not name or not size.isdecimal():
        raise click.UsageError(f"--dim {text!r} is not of the form NAME=SIZE.")
    return name, int(size)


def show(result: Benchmark, console: Console) -> None:
    """Print ``result`` for people; the console's width decides the layout."""
    from qconvert.report.renderers.console import MAX_WIDTH

    for block in _blocks(result):
        console.print(block, width=min(console.width, MAX_WIDTH), highlight=False, markup=False)


def _blocks(result: Benchmark) -> Iterator[RenderableType]:
    from rich.table import Table
    from rich.text import Text

    from qconvert.report.renderers import phrases

    threads = phrases.count(result.threads, "thread") if result.threads else "default threads"
    yield Text.assemble(
        (f"{phrases.count(len(result.models), 'model')}, {phrases.count(result.rounds, 'round')}", "bold"),
        f", {threads}, {phrases.count(result.samples, 'sample')} a run",
    )
    yield ""
    yield _speeds(result)
    yield ""
    yield _footprints(result)
    yield ""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for label, text in _facts(result):
        grid.add_row(Text(label, style="yellow" if label == "warning" else "bold"), Text(text))
    yield grid


def _table(*columns: str) -> Table:
    """A column for the model's name, which takes what room there is, and one for each figure."""
    from rich.table import Table

    from qconvert.report.renderers.console import BOX

    table = Table(box=BOX, show_edge=False, header_style="bold")
    table.add_column("model", overflow="fold")
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _speeds(result: Benchmark) -> Table:
    from rich.text import Text

    from qconvert.report.renderers import phrases

    compared = len(result.models) > 1
    table = _table("median", "p10..p95", "samples/s", *(("speed", "p10..p90") if compared else ()))
    for i, model in enumerate(result.models):
        took, rate, ratio = model.latency, model.samples_per_second, model.ratio
        shown = f"{rate:,.0f}" if rate >= 10 else f"{rate:.2f}"
        row = [phrases.milliseconds(took.median_ms), phrases.spread(took.p10_ms, model.p95_ms), shown]
        speed = [Text("1"), Text("")]
        if i:
            style = "green" if ratio.median > 1 + phrases.SAME_SPEED else ""
            style = "red" if ratio.median < 1 - phrases.SAME_SPEED else style
            median, low, high = (
                f"{r:.2f}" if r >= 0.1 else phrases.significant(r, 2) for r in (ratio.median, ratio.p10, ratio.p90)
            )
            speed = [Text(f"{median}x", style=style), Text(f"{low}..{high}")]
        table.add_row(Text(model.name), *row, *(speed if compared else ()))
    return table


def _footprints(result: Benchmark) -> Table:
    from rich.text import Text

    from qconvert.report.renderers import phrases

    table = _table("load", "memory", "of the whole process")
    for model in result.models:
        taken = model.footprint
        memory = [f"{mb:,.1f} MB" if taken.peak_mb else "unknown" for mb in (taken.model_mb, taken.peak_mb)]
        table.add_row(Text(model.name), phrases.milliseconds(taken.load_ms), *memory)
    return table


def _facts(result: Benchmark) -> Iterator[tuple[str, str]]:
    """What the numbers mean, and how far to trust them."""
    from qconvert.report.renderers import phrases
    from qconvert.report.renderers.facts import gate_facts

    shapes = ", ".join(f"{i.name} {i.dtype} {list(i.shape)}" for i in result.inputs)
    if result.data:
        more = " for the first of them" if result.feeds > 1 else ""
        yield "inputs", f"{phrases.count(result.feeds, 'feed')} of {result.data}: {shapes}{more}"
    else:
        yield "inputs", f"made from the signature, not real data: {shapes}"
    if result.assumed:
        sizes = ", ".join(f"{name}={size}" for name, size in result.assumed.items())
        yield "assumed", f"{sizes}; --batch or --dim sets other sizes"
    if len(result.models) > 1:
        yield "speed", "how many times as fast as the first model: median over rounds, and its spread"
    yield from ((fact.label, fact.text) for fact in gate_facts(result.gates))
    yield "memory", "most that loading the file and one run add to a fresh process"
    noisy = [f"{m.name} {m.spread:.0%}" for m in result.models if m.spread > _NOISY]
    if noisy:
        yield (
            "warning",
            f"run times vary ({', '.join(noisy)} of the median between p10 and p90): the machine is busy, or the "
            "samples differ; trust the ratios more than the times",
        )


# On an idle machine p10 and p90 of a model of a millisecond or more are within a tenth of each other.
_NOISY = 0.3

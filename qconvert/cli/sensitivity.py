"""``qconvert sensitivity``: which operators do most damage when they run on integers, and by what."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from qconvert.cli.data_options import SOURCE_HELP, data_options, label_options, source_option
from qconvert.cli.options import dry_run_option, given, recipe_options
from qconvert.cli.terminal import TerminalProgress, stdout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console, RenderableType
    from rich.table import Table

    from qconvert.sensitivity.analysis import GroupDamage, Sensitivity

_SHOWN = 15

# Sums of independent errors differ from the whole by less than this, in dB; more is worth a word.
_ADDITIVE_DB = 1.5


@click.command(short_help="Say what each operator alone does to the outputs.")
@click.argument("model", type=click.Path(path_type=Path))
@source_option("--calib", "calib", f"Calibration data: {SOURCE_HELP}", required=True)
@source_option("--eval", "eval_data", "Evaluation data for the metric, same forms as --calib")
@label_options("--eval")
@recipe_options
@data_options
@dry_run_option("what would be observed and how long it would take")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
@click.option("-v", "--verbose", is_flag=True, help="Every group.")
def command(
    model: Path,
    calib: tuple[str, ...],
    eval_data: tuple[str, ...],
    labels: Path | None,
    metric: str | None,
    recipe_file: Path | None,
    samples: int | None,
    seed: int,
    preprocess: str | None,
    skip_bad: int,
    dry_run: bool,
    as_json: bool,
    verbose: bool,
    **choices: object,
) -> None:
    """Find out what running each operator of MODEL on integers does to the outputs.

    The model is quantized in memory as `quantize` does it, with the same ranges and the same rounded weights. Then each
    operator, with the clamps absorbed into it, is run on integers by itself and everything else in float. Its error is
    split into that of rounding and of clipping, of its weight and of the activations around it. Nothing is written.

    \b
    Example:
      qconvert sensitivity sample_models/digits_cnn.onnx --calib calibration_data/digits_cnn/calib.npz
    """
    from qconvert.calibrate.data import DataSpec
    from qconvert.inputs import ConversionJob
    from qconvert.recipe.recipe import Recipe
    from qconvert.recipe.recipe_file import load_recipe, merge
    from qconvert.sensitivity.analysis import sensitivity

    def data(sources: tuple[str, ...], count: int | None) -> DataSpec:
        return DataSpec(sources=sources, samples=count, seed=seed, preprocess=preprocess, skip_bad=skip_bad)

    job = ConversionJob(
        model=model,
        calib=data(calib, samples),
        recipe=merge(load_recipe(recipe_file) if recipe_file is not None else Recipe(), given(choices)),
        eval_data=data(eval_data, None) if eval_data else None,
        labels=labels,
        metric=metric,
    )
    if dry_run:
        from qconvert.cli.forecast import show_job

        show_job(job, verbose=verbose)
        return
    found = sensitivity(job, TerminalProgress(int(verbose)))
    if as_json:
        import json

        click.echo(json.dumps(document(found), indent=2, allow_nan=False))
        return
    show(found, stdout(), verbose=verbose)


def document(found: Sensitivity) -> object:
    """``found`` as plain data for JSON; an SQNR without any error is null."""
    from qconvert.report.document import to_plain

    return to_plain(found)


def show(found: Sensitivity, console: Console, *, verbose: bool = False) -> None:
    """Print ``found`` for people; the console's width decides the layout."""
    from qconvert.report.renderers.console import MAX_WIDTH

    for block in _blocks(found, verbose):
        console.print(block, width=min(console.width, MAX_WIDTH), highlight=False, markup=False)


def _blocks(found: Sensitivity, verbose: bool) -> Iterator[RenderableType]:
    from rich.table import Table
    from rich.text import Text

    from qconvert.report.renderers import phrases

    yield Text.assemble(
        (Path(found.model).name, "bold"),
        f": {phrases.count(len(found.groups), 'group')} on integers, "
        f"SQNR {phrases.decibels(found.sqnr_db)} all together",
    )
    yield ""
    yield _table(found, found.groups if verbose else found.groups[:_SHOWN])
    if not verbose and len(found.groups) > _SHOWN:
        yield Text(f"and {len(found.groups) - _SHOWN:,} more: -v shows all")
    yield ""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for label, text in _facts(found):
        grid.add_row(Text(label, style="bold"), Text(text))
    yield grid


def _table(found: Sensitivity, groups: tuple[GroupDamage, ...]) -> Table:
    from rich.table import Table
    from rich.text import Text

    from qconvert.report.renderers import phrases
    from qconvert.report.renderers.console import BOX

    table = Table(box=BOX, show_edge=False, header_style="bold")
    table.add_column("group", overflow="fold")
    drop = ("drop",) if found.metric is not None else ()
    for name in ("alone", "weight", "clip", "act.", "clip", *drop, "float"):
        table.add_column(name, justify="right", no_wrap=True)
    for g in groups:
        parts = (g.weight_rounding, g.weight_clipping, g.activation_rounding, g.activation_clipping)
        whole = sum(parts)
        shares = [f"{part / whole:.0%}" if part > 0.005 * whole else "" for part in parts]
        change = (_change(g.drop, found.metric.unit),) if found.metric is not None else ()
        name = g.name if g.op_type in g.name else f"{g.name} {g.op_type}"
        row = (phrases.decibels(g.sqnr_db), *shares, *change, f"+{phrases.significant(g.extra_us, 2)} us")
        table.add_row(Text(name), *row)
    return table


def _change(drop: float | None, unit: str) -> str:
    from qconvert.report.renderers import phrases

    if drop is None:
        return ""
    return f"{drop:.1f}" if unit == "%" else phrases.significant(drop, 2)


def _facts(found: Sensitivity) -> Iterator[tuple[str, str]]:
    """What the numbers mean, and how far to trust them."""
    from qconvert.report.renderers import phrases

    yield "alone", "SQNR of the outputs, before a last Softmax, with this group on integers and all else in float"
    yield "weight", "share of the group's error that rounding its weight makes; then clipping it"
    yield "act.", "that of rounding the activations around it, which neighbours share; then clipping them"
    yield "float", "what the group alone would cost more there: measured, or else the target's estimate"
    apart = found.additivity_db
    if abs(apart) <= _ADDITIVE_DB:
        verdict = f"errors add up, to within {max(0.1, abs(apart)):.1f} dB"
    else:
        verdict = (
            f"errors do not just add up: their sum is {abs(apart):.1f} dB {'above' if apart > 0 else 'below'} that"
        )
    yield "together", f"{phrases.decibels(found.sqnr_db)}; {verdict}"
    sources = phrases.count(found.sources, "source") + " of error"
    samples = phrases.count(found.samples, "sample")
    yield "measured", f"{sources} on {samples} of {found.source}, {phrases.count(found.runs, 'run')} of the model"
    if found.metric is not None:
        m = found.metric
        values = [f"{v:.1f} %" if m.unit == "%" else phrases.significant(v, 4) for v in (m.reference, m.quantized)]
        yield (
            "drop",
            f"{m.name} on {phrases.count(m.samples, 'sample')}: {values[0]} in float, {values[1]} all together",
        )
    for note in found.notes:
        yield "note", note

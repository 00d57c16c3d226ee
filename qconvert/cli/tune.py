"""``qconvert tune``: mixed precision, and the front between speed and accuracy."""

from __future__ import annotations

from pathlib import Path

import click

from qconvert.cli.budget_options import budget_options, front_document, require_met, show_front
from qconvert.cli.data_options import SOURCE_HELP, data_options, label_options, source_option
from qconvert.cli.options import dry_run_option, given, recipe_options, verbosity_options
from qconvert.cli.outcome import report_option
from qconvert.cli.terminal import TerminalProgress, show_warnings, stdout


@click.command(short_help="Trade speed for accuracy, and show the front.")
@click.argument("model", type=click.Path(path_type=Path))
@source_option("--calib", "calib", f"Calibration data: {SOURCE_HELP}", required=True)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Where to write the quantized model.  [default: MODEL with .int8.onnx]",
)
@recipe_options
@source_option("--eval", "eval_data", "Evaluation data, same forms as --calib.  [default: a held-out part of --calib]")
@label_options("--eval")
@budget_options
@click.option(
    "--points", type=click.IntRange(min=1), default=8, metavar="N", help="Models to measure, at least.  [default: 8]"
)
@click.option(
    "--save-recipe",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write a recipe that gives the same model again, as YAML.",
)
@report_option
@data_options
@dry_run_option("whether all of it fits together, what would be observed, and how long that would take")
@click.option("--json", "as_json", is_flag=True, help="Print the front as one JSON document on stdout.")
@click.option("--force", is_flag=True, help="Replace files that exist.")
@verbosity_options
def command(
    model: Path,
    calib: tuple[str, ...],
    output: Path | None,
    recipe_file: Path | None,
    eval_data: tuple[str, ...],
    labels: Path | None,
    metric: str | None,
    max_drop: str | None,
    min_sqnr: float | None,
    time_budget: float | None,
    pareto: Path | None,
    points: int,
    save_recipe: Path | None,
    reports: tuple[Path, ...],
    samples: int | None,
    seed: int,
    preprocess: str | None,
    skip_bad: int,
    dry_run: bool,
    as_json: bool,
    force: bool,
    verbose: bool,
    quiet: bool,
    **choices: object,
) -> None:
    """Trade speed for accuracy: send the operators of MODEL back to float that do most damage for the time they save.

    The damage that each operator does is measured (`qconvert sensitivity`), and the placement with the least cost +
    lambda x damage found for every lambda. Some of these models are made and measured. The fastest that keeps the
    budget is written, or else the best; without a budget, the one that `qconvert quantize` makes.

    \b
    Example:
      qconvert tune sample_models/digits_cnn.onnx --calib calibration_data/digits_cnn/calib.npz --min-sqnr 42 \\
          --points 2 -o digits_cnn.tuned.onnx
    """
    from qconvert.calibrate.data import DataSpec
    from qconvert.cli.quantize import default_output
    from qconvert.outcome import outcome
    from qconvert.pipeline import QuantizeJob
    from qconvert.recipe.recipe import Recipe
    from qconvert.recipe.recipe_file import load_recipe, merge, recipe_to_yaml
    from qconvert.recipe.resolve import resolve
    from qconvert.report.output import check_distinct, check_output, write_text
    from qconvert.report.renderers import phrases
    from qconvert.tuning.budget import Budget
    from qconvert.tuning.tuning import TuneOptions, tune

    def data(sources: tuple[str, ...], count: int | None) -> DataSpec:
        return DataSpec(sources=sources, samples=count, seed=seed, preprocess=preprocess, skip_bad=skip_bad)

    recipe = merge(load_recipe(recipe_file) if recipe_file is not None else Recipe(), given(choices))
    output = output or default_output(model, recipe.scheme)
    job = QuantizeJob(
        model=model,
        calib=data(calib, samples),
        output=output,
        recipe=recipe,
        eval_data=data(eval_data, None) if eval_data else None,
        labels=labels,
        metric=metric,
        force=force,
    )
    budget = Budget(max_drop=max_drop, min_sqnr=min_sqnr)
    extras = [(option, path) for option, path in (("--pareto", pareto), ("--save-recipe", save_recipe)) if path]
    check_distinct([("--output", output), *extras, *(("--report", path) for path in reports)])
    for path in (output, *(path for _, path in extras)):
        check_output(path, force=force, inputs=job.inputs)
    settled = outcome("quantize", fail_if=(), reports=reports, github_summary=False, force=force, inputs=job.inputs)
    if dry_run:
        from qconvert.cli.forecast import show_conversion

        show_conversion(job, settled, reports, verbose=verbose)
        return
    progress = TerminalProgress(-1 if quiet else int(verbose))
    tuned = tune(job, budget, TuneOptions(points=points, seconds=time_budget), progress)
    settled.settle(tuned.report)
    if pareto is not None:
        write_text(pareto, front_document(tuned.front))
    if save_recipe is not None:
        write_text(save_recipe, recipe_to_yaml(resolve(tuned.recipe)))
    if as_json:
        click.echo(front_document(tuned.front), nl=False)
    else:
        click.echo(phrases.headline(tuned.report))
        if not quiet:
            click.echo()
            show_front(tuned.front, stdout())
    show_warnings(tuned.report.warnings)
    require_met(tuned.front, output)

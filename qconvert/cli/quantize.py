"""``qconvert quantize``: the main job."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path

import click

from qconvert.cli.budget_options import budget_options, front_document, require_met, show_front
from qconvert.cli.data_options import SOURCE_HELP, data_options, label_options, source_option
from qconvert.cli.options import dry_run_option, given, pass_options, recipe_options, verbosity_options
from qconvert.cli.outcome import outcome_options
from qconvert.cli.terminal import TerminalProgress, stdout


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@source_option("--calib", "calib", f"Calibration data: {SOURCE_HELP}")
@click.option(
    "--ranges",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Statistics from `qconvert calibrate` or `merge`, in place of a pass over --calib.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Where to write the quantized model.  [default: MODEL with .SCHEME.onnx]",
)
@recipe_options
@source_option("--eval", "eval_data", "Evaluation data, same forms as --calib.  [default: a held-out part of --calib]")
@label_options("--eval")
@budget_options
@click.option(
    "--save-recipe", type=click.Path(path_type=Path), metavar="FILE", help="Write the choices as a YAML recipe."
)
@outcome_options('"top1_drop > 0.5%", "size_ratio > 30%" or "speedup < 1.2"')
@click.option("--track-model", is_flag=True, help="Log the quantized model, too.")
@data_options
@pass_options
@click.option(
    "--cache",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Keep statistics in FOLDER, and take them from there when model, data and versions are the same.",
)
@click.option(
    "--no-measure",
    is_flag=True,
    help="Schemes other than int8: do not run the models. Weights are converted one at a time, in little memory.",
)
@click.option(
    "--shard",
    type=click.IntRange(min=1),
    metavar="MB",
    help="Schemes other than int8: write weights to data files of at most so many megabytes.",
)
@dry_run_option("whether all of it fits together, what would be observed, and how long that would take")
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON document on stdout.")
@click.option("--force", is_flag=True, help="Replace files that exist.")
@verbosity_options
def command(
    model: Path,
    calib: tuple[str, ...],
    ranges: Path | None,
    output: Path | None,
    recipe_file: Path | None,
    eval_data: tuple[str, ...],
    labels: Path | None,
    metric: str | None,
    max_drop: str | None,
    min_sqnr: float | None,
    time_budget: float | None,
    pareto: Path | None,
    save_recipe: Path | None,
    fail_if: tuple[str, ...],
    reports: tuple[Path, ...],
    github_summary: bool,
    track: tuple[str, ...],
    track_model: bool,
    samples: int | None,
    seed: int,
    preprocess: str | None,
    skip_bad: int,
    threads: int,
    batch: int,
    memory: int,
    cache: Path | None,
    no_measure: bool,
    shard: int | None,
    dry_run: bool,
    as_json: bool,
    force: bool,
    verbose: bool,
    quiet: bool,
    **choices: object,
) -> None:
    """Quantize MODEL to 8-bit integers, or by another --scheme.

    The samples in SOURCE are run through the model to learn the range of every activation. The defaults are the best
    known choice for this machine, or for --target. Size, accuracy and latency are set against the original.

    \b
    Example:
      qconvert quantize sample_models/digits_cnn.onnx --calib calibration_data/digits_cnn/calib.npz \\
          -o digits_cnn.int8.onnx
    """
    from qconvert.calibrate.collect import CollectOptions
    from qconvert.calibrate.data import DataSpec
    from qconvert.calibrate.ranges_file import load_origin
    from qconvert.evaluate.gates import metric_for, raise_if_broken
    from qconvert.outcome import outcome
    from qconvert.pipeline import QuantizeJob
    from qconvert.quantizing import quantize, resolved
    from qconvert.recipe.recipe import PINNED, Recipe
    from qconvert.recipe.recipe_file import load_recipe, merge, recipe_to_yaml
    from qconvert.report.output import check_distinct, check_output, write_text
    from qconvert.report.renderers.console import render_console
    from qconvert.report.renderers.json import JSON
    from qconvert.tuning.budget import Budget

    gc.freeze()  # what has been imported stays, and need not be looked through for garbage
    chosen = given(choices)
    if ranges is not None and "method" not in chosen and recipe_file is None:
        chosen["method"] = load_origin(ranges).method
    recipe = merge(load_recipe(recipe_file) if recipe_file is not None else Recipe(), chosen)
    output = output or default_output(model, recipe.scheme)
    budget = Budget(max_drop=max_drop, min_sqnr=min_sqnr) if max_drop is not None or min_sqnr is not None else None
    if budget is None and (time_budget is not None or pareto is not None):
        raise click.UsageError("--time-budget and --pareto need --max-drop or --min-sqnr; qconvert tune does without.")
    options = CollectOptions(threads=threads, batch=batch, budget=memory << 20)

    def data(sources: tuple[str, ...]) -> DataSpec | None:
        wanted = samples if sources is calib else None
        spec = DataSpec(sources=sources, samples=wanted, seed=seed, preprocess=preprocess, skip_bad=skip_bad)
        return spec if sources else None

    job = QuantizeJob(
        model=model,
        calib=data(calib),
        ranges=ranges,
        output=output,
        recipe=recipe,
        eval_data=data(eval_data),
        options=options,
        cache=cache,
        labels=labels,
        force=force,
        measure=not no_measure,
        shard=(shard or 0) << 20,
    )
    places = [("--output", output), *(("--report", path) for path in reports)]
    places += [(option, path) for option, path in (("--save-recipe", save_recipe), ("--pareto", pareto)) if path]
    check_distinct(places)
    read = [*job.inputs, *([recipe_file] if recipe_file is not None else [])]
    check_output(output, force=force, inputs=read)
    if pareto is not None:
        check_output(pareto, force=force, inputs=read)
    if save_recipe is not None:
        # a recipe may be brought up to date in place; nothing else that is read may be replaced
        check_output(save_recipe, force=force, inputs=job.inputs)
    settled = outcome(
        "quantize",
        fail_if=fail_if,
        reports=reports,
        github_summary=github_summary,
        force=force,
        inputs=read,
        track=track,
        tracked_models=[output] if track_model else [],
    )
    verbosity = -1 if quiet else int(verbose)
    job = replace(job, metric=metric_for(settled.gates, metric), examine=settled.shows_layers)
    if dry_run:
        from qconvert.cli.forecast import show_conversion

        show_conversion(job, settled, reports, verbose=verbose)
        return
    front = None
    if budget is None:
        report = settled.settle(quantize(job, TerminalProgress(verbosity)))
    else:
        from qconvert.tuning.tuning import TuneOptions, tune

        tuned = tune(job, budget, TuneOptions(seconds=time_budget), TerminalProgress(verbosity))
        report, front, recipe = settled.settle(tuned.report), tuned.front, tuned.recipe
        if pareto is not None:
            write_text(pareto, front_document(front))
    if save_recipe is not None:
        if front is None and report.placement is not None:
            placed = report.placement
            recipe = replace(
                recipe,
                placement=PINNED,
                pinned_float=placed.pinned_float,
                forms=placed.pinned_forms,
                exclude=(*recipe.exclude, *placed.excluded),
            )
        write_text(save_recipe, recipe_to_yaml(resolved(recipe)))
    if as_json:
        click.echo(JSON.render(report))
    else:
        render_console(report, stdout(), verbosity)
        if front is not None and verbosity >= 0:
            click.echo()
            show_front(front, stdout())
    if front is not None:
        require_met(front, output)
    raise_if_broken(report.gates)


def default_output(model: Path, scheme: str) -> Path:
    """``model.onnx`` -> ``model.int8.onnx`` beside it, or what else ``scheme`` is called."""
    return model.with_name(f"{model.stem}.{scheme.replace(':', '')}.onnx")

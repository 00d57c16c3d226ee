"""``qconvert quantize``: the main job."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from qconvert.cli.data_options import SOURCE_HELP, data_options, source_option
from qconvert.cli.options import given, names_in, pass_options, recipe_options, verbosity_options
from qconvert.cli.terminal import TerminalProgress


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
    help="Where to write the quantized model.  [default: MODEL with .int8.onnx]",
)
@recipe_options
@source_option("--eval", "eval_data", "Evaluation data, same forms as --calib.  [default: a held-out part of --calib]")
@click.option(
    "--labels",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Labels of the --eval samples (.npy, .npz, .txt, .csv).",
)
@click.option(
    "--metric",
    type=click.Choice(list(names_in("qconvert.evaluate.metrics"))),
    help="What to compute from outputs and labels.  [default: from the labels' type]",
)
@click.option(
    "--save-recipe", type=click.Path(path_type=Path), metavar="FILE", help="Write the choices as a YAML recipe."
)
@click.option(
    "--report",
    "reports",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write a report; the suffix decides the form: .json or .txt (repeatable).",
)
@data_options
@pass_options
@click.option(
    "--cache",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Keep statistics in FOLDER, and take them from there when model, data and versions are the same.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be observed and how long it would take; write nothing.")
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
    save_recipe: Path | None,
    reports: tuple[Path, ...],
    samples: int | None,
    seed: int,
    preprocess: str | None,
    skip_bad: int,
    threads: int,
    batch: int,
    memory: int,
    cache: Path | None,
    dry_run: bool,
    as_json: bool,
    force: bool,
    verbose: bool,
    quiet: bool,
    **choices: object,
) -> None:
    """Quantize MODEL to 8-bit integers.

    The samples in SOURCE are run through the model to learn the range of every activation. The defaults are the best
    known choice for an x86 processor with VNNI. Size, accuracy and latency are set against the original.

    \b
    Example:
      qconvert quantize sample_models/digits_cnn.onnx --calib calibration_data/digits_cnn/calib.npz \\
          -o digits_cnn.int8.onnx
    """
    from qconvert.calibrate.collect import CollectOptions
    from qconvert.calibrate.data import DataSpec
    from qconvert.calibrate.ranges_file import load_ranges
    from qconvert.pipeline import QuantizeJob, quantize
    from qconvert.recipe.recipe import PINNED, Recipe
    from qconvert.recipe.recipe_file import load_recipe, merge, recipe_to_yaml
    from qconvert.report.output import check_distinct, check_output, write_text
    from qconvert.report.renderer import renderer_for
    from qconvert.report.renderers.console import print_report
    from qconvert.report.renderers.json import JSON

    output = output or default_output(model)
    chosen = given(choices)
    if ranges is not None and "method" not in chosen and recipe_file is None:
        chosen["method"] = load_ranges(ranges).origin.method
    recipe = merge(load_recipe(recipe_file) if recipe_file is not None else Recipe(), chosen)
    options = CollectOptions(threads=threads, batch=batch, budget=memory << 20)

    def data(sources: tuple[str, ...]) -> DataSpec | None:
        wanted = samples if sources is calib else None
        spec = DataSpec(sources=sources, samples=wanted, seed=seed, preprocess=preprocess, skip_bad=skip_bad)
        return spec if sources else None

    calibration = data(calib)
    if dry_run:
        if calibration is None:
            raise click.UsageError("--dry-run needs --calib")
        from qconvert.calibration import CalibrateJob, forecast
        from qconvert.cli.forecast import show_forecast

        show_forecast(
            forecast(CalibrateJob(model=model, calib=calibration, output=output, recipe=recipe, options=options)),
            verbose=verbose,
        )
        return
    job = QuantizeJob(
        model=model,
        calib=calibration,
        ranges=ranges,
        output=output,
        recipe=recipe,
        eval_data=data(eval_data),
        options=options,
        cache=cache,
        labels=labels,
        metric=metric,
        force=force,
    )
    places = [("--output", output), *(("--report", path) for path in reports)]
    places += [("--save-recipe", save_recipe)] if save_recipe is not None else []
    check_distinct(places)
    for option, path in places:
        # a recipe may be brought up to date in place; nothing else that is read may be replaced
        recipe_read = [recipe_file] if recipe_file is not None and option != "--save-recipe" else []
        check_output(path, force=force, inputs=[*job.inputs, *recipe_read])
    renderers = [(path, renderer_for(path)) for path in reports]
    verbosity = -1 if quiet else int(verbose)
    report = quantize(job, TerminalProgress(verbosity))
    for path, renderer in renderers:
        write_text(path, renderer.render(report))
    if save_recipe is not None:
        if report.placement is not None:
            recipe = replace(recipe, placement=PINNED, pinned_float=report.placement.pinned_float)
        write_text(save_recipe, recipe_to_yaml(recipe))
    if as_json:
        click.echo(JSON.render(report))
    else:
        print_report(report, verbosity=verbosity)


def default_output(model: Path) -> Path:
    """``model.onnx`` -> ``model.int8.onnx`` beside it."""
    return model.with_name(f"{model.stem}.int8.onnx")

"""``qconvert quantize``: the main job."""

from __future__ import annotations

from pathlib import Path

import click

from qconvert.cli.options import names_in, recipe_options, verbosity_options
from qconvert.cli.terminal import TerminalProgress


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--calib",
    required=True,
    type=click.Path(path_type=Path),
    metavar="SOURCE",
    help="Calibration data: a folder of .npz or .npy samples, one stacked .npz or .npy, or test_data_set_* folders.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Where to write the quantized model.  [default: MODEL with .int8.onnx]",
)
@recipe_options
@click.option(
    "--eval",
    "eval_data",
    type=click.Path(path_type=Path),
    metavar="SOURCE",
    help="Evaluation data, same forms as --calib.  [default: a held-out part of --calib]",
)
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
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON document on stdout.")
@click.option("--force", is_flag=True, help="Replace files that exist.")
@verbosity_options
def command(
    model: Path,
    calib: Path,
    output: Path | None,
    recipe_file: Path | None,
    eval_data: Path | None,
    labels: Path | None,
    metric: str | None,
    save_recipe: Path | None,
    reports: tuple[Path, ...],
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
    from qconvert.pipeline import QuantizeJob, quantize
    from qconvert.recipe.recipe import Recipe
    from qconvert.recipe.recipe_file import load_recipe, merge, recipe_to_yaml
    from qconvert.report.output import check_distinct, check_output, write_text
    from qconvert.report.renderer import renderer_for
    from qconvert.report.renderers.console import print_report
    from qconvert.report.renderers.json import JSON

    output = output or default_output(model)
    recipe = merge(load_recipe(recipe_file) if recipe_file is not None else Recipe(), given(choices))
    job = QuantizeJob(
        model=model,
        calib=calib,
        output=output,
        recipe=recipe,
        eval_data=eval_data,
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
        write_text(save_recipe, recipe_to_yaml(recipe))
    if as_json:
        click.echo(JSON.render(report))
    else:
        print_report(report, verbosity=verbosity)


def default_output(model: Path) -> Path:
    """``model.onnx`` -> ``model.int8.onnx`` beside it."""
    return model.with_name(f"{model.stem}.int8.onnx")


def given(choices: dict[str, object]) -> dict[str, object]:
    """The recipe fields that were given as flags."""
    named = {("format" if name == "format_" else name): value for name, value in choices.items()}
    return {name: value for name, value in named.items() if value is not None and value != ()}

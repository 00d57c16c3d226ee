"""``qconvert recipes``: the recipes that come with qconvert, and a check of others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from qconvert.cli.choices import recipe_names

if TYPE_CHECKING:
    from qconvert.recipe.recipe import Recipe


@click.command(short_help="List the recipes that come along, or print one.")
@click.argument("name", required=False, shell_complete=recipe_names)
@click.option(
    "--check",
    "files",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Say whether FILE is a recipe that can be used, and what it comes to (repeatable).",
)
@click.option("--schema", is_flag=True, help="Print the JSON schema of recipes, for editors.")
def command(name: str | None, files: tuple[Path, ...], schema: bool) -> None:
    """List the recipes that come with qconvert, or print the one called NAME.

    A recipe holds the choices of a run; `--recipe NAME` uses one of these, `--recipe FILE` one of yours.

    \b
    Example:
      qconvert recipes
      qconvert recipes weights4
      qconvert inspect sample_models/digits_cnn.onnx --recipe fast
    """
    if sum((name is not None, bool(files), schema)) > 1:
        raise click.UsageError("NAME, --check and --schema exclude each other.")
    from qconvert.recipe.examples import examples, purpose

    if schema:
        from qconvert.recipe.schema import schema_text

        click.echo(schema_text(), nl=False)
        return
    if files:
        for file in files:
            click.echo(f"{file}: sound; {_differences(file)}")
        return
    known = examples()
    if name is None:
        width = max(map(len, known))
        for entry, text in known.items():
            click.echo(f"{entry:<{width}}  {purpose(text)}")
        return
    if name not in known:
        from qconvert.errors import RecipeError
        from qconvert.registry import suggest

        raise RecipeError(f"there is no recipe {name!r}", hint=suggest(name, tuple(known)))
    click.echo(known[name], nl=False)


def _differences(file: Path) -> str:
    """What the recipe in ``file`` makes different, on a target that runs it."""
    from qconvert.quantizing import resolved
    from qconvert.recipe.recipe import Recipe
    from qconvert.recipe.recipe_file import load_recipe, recipe_to_dict
    from qconvert.schemes.scheme import check_combination

    recipe = load_recipe(file)
    check_names(recipe)
    check_combination(recipe)
    resolved(recipe)
    default = recipe_to_dict(Recipe())
    changed = [f"{key}: {value}" for key, value in recipe_to_dict(recipe).items() if value != default[key]]
    return ", ".join(changed) or "all choices are the defaults"


def check_names(recipe: Recipe) -> None:
    """Look up what a recipe leaves to registries: methods, passes, rounding."""
    from qconvert.calibrate.method import METHODS
    from qconvert.recipe.recipe import AUTO, NO_RECOVERY
    from qconvert.recover.recovery import RECOVERIES
    from qconvert.rounding.method import ROUNDINGS

    METHODS.get(recipe.method)
    for name in recipe.recover:
        if name not in (AUTO, NO_RECOVERY):
            RECOVERIES.get(name)
    if recipe.rounding != AUTO:
        ROUNDINGS.get(recipe.rounding)

"""What a recipe comes to on its target: choices left open are filled in, and those that it cannot run are refused."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from qconvert.errors import RecipeError
from qconvert.recipe.recipe import Recipe
from qconvert.targets.auto import target_of
from qconvert.targets.target import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class IntegerTypes:
    """How tensors are held as integers; the fields are those of :class:`Recipe`, all of them known."""

    activations: str
    weights: str
    symmetric: bool
    per_channel: bool


def types_for(recipe: Recipe, target: Target) -> IntegerTypes:
    """The choices of ``recipe``, those of ``target`` where it makes none.

    Of the pairs of types that the target runs, the first one that agrees with what the recipe says is taken.

    Raises:
        RecipeError: the target does not run what the recipe asks for.
    """
    pairs = [
        (activations, weights)
        for activations, weights in target.types
        if recipe.activations in (None, activations) and recipe.weights in (None, weights)
    ]
    if not pairs:
        asked = [f"{kind} {name}" for name, kind in _asked(recipe)]
        runs = "; ".join(f"{activations} activations with {weights} weights" for activations, weights in target.types)
        raise RecipeError(f"the target {target.name} does not run {' with '.join(asked)}", hint=f"it runs {runs}")
    if target.only_symmetric and recipe.symmetric is False:
        raise RecipeError(
            f"the target {target.name} runs symmetric activations only",
            hint="leave --asymmetric out",
        )
    return IntegerTypes(
        activations=pairs[0][0],
        weights=pairs[0][1],
        symmetric=target.symmetric_activations if recipe.symmetric is None else recipe.symmetric,
        per_channel=target.per_channel if recipe.per_channel is None else recipe.per_channel,
    )


def resolve(recipe: Recipe) -> Recipe:
    """``recipe`` with every choice made: the target by its name and no None left, so that it means the same anywhere.

    Raises:
        RecipeError: there is no such target, or it does not run what the recipe asks for.
    """
    target = target_of(recipe.target)
    if recipe.format not in target.formats:
        raise RecipeError(
            f"the target {target.name} does not read --format {recipe.format}",
            hint=f"it reads {', '.join(target.formats)}",
        )
    return replace(recipe, target=target.name, **asdict(types_for(recipe, target)))


def _asked(recipe: Recipe) -> list[tuple[str, str]]:
    pairs = (("activations", recipe.activations), ("weights", recipe.weights))
    return [(name, kind) for name, kind in pairs if kind is not None]

"""What a recipe comes to on its target: choices left open are filled in, and those that it cannot run are refused."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace

from qconvert.errors import RecipeError
from qconvert.numerics.dtypes import qtype
from qconvert.recipe.recipe import DEFAULT_SCHEME, MEASURED, STATIC, STATIC_SCHEMES, Recipe
from qconvert.targets import TARGETS
from qconvert.targets.auto import target_of
from qconvert.targets.target import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class IntegerTypes:
    """How tensors are held as integers; the fields are those of :class:`Recipe`, all of them known."""

    activations: str
    weights: str
    symmetric: bool
    per_channel: bool

    @property
    def wide(self) -> bool:
        """Whether activations have 16 bits."""
        return qtype(self.activations).bits > 8

    @property
    def least_opset(self) -> int:
        """The least opset whose QuantizeLinear has these types; scales a channel came with 13."""
        needed = max(qtype(self.activations).min_opset, qtype(self.weights).min_opset)
        return max(needed, 13 if self.per_channel else 10)


def types_for(recipe: Recipe, target: Target) -> IntegerTypes:
    """The choices of ``recipe``, those of ``target`` where it makes none.

    Of the pairs of types that the target takes, the first one that agrees with what the recipe says is taken.

    Raises:
        RecipeError: the target does not run what the recipe asks for.
    """
    of_scheme = STATIC_SCHEMES.get(recipe.scheme, STATIC_SCHEMES[DEFAULT_SCHEME])
    asked = [f"{kind} {name}" for name, kind in _asked(recipe)]
    possible = [p for p in of_scheme if recipe.activations in (None, p[0]) and recipe.weights in (None, p[1])]
    if not possible:
        others = [
            s for s, pairs in STATIC_SCHEMES.items() if (recipe.activations or pairs[0][0]) in (a for a, _ in pairs)
        ]
        raise RecipeError(
            f"{' with '.join(asked)} {'is' if len(asked) == 1 else 'are'} not of --scheme {recipe.scheme}",
            hint=f"{recipe.scheme} has {_listed(of_scheme)}" + (f"; use --scheme {others[0]}" if others else ""),
        )
    pairs = [p for p in (*target.types, *target.emulates) if p in possible]
    if not pairs and recipe.scheme != DEFAULT_SCHEME and not set(of_scheme) & {*target.types, *target.emulates}:
        able = [t.name for t in TARGETS if set(of_scheme) & set(t.types)]
        raise RecipeError(
            f"the target {target.name} does not run --scheme {recipe.scheme}: it takes {_listed(target.types)}",
            hint=f"use --scheme {_nearest(recipe.scheme, target)}, or a target that runs it: {', '.join(able)}",
        )
    if not pairs:
        raise RecipeError(
            f"the target {target.name} does not run {' with '.join(asked)}", hint=f"it runs {_listed(target.types)}"
        )
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


def static_mix(recipe: Recipe) -> tuple[tuple[str, str], ...]:
    """(pattern, scheme) of the static schemes that ``recipe`` mixes in."""
    entries = (entry.rpartition("=") for entry in recipe.mix)
    return tuple((pattern, scheme) for pattern, _, scheme in entries if scheme in STATIC_SCHEMES)


def mixes_others(recipe: Recipe) -> bool:
    """Whether ``recipe`` mixes in schemes that are not static, and so rewrite what the static one has left."""
    return any(entry.rpartition("=")[2] not in (*STATIC_SCHEMES, "float") for entry in recipe.mix)


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
    types = types_for(recipe, target)
    placement = recipe.placement
    wide = types.wide or any(qtype(STATIC_SCHEMES[s][0][0]).bits > 8 for _, s in static_mix(recipe))
    if placement == MEASURED and wide:  # this machine computes such models in float: nothing would be left
        placement = STATIC
    return replace(recipe, target=target.name, placement=placement, **asdict(types))


def emulated(recipe: Recipe, target: Target) -> bool:
    """Whether ``target`` takes models as ``recipe`` makes them, but computes them in float."""
    types = types_for(recipe, target)
    return (types.activations, types.weights) in target.emulates


def _listed(pairs: Iterable[tuple[str, str]]) -> str:
    return "; ".join(f"{activations} activations with {weights} weights" for activations, weights in pairs)


def _nearest(scheme: str, target: Target) -> str:
    """The scheme of most bits, but ``scheme``, of which ``target`` runs a pair."""
    runs = {*target.types, *target.emulates}
    return next((s for s in ("a16w8", DEFAULT_SCHEME) if s != scheme and runs & set(STATIC_SCHEMES[s])), DEFAULT_SCHEME)


def _asked(recipe: Recipe) -> list[tuple[str, str]]:
    pairs = (("activations", recipe.activations), ("weights", recipe.weights))
    return [(name, kind) for name, kind in pairs if kind is not None]

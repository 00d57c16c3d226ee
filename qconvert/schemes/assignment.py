"""Whose a node is: the recipe's scheme, another that it is mixed with, or nobody's."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable

from qconvert.errors import RecipeError
from qconvert.recipe.recipe import Recipe
from qconvert.registry import suggest
from qconvert.schemes.scheme import Owner

FLOAT = "float"


def owner_of(recipe: Recipe) -> Owner:
    """Who owns a node under ``recipe``: what --exclude names, and all but what --include names, stays float."""

    def owner(name: str, op_type: str) -> str:
        if recipe.include and not any(_matches(name, op_type, p) for p in recipe.include):
            return FLOAT
        if any(_matches(name, op_type, p) for p in recipe.exclude):
            return FLOAT
        found = recipe.scheme
        for entry in recipe.mix:
            pattern, _, scheme = entry.rpartition("=")
            if _matches(name, op_type, pattern):
                found = scheme
        return found

    return owner


def check_patterns(recipe: Recipe, nodes: Iterable[tuple[str, str]]) -> None:
    """Refuse patterns that select no node of (name, operator type) ``nodes``.

    Raises:
        RecipeError: the hint names the nearest node.
    """
    known = list(nodes)
    mixed = [entry.rpartition("=")[0] for entry in recipe.mix]
    for option, patterns in (("include", recipe.include), ("exclude", recipe.exclude), ("mix", mixed)):
        for pattern in patterns:
            if not any(_matches(name, op, pattern) for name, op in known):
                names = list(dict.fromkeys(n for pair in known for n in pair))
                raise RecipeError(f"--{option} {pattern}: no such node", hint=suggest(pattern, names)[:300])


def _matches(name: str, op_type: str, pattern: str) -> bool:
    return pattern in (name, op_type) or fnmatch.fnmatchcase(name, pattern)

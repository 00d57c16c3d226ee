"""Choices that suggest the nearest name when a wrong one is given."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Sequence
from typing import Any

import click
from click.shell_completion import CompletionItem


class Choice(click.Choice[str]):
    """One of some names."""

    def get_invalid_choice_message(self, value: object, ctx: click.Context | None) -> str:
        """What is wrong, with the nearest name in front of all of them."""
        return f"{super().get_invalid_choice_message(value, ctx).rstrip('.')}.{near(str(value), list(self.choices))}"


class Positive(click.FloatRange):
    """A number above 0; neither nan, to which nothing compares, nor inf."""

    def __init__(self) -> None:
        super().__init__(min=0, min_open=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number, or an error that says what it must be."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


class RecipeFile(click.Path):
    """A file, or the name of a recipe that comes along; a shell completes both."""

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Names that begin with ``incomplete``, then the shell's own files."""
        return [*recipe_names(ctx, param, incomplete), *super().shell_complete(ctx, param, incomplete)]


def recipe_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The recipes that come along whose names begin with ``incomplete``, with what they are for."""
    del ctx, param
    from qconvert.recipe.examples import examples, purpose

    return [
        CompletionItem(name, help=purpose(text)) for name, text in examples().items() if name.startswith(incomplete)
    ]


def beginning(names: Sequence[str]) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    """What a shell is offered of ``names``."""
    return lambda ctx, param, incomplete: [CompletionItem(name) for name in names if name.startswith(incomplete)]


def near(name: str, valid: Sequence[str]) -> str:
    """The question whether 'mse' was meant, or nothing if no name is near."""
    found = difflib.get_close_matches(name, valid, n=1)
    return f" Did you mean {found[0]!r}?" if found else ""

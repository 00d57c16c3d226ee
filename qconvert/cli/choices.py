"""Choices that suggest the nearest name when a wrong one is given."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import click


class Choice(click.Choice[str]):
    """One of some names."""

    def get_invalid_choice_message(self, value: object, ctx: click.Context | None) -> str:
        """What is wrong, with the nearest name in front of all of them."""
        return f"{super().get_invalid_choice_message(value, ctx).rstrip('.')}.{near(str(value), list(self.choices))}"


def near(name: str, valid: Sequence[str]) -> str:
    """The question whether 'mse' was meant, or nothing if no name is near."""
    found = difflib.get_close_matches(name, valid, n=1)
    return f" Did you mean {found[0]!r}?" if found else ""

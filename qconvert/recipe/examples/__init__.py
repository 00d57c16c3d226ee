"""Recipes that come with qconvert, for ``--recipe NAME`` and ``qconvert recipes``; their first lines say what for."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files


def examples() -> Mapping[str, str]:
    """Name -> the text of the file."""
    found = {
        entry.name.removesuffix(".yaml"): entry.read_text(encoding="utf-8")
        for entry in files(__name__).iterdir()
        if entry.name.endswith(".yaml")
    }
    return dict(sorted(found.items()))


def purpose(text: str) -> str:
    """The first line of a recipe, which says what it is for."""
    return text.splitlines()[0].removeprefix("#").strip()

"""The JSON schema of recipe files, which ``docs/generate.py`` writes from :class:`qconvert.recipe.recipe.Recipe`."""

from __future__ import annotations

from importlib.resources import files


def schema_text() -> str:
    """The schema (JSON Schema 2020-12), as it comes with the package."""
    return files("qconvert.recipe").joinpath("recipe.schema.json").read_text(encoding="utf-8")

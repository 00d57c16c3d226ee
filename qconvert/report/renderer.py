"""Renderer: a form that a report can be written in. Each is one file in ``renderers/``; ``RENDERERS`` finds it."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from qconvert.errors import RecipeError
from qconvert.registry import Registry
from qconvert.report.result import Result


class Renderer(Protocol):
    """Turns the result of a command into the text of a file.

    Attributes:
        name: "json".
        suffixes: file suffixes that ask for it, lower case with the dot: (".json",).
    """

    @property
    def name(self) -> str: ...

    @property
    def suffixes(self) -> tuple[str, ...]: ...

    def render(self, result: Result) -> str:
        """The whole file, with a newline at its end."""
        ...


RENDERERS: Registry[Renderer] = Registry("report form")
RENDERERS.discover("qconvert.report.renderers")


def register(renderer: Renderer) -> Renderer:
    """Add a renderer to ``RENDERERS``."""
    return RENDERERS.add(renderer.name, renderer)


def renderer_for(path: Path) -> Renderer:
    """The renderer that writes files named like ``path``.

    Raises:
        RecipeError: none has this suffix; the hint lists those there are.
    """
    suffix = path.suffix.lower()
    for renderer in RENDERERS:
        if suffix in renderer.suffixes:
            return renderer
    valid = sorted(s for r in RENDERERS for s in r.suffixes)
    problem = f"no report can be written as {suffix}" if suffix else "the suffix decides the form of a report"
    raise RecipeError(f"{path}: {problem}", hint=f"give a name that ends in one of: {', '.join(valid)}")

"""What the functions of the interface take, and how it becomes what the stages take."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from qconvert.errors import DataError

if TYPE_CHECKING:
    from qconvert.calibrate.data import DataSpec
    from qconvert.recipe.recipe import Recipe

PathLike = str | os.PathLike[str]

Source = PathLike | Mapping[str, PathLike] | Sequence[str]
"""Samples, as ``--calib`` takes them: a path, "random:20", "python:module:function"; or a source for each input, as a
mapping or as "input=source" texts."""


class Choices(TypedDict, total=False):
    """The fields of :class:`qconvert.Recipe`, which says what each means; what is given wins over a recipe."""

    target: str
    format: str
    per_channel: bool
    activations: str
    weights: str
    symmetric: bool
    method: str
    recover: Sequence[str]
    effort: str
    placement: str
    pinned_float: Sequence[str]
    forms: Sequence[str]
    scheme: str
    block: int
    rounding: str
    weight_format: str
    accuracy_level: int
    embeddings: str
    lm_head: str
    keep_io: bool
    mix: Sequence[str]
    include: Sequence[str]
    exclude: Sequence[str]


def recipe_of(recipe: Recipe | PathLike | None, choices: Mapping[str, object]) -> Recipe:
    """A recipe, a file that holds one, or the default, with ``choices`` in place of its own.

    Raises:
        RecipeError: the file cannot be read, a name is unknown, or a value has the wrong type.
    """
    from qconvert.recipe.recipe import Recipe
    from qconvert.recipe.recipe_file import load_recipe, merge

    found = recipe if isinstance(recipe, Recipe) else Recipe() if recipe is None else load_recipe(Path(recipe))
    return merge(found, choices)


def data_of(
    source: Source, *, samples: int | None = None, seed: int = 0, preprocess: str | None = None, skip_bad: int = 0
) -> DataSpec:
    """The data set that ``source`` stands for.

    Raises:
        RecipeError: a number makes no sense.
        DataError: it is no name of samples, but for example an array.
    """
    from qconvert.calibrate.data import DataSpec

    if isinstance(source, Mapping):
        texts = tuple(f"{name}={_name_of(path)}" for name, path in source.items())
    elif isinstance(source, list | tuple):
        texts = tuple(map(_name_of, source))
    else:
        texts = (_name_of(source),)
    return DataSpec(sources=texts, samples=samples, seed=seed, preprocess=preprocess, skip_bad=skip_bad)


def data_if_any(
    source: Source | None,
    *,
    samples: int | None = None,
    seed: int = 0,
    preprocess: str | None = None,
    skip_bad: int = 0,
) -> DataSpec | None:
    """:func:`data_of`, or None for None."""
    if source is None:
        return None
    return data_of(source, samples=samples, seed=seed, preprocess=preprocess, skip_bad=skip_bad)


def _name_of(source: object) -> str:
    """A path, or another name of samples, as text.

    Raises:
        DataError: it is neither.
    """
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    raise DataError(
        f"samples are given by name, and not as {type(source).__name__}",
        hint='save arrays with np.savez("samples.npz", INPUT=array), or name a function that yields them: '
        '"python:MODULE:FUNCTION"',
    )


def path_of(path: PathLike | None) -> Path | None:
    """``path`` as a Path, or None."""
    return None if path is None else Path(path)


def beside(model: PathLike, suffix: str) -> Path:
    """``model.onnx`` -> ``model`` + ``suffix`` beside it."""
    path = Path(model)
    return path.with_name(f"{path.stem}{suffix}")

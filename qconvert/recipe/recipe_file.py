"""Recipes as YAML files: a run can be repeated from the file that it saved.

    version: 1
    target: x86-vnni
    exclude: [Softmax]

A file names the choices that differ from the defaults; an unknown key is an error, never ignored. The reader takes
plain data only: no aliases (a few nested ones blow a small file up to gigabytes), no tags that make objects, 1 MB at
most.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import yaml

from qconvert.errors import InternalError, RecipeError
from qconvert.forms import FORMS
from qconvert.recipe.examples import examples
from qconvert.recipe.plain_yaml import PlainLoader
from qconvert.recipe.recipe import (
    ACTIVATIONS,
    AUTO,
    EFFORTS,
    FORMATS,
    NO_RECOVERY,
    PARTS,
    PINNED,
    WEIGHTS,
    Recipe,
)
from qconvert.registry import suggest

RECIPE_VERSION = 1
MAX_BYTES = 1_000_000

_HEADER = """\
# A qconvert recipe: every choice that decides the quantized model.
# Use it:  qconvert quantize model.onnx --calib data/ --recipe this-file.yaml
# A flag on the command line wins over the file; a key that is left out has its default value.
"""

COMMENTS: Mapping[str, str] = {
    "target": f"runtime and processor that the model is made for, of `qconvert targets`; {AUTO}: this machine",
    "format": f"form of the quantized graph: {' or '.join(FORMATS)}",
    "per_channel": "true: a weight scale for each output channel; false: one for the whole weight; null: the target's",
    "activations": f"integer type of activations: {', '.join(ACTIVATIONS)}, or null: the target's",
    "weights": f"integer type of weights: {', '.join(WEIGHTS)}, or null: the target's",
    "symmetric": "true: ranges of activations (w8, w4, w2: of weights) symmetric about zero; null: the target's",
    "method": "calibration method: how a range is made from what was observed",
    "recover": f"accuracy recovery: {AUTO}, {NO_RECOVERY}, or names of passes; a pass is kept where it helps",
    "effort": f"how much recovery may cost: {', '.join(EFFORTS[:-1])} or {EFFORTS[-1]}",
    "placement": "measured: on integers what pays here, by timing; static: by the target's table; all: whatever has "
    f"an integer form; {PINNED}: as pinned_float says",
    "pinned_float": f"with placement {PINNED}: the nodes that stay float, by name; what a measured run saves",
    "forms": f"PATTERN=FORM, other forms for some nodes: {', '.join(FORMS)}; what a measured run saves",
    "scheme": "what to quantize to: int8, a16w8, a16w4 (static), dynamic, w8, w4, w2, palette:256, palette:16, nf4, "
    "fp4, fp8, binary (weights only), fp16, bf16",
    "block": "weight-only: weights that share a scale, 16 to 256; -1: an output channel; 0: the scheme's choice; of "
    "palettes: output channels that share a codebook",
    "rounding": f"weight-only: {AUTO}, or the rounding method: rtn, mse, hqq, gptq, awq",
    "weight_format": "weight-only: nbits (MatMulNBits, MatMulBnb4), qdq (DequantizeLinear), unpack (on loading), auto",
    "accuracy_level": "weight-only: 4 rounds the activations of MatMulNBits to 8 bits, 1 computes in float",
    "embeddings": f"weight-only: what embedding tables are stored in: {', '.join(PARTS)}",
    "lm_head": f"weight-only: what the product that makes an output is stored in: {', '.join(PARTS)}",
    "keep_io": "half precision: true: inputs and outputs keep their types",
    "mix": "other schemes for some nodes, PATTERN=SCHEME; the last that fits decides",
    "include": "quantize only these: node names, globs or operator types; empty: all",
    "exclude": "leave these in float: node names, globs or operator types",
}


def load_recipe(path: Path) -> Recipe:
    """Read a recipe: a file, or one that comes with qconvert, by its name.

    Raises:
        RecipeError: no such file, not YAML, an unknown key, or a value of the wrong type.
    """
    data = _parsed(_text(path), path)
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise RecipeError(f"{path}: a recipe is a list of `key: value` lines", hint=_example())
    version = data.pop("version", RECIPE_VERSION)
    if type(version) is not int or version != RECIPE_VERSION:
        raise RecipeError(
            f"{path}: version {version!r} of the recipe format is unknown",
            hint=f"this qconvert reads `version: {RECIPE_VERSION}`; a newer one may be needed for this file",
        )
    return _checked(Recipe(), data, f"{path}: ")


def merge(recipe: Recipe, overrides: Mapping[str, object]) -> Recipe:
    """``recipe`` with the values of ``overrides`` in place of its own; None stands for "not given" and changes nothing.

    Raises:
        RecipeError: an unknown name, or a value of the wrong type.
    """
    return _checked(recipe, {k: v for k, v in overrides.items() if v is not None}, "")


def recipe_to_dict(recipe: Recipe) -> dict[str, object]:
    """What a recipe file holds, as plain data: the version, then every field in the order of the class."""
    data: dict[str, object] = {"version": RECIPE_VERSION}
    for f in fields(recipe):
        value = getattr(recipe, f.name)
        data[f.name] = list(value) if isinstance(value, tuple) else value
    return data


def recipe_to_yaml(recipe: Recipe) -> str:
    """A recipe file: every field with a comment; :func:`load_recipe` gives back an equal recipe."""
    lines = [_HEADER]
    for name, value in recipe_to_dict(recipe).items():
        comment = COMMENTS.get(name)
        lines.append(f"\n# {comment}\n" if comment else "\n")
        # ASCII with escapes: with allow_unicode PyYAML writes U+0085 in a way that reads back as a blank
        lines.append(yaml.safe_dump({name: value}, default_flow_style=False, width=1_000))
    return "".join(lines)


def _text(path: Path) -> bytes:
    """What is in the file, or in the recipe of qconvert's own that has this name."""
    if path.is_fifo() and not path.is_relative_to("/dev"):  # a shell's <(...) is there, and somebody writes to it
        raise RecipeError(f"the recipe {path} is a named pipe", hint="give a file, or write <(command) for its output")
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        known = examples()
        if isinstance(error, FileNotFoundError) and str(path) in known:
            return known[str(path)].encode()
        named = not path.suffix and len(path.parts) == 1
        hint = f"give the path of a YAML file, or a name of `qconvert recipes`: {suggest(str(path), tuple(known))}"
        raise RecipeError(
            f"cannot read the recipe {path}: {error.strerror}", hint=hint if named else "give the path of a YAML file"
        ) from error
    if len(raw) > MAX_BYTES:
        raise RecipeError(f"{path} is over 1 MB, too large for a recipe", hint="give the path of a recipe, a YAML file")
    return raw


def _parsed(raw: bytes, path: Path) -> object:
    try:
        return yaml.load(raw.decode("utf-8-sig"), Loader=PlainLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
        raise RecipeError(f"{path}: {where}{error.problem}", hint=_example()) from error
    except Exception as error:  # a tagged or over-long scalar makes int(), float() or date() raise what they like
        raise RecipeError(f"{path} is not a recipe: {str(error)[:200]}", hint=_example()) from error


def _example() -> str:
    return "a recipe is a YAML file with lines like `method: mse`; --save-recipe writes one"


def _checked(recipe: Recipe, data: Mapping[Any, object], where: str) -> Recipe:
    """``recipe`` with the fields that ``data`` names, each checked against the type that the class declares."""
    types = get_type_hints(Recipe)
    valid = [f.name for f in fields(Recipe)]
    values: dict[str, Any] = {}
    for key, value in data.items():
        if key not in valid:
            raise RecipeError(f"{where}unknown key {key!r}", hint=suggest(str(key), valid))
        values[key] = _value(value, types[key], f"{where}{key}")
    try:
        return replace(recipe, **values)
    except RecipeError as error:
        raise RecipeError(f"{where}{error.message}", hint=error.hint) from error


def _value(value: object, kind: Any, where: str) -> object:
    """``value`` as the declared type ``kind``; lists become tuples, nothing else is converted."""
    if get_origin(kind) is UnionType:
        (kind,) = (k for k in get_args(kind) if k is not type(None))
        if value is None:
            return None
    if kind is str:
        if isinstance(value, str):
            return value
        raise _wrong(where, "text", value, "put it in quotes" if isinstance(value, int | float) else "")
    if kind is bool:
        if isinstance(value, bool):
            return value
        raise _wrong(where, "true or false", value, "")
    if kind in (int, float):
        if isinstance(value, int if kind is int else int | float) and not isinstance(value, bool):
            return value if kind is int else float(value)
        raise _wrong(where, "a whole number" if kind is int else "a number", value, "")
    if get_origin(kind) is tuple:
        if not isinstance(value, list | tuple):
            raise _wrong(where, "a list", value, f"write [{value}]" if isinstance(value, str) else "")
        return tuple(_value(item, get_args(kind)[0], f"{where}, item {i + 1}") for i, item in enumerate(value))
    raise InternalError(f"recipe files know no type {kind} ({where})")


_SCHEMA = "`qconvert recipes --schema` says what every key may be"


def _wrong(where: str, expected: str, value: object, hint: str) -> RecipeError:
    words = {
        "NoneType": "nothing",
        "str": "text",
        "bool": "true or false",
        "dict": "keys and values",
        "int": "a number",
    }
    kind = type(value).__name__
    shown = f" {value!r:.60}" if value is not None and not isinstance(value, list | dict) else ""
    return RecipeError(f"{where} must be {expected}, not {words.get(kind, f'a {kind}')}{shown}", hint=hint or _SCHEMA)

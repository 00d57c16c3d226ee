"""Recipes to and from YAML."""

from __future__ import annotations

import os
import time
from dataclasses import fields, replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from qconvert.errors import RecipeError
from qconvert.recipe.recipe import ACTIVATIONS, FORMATS, PINNED, PLACEMENTS, WEIGHTS, Recipe
from qconvert.recipe.recipe_file import (
    COMMENTS,
    MAX_BYTES,
    RECIPE_VERSION,
    load_recipe,
    merge,
    recipe_to_dict,
    recipe_to_yaml,
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "recipe.yaml"


def load(file: Path, text: str) -> Recipe:
    file.write_text(text, encoding="utf-8")
    return load_recipe(file)


def refusal(file: Path, text: str) -> RecipeError:
    with pytest.raises(RecipeError) as error:
        load(file, text)
    assert str(file) in error.value.message
    return error.value


# what YAML 1.1 would read as something else, beside any other text
TRICKY = st.sampled_from(
    [
        "yes",
        "no",
        "~",
        "null",
        "1",
        "1.5",
        "*Conv",
        "&a",
        "a: b",
        "- a",
        "#",
        " x ",
        "",
        "{",
        "2020-01-01",
        "\x85",
        "a\u2028b",
        "\t",
        "\r\n",
        "=",
        "<<",
    ]
)
PATTERNS = st.lists(st.text() | TRICKY, max_size=4).map(tuple)


def _recipe(**choices: object) -> Recipe:
    if choices["format"] == "qoperator" and choices["activations"] == "int8":
        choices["weights"] = "int8"  # the one combination that Recipe refuses
    if choices["placement"] != PINNED:
        choices["pinned_float"] = ()  # means nothing there, and is refused
    return Recipe(**choices)


RECIPES = st.builds(
    _recipe,
    target=st.text() | TRICKY,
    format=st.sampled_from(FORMATS),
    per_channel=st.none() | st.booleans(),
    activations=st.none() | st.sampled_from(ACTIVATIONS),
    weights=st.none() | st.sampled_from(WEIGHTS),
    symmetric=st.none() | st.booleans(),
    method=st.text() | TRICKY,
    placement=st.sampled_from(PLACEMENTS),
    pinned_float=PATTERNS,
    include=PATTERNS,
    exclude=PATTERNS,
)


@settings(deadline=None)  # PyYAML is slow, and a busy machine slower
@given(recipe=RECIPES)
def test_a_written_recipe_reads_back_the_same(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("recipe") / "r.yaml"
    path.write_bytes(recipe_to_yaml(recipe).encode())
    assert load_recipe(path) == recipe


@settings(deadline=None)
@given(recipe=RECIPES)
def test_the_text_is_stable(recipe: Recipe) -> None:
    assert recipe_to_yaml(recipe) == recipe_to_yaml(replace(recipe))


def test_the_strategy_covers_every_field() -> None:
    assert set(recipe_to_dict(Recipe())) == {"version", *(f.name for f in fields(Recipe))}


def test_every_field_has_a_comment_above_it() -> None:
    assert set(COMMENTS) == {f.name for f in fields(Recipe)}
    lines = recipe_to_yaml(Recipe()).splitlines()
    for name, comment in COMMENTS.items():
        at = next(i for i, line in enumerate(lines) if line.startswith(f"{name}:"))
        assert lines[at - 1] == f"# {comment}"


def test_the_header_says_how_to_use_it() -> None:
    first = recipe_to_yaml(Recipe()).splitlines()[:3]
    assert all(line.startswith("#") for line in first)
    assert "qconvert quantize model.onnx --calib data/ --recipe" in "".join(first)


def test_the_dict_is_plain_data() -> None:
    data = recipe_to_dict(Recipe(exclude=("a",)))
    assert next(iter(data)) == "version"
    assert data["exclude"] == ["a"]
    assert yaml.safe_load(recipe_to_yaml(Recipe(exclude=("a",)))) == data


@pytest.mark.parametrize("text", ["", "# nothing\n", "version: 1\n", "---\n", "\ufeffversion: 1\r\n"])
def test_an_empty_file_is_the_default(file: Path, text: str) -> None:
    assert load(file, text) == Recipe()


def test_a_file_changes_what_it_names(file: Path) -> None:
    assert load(file, "symmetric: yes\nexclude: [Softmax, /head/*]\n") == Recipe(
        symmetric=True, exclude=("Softmax", "/head/*")
    )


def test_an_unknown_key_names_file_key_and_the_nearest(file: Path) -> None:
    error = refusal(file, "metod: mse\n")
    assert "unknown key 'metod'" in error.message
    assert error.hint.startswith("did you mean 'method'?")
    assert all(f.name in error.hint for f in fields(Recipe))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("per_channel: 1", "per_channel must be true or false, not a number 1"),
        ("per_channel: 'yes'", "per_channel must be true or false, not text 'yes'"),
        ("method: 5", "method must be text, not a number 5"),
        ("method:", "method must be text, not nothing"),
        ("method: [mse]", "method must be text, not a list"),
        ("target: {a: b}", "target must be text, not keys and values"),
        ("exclude: Conv", "exclude must be a list, not text 'Conv'"),
        ("exclude: [Conv, 5]", "exclude, item 2 must be text, not a number 5"),
        ("format: qqd", "format cannot be 'qqd'"),
        ("- a\n- b", "a recipe is a list of `key: value` lines"),
        ("just words", "a recipe is a list of `key: value` lines"),
    ],
)
def test_a_wrong_value_says_what_was_expected(file: Path, text: str, expected: str) -> None:
    assert expected in refusal(file, text).message


@pytest.mark.parametrize("version", ["2", "0", "'1'", "true", "1.0", "null"])
def test_another_version_is_refused(file: Path, version: str) -> None:
    error = refusal(file, f"version: {version}\n")
    assert "version" in error.message
    assert str(RECIPE_VERSION) in error.hint


@pytest.mark.parametrize(
    "text",
    [
        "method: mse\nmethod: minmax\n",
        "method: [\n",
        "method: !!python/object/apply:os.system ['true']\n",
        "method: !!python/name:os.system\n",
        "method: !!int nothing\n",
        "method: !!timestamp never\n",
        "method: 2020-99-99\n",
        f"method: {'9' * 5000}\n",
        "[" * 5000,
        "method: '\x00'\n",
        "? [a]\n: b\n",
    ],
)
def test_what_is_no_recipe_is_an_error_of_the_user(file: Path, text: str) -> None:
    refusal(file, text)


def test_aliases_are_refused_before_they_grow(file: Path) -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
    start = time.perf_counter()
    error = refusal(file, bomb)
    assert "aliases (*a0) are not allowed" in error.message
    assert "line 2" in error.message
    assert time.perf_counter() - start < 5


def test_a_large_file_is_refused_unread(file: Path) -> None:
    assert "1 MB" in refusal(file, "#" * (MAX_BYTES + 1)).message


def test_bytes_that_are_no_text(file: Path) -> None:
    file.write_bytes(b"\xff\xfe\x00method")
    with pytest.raises(RecipeError, match="is not a recipe"):
        load_recipe(file)


@pytest.mark.parametrize("kind", ["missing", "folder"])
def test_a_path_that_cannot_be_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "r.yaml"
    if kind == "folder":
        path.mkdir()
    with pytest.raises(RecipeError, match="cannot read the recipe"):
        load_recipe(path)


def test_flags_win_over_the_file(file: Path) -> None:
    recipe = load(file, "method: minmax\nexclude: [a]\nsymmetric: true\n")
    flags = {"method": "entropy", "exclude": ("b", "c"), "symmetric": None}
    assert merge(recipe, flags) == Recipe(method="entropy", exclude=("b", "c"), symmetric=True)


@settings(deadline=None)
@given(recipe=RECIPES)
def test_merging_everything_gives_the_other_recipe(recipe: Recipe) -> None:
    data = recipe_to_dict(recipe)
    data.pop("version")
    assert merge(Recipe(), data) == recipe
    assert merge(recipe, {}) == recipe


def test_merge_refuses_what_a_file_could_not_hold() -> None:
    with pytest.raises(RecipeError, match="unknown key 'formatt'") as error:
        merge(Recipe(), {"formatt": "qdq"})
    assert "did you mean 'format'?" in error.value.hint
    with pytest.raises(RecipeError, match="format cannot be"):
        merge(Recipe(), {"format": "x"})


def test_a_pipe_that_nobody_writes_to_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(RecipeError, match="named pipe"):
        load_recipe(tmp_path / "pipe.yaml")

"""What a recipe comes to on a target."""

from __future__ import annotations

from dataclasses import fields

import pytest

from qconvert.errors import RecipeError
from qconvert.inputs import least_opset
from qconvert.recipe.recipe import Recipe
from qconvert.recipe.resolve import resolve
from qconvert.targets import TARGETS
from qconvert.targets.auto import detected


def test_every_choice_is_made() -> None:
    for target in (*TARGETS.names(), "auto"):
        recipe = resolve(Recipe(target=target))
        assert None not in [getattr(recipe, f.name) for f in fields(recipe)]
        assert resolve(recipe) == recipe
    assert recipe.target == detected().target


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("x86-vnni", ("uint8", "int8", False)),
        ("x86-avx2", ("uint8", "int8", False)),
        ("arm64", ("int8", "int8", False)),
        ("web", ("uint8", "int8", False)),
        ("openvino", ("uint8", "int8", False)),
        ("tensorrt", ("int8", "int8", True)),
        ("cuda", ("int8", "int8", True)),
        ("tinyml", ("int8", "int8", False)),
        ("qnn", ("uint8", "int8", False)),
    ],
)
def test_the_target_decides_what_is_left_open(target: str, expected: tuple[str, str, bool]) -> None:
    recipe = resolve(Recipe(target=target))
    assert (recipe.activations, recipe.weights, recipe.symmetric) == expected
    assert recipe.per_channel is True


def test_the_user_decides_what_is_not() -> None:
    recipe = resolve(Recipe(target="arm64", activations="uint8", symmetric=True, per_channel=False))
    assert (recipe.activations, recipe.weights) == ("uint8", "int8")
    assert (recipe.symmetric, recipe.per_channel) == (True, False)
    # the weights follow the activations that the target has them with
    assert resolve(Recipe(target="x86-vnni", activations="int8")).weights == "int8"


@pytest.mark.parametrize(
    ("recipe", "says", "hint"),
    [
        (Recipe(target="tensorrt", activations="uint8"), "uint8 activations", "int8 activations with int8 weights"),
        (Recipe(target="tensorrt", symmetric=False), "symmetric activations only", "--asymmetric"),
        (Recipe(target="tensorrt", format="qoperator"), "--format qoperator", "qdq"),
        (Recipe(target="tinyml", format="qoperator"), "--format qoperator", "qdq"),
        (Recipe(target="tinyml", weights="uint8"), "uint8 weights", "int8"),
        (Recipe(target="tensorrt", scheme="a16w8"), "--scheme a16w8", "--scheme int8, or a target that runs it: qnn"),
        (Recipe(target="tinyml", scheme="a16w4"), "int8 activations with int8 weights", "--scheme int8"),
        (
            Recipe(target="arm64", activations="int8", weights="uint8"),
            "int8 activations with uint8 weights",
            "uint8 activations",
        ),
    ],
)
def test_what_a_target_cannot_run_is_refused(recipe: Recipe, says: str, hint: str) -> None:
    with pytest.raises(RecipeError) as error:
        resolve(recipe)
    assert says in error.value.message
    assert recipe.target in error.value.message
    assert hint in error.value.hint
    assert error.value.exit_code == 2


@pytest.mark.parametrize(
    ("scheme", "target", "expected"),
    [
        ("a16w8", "x86-vnni", ("uint16", "int8", "static")),
        ("a16w4", "x86-avx2", ("uint16", "int4", "static")),
        ("a16w8", "qnn", ("uint16", "int8", "static")),
        ("int8", "qnn", ("uint8", "int8", "measured")),
    ],
)
def test_activations_of_16_bits(scheme: str, target: str, expected: tuple[str, str, str]) -> None:
    recipe = resolve(Recipe(scheme=scheme, target=target))
    assert (recipe.activations, recipe.weights, recipe.placement) == expected
    assert resolve(recipe) == recipe
    assert least_opset(recipe) == (13 if scheme == "int8" else 21)


@pytest.mark.parametrize(
    ("recipe", "says", "hint"),
    [
        (Recipe(target="qnn", activations="uint16"), "--scheme int8", "use --scheme a16w8"),
        (Recipe(target="qnn", scheme="a16w8", activations="uint8"), "--scheme a16w8", "use --scheme int8"),
        (Recipe(target="qnn", scheme="a16w8", activations="int16"), "qnn does not run int16 activations", "uint16"),
    ],
)
def test_types_of_another_scheme_are_refused(recipe: Recipe, says: str, hint: str) -> None:
    with pytest.raises(RecipeError) as error:
        resolve(recipe)
    assert says in error.value.message
    assert hint in error.value.hint

"""Which target a processor is, and that it is found."""

from __future__ import annotations

import platform

import pytest

from qconvert.errors import RecipeError
from qconvert.machine import Processor, this_processor
from qconvert.targets import TARGETS
from qconvert.targets.auto import AUTO, detected, target_for, target_of


@pytest.mark.parametrize(
    ("architecture", "vnni", "target"),
    [
        ("x86_64", True, "x86-vnni"),
        ("x86_64", False, "x86-avx2"),
        ("aarch64", False, "arm64"),
        ("armv7l", False, "arm64"),
        ("riscv64", False, "x86-avx2"),
        ("unknown", False, "x86-avx2"),
    ],
)
def test_a_processor_has_a_target(architecture: str, vnni: bool, target: str) -> None:
    assert target_for(Processor(name="some", architecture=architecture, vnni=vnni)) == target
    assert target in TARGETS


def test_this_machine_is_one_of_them() -> None:
    found = detected()
    assert target_of(AUTO).name == found.target
    assert found.processor == this_processor()
    assert found.processor.name
    if platform.machine() in ("x86_64", "AMD64"):
        assert found.target.startswith("x86-")
        assert "VNNI" in str(found.processor)


def test_an_unknown_target_names_the_nearest() -> None:
    with pytest.raises(RecipeError) as error:
        target_of("tensort")
    assert error.value.hint.startswith("did you mean 'tensorrt'?")
    assert "auto" in error.value.hint

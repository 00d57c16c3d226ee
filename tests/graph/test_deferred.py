"""Modules that are imported late: sympy, which onnx-ir needs for symbolic dimensions only."""

from __future__ import annotations

import subprocess
import sys

import pytest

from qconvert.graph.deferred import deferred

# A fresh interpreter: this one may have loaded sympy for another test.
SCRIPT = """
import sys
import {module}
assert "onnx_ir" in sys.modules
early = "sympy.core" in sys.modules
import onnx_ir as ir
total = ir.SymbolicDim("batch") + 1
print(early, total, "sympy.core" in sys.modules)
"""


@pytest.mark.parametrize("module", ["qconvert.quantizing", "qconvert.emit.ties"])
def test_sympy_is_loaded_when_a_dimension_is_computed_and_not_before(module: str) -> None:
    command = [sys.executable, "-c", SCRIPT.format(module=module)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["False", "batch", "+", "1", "True"]


def test_a_module_that_is_not_there_is_missing_and_the_finder_is_gone() -> None:
    before = list(sys.meta_path)
    with pytest.raises(ModuleNotFoundError), deferred("qconvert_no_such_module"):
        import qconvert_no_such_module  # type: ignore[import-not-found]  # noqa: F401
    assert sys.meta_path == before

"""qconvert: turn an FP32 ONNX model into a quantized one, and show what it cost and what it gained.

The functions of the Python interface are here under the names of the commands; docs/python.md shows their use. They are
found when they are first asked for, so that importing qconvert costs nothing.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qconvert.api.judging import bench, check, compare, evaluate, inspect, require
    from qconvert.api.making import calibrate, convert, merge, quantize, sensitivity, tune
    from qconvert.errors import (
        DataError,
        GateMissed,
        GivenUp,
        InputError,
        InternalError,
        ModelError,
        OutputError,
        QConvertError,
        RecipeError,
    )
    from qconvert.recipe.recipe import Recipe
    from qconvert.report.model import Report

__version__ = "0.1.0"

__all__ = [
    "DataError",
    "GateMissed",
    "GivenUp",
    "InputError",
    "InternalError",
    "ModelError",
    "OutputError",
    "QConvertError",
    "Recipe",
    "RecipeError",
    "Report",
    "__version__",
    "bench",
    "calibrate",
    "check",
    "compare",
    "convert",
    "evaluate",
    "inspect",
    "merge",
    "quantize",
    "require",
    "sensitivity",
    "tune",
]

_HOMES = {
    "qconvert.api.judging": "bench check compare evaluate inspect require",
    "qconvert.api.making": "calibrate convert merge quantize sensitivity tune",
    "qconvert.errors": "DataError GateMissed GivenUp InputError InternalError ModelError OutputError QConvertError "
    "RecipeError",
    "qconvert.recipe.recipe": "Recipe",
    "qconvert.report.model": "Report",
}
_HOME = {name: module for module, names in _HOMES.items() for name in names.split()}


class _Package(ModuleType):
    """This package, with functions under names that some of its own packages have, too (``evaluate``)."""

    def __getattr__(self, name: str) -> object:
        """What is found when it is first asked for."""
        if name not in _HOME:
            raise AttributeError(f"module 'qconvert' has no attribute {name!r}")
        found: object = getattr(import_module(_HOME[name]), name)
        self.__dict__[name] = found
        return found

    def __setattr__(self, name: str, value: object) -> None:
        """Set, but for the package that Python would put into the place of a function when it is imported."""
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        """All names, also those not yet asked for."""
        return sorted({*super().__dir__(), *__all__})


sys.modules[__name__].__class__ = _Package

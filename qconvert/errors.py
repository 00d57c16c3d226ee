"""The exception tree. Every error says what is wrong and where (its message) and what to do (its hint).

Only ``cli/`` turns an error into an exit code; the code itself is a fact of the error's class:
2 bad usage or bad input, 3 a gate was missed, 1 a defect of qconvert.
"""

from __future__ import annotations

from typing import ClassVar


class QConvertError(Exception):
    """Base of all errors that qconvert raises on purpose.

    Args:
        message: what is wrong and where, one sentence.
        hint: what the user can do about it, one sentence; empty when nothing is known.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def described(error: Exception) -> str:
    """What ``error`` says is wrong, for a note: of an error that qconvert did not raise, its type, too."""
    return error.message if isinstance(error, QConvertError) else f"{type(error).__name__}: {error}"


class InputError(QConvertError):
    """Something the user gave is unusable."""

    exit_code: ClassVar[int] = 2


class ModelError(InputError):
    """The model file is missing, damaged, not ONNX, or cannot be run or quantized."""


class GivenUp(InputError):
    """A run of a model did not come to an end in time; whoever tries other inputs or models need not go on."""


class DataError(InputError):
    """Calibration or evaluation data, or labels, do not fit the model."""


class RecipeError(InputError):
    """An option or a recipe asks for something that does not exist or does not go together."""


class OutputError(InputError):
    """The result cannot be written where the user wants it."""


class GateMissed(QConvertError):
    """A limit that the user set was not met; the best result has been written."""

    exit_code: ClassVar[int] = 3


class InternalError(QConvertError):
    """qconvert broke one of its own promises: a defect to report."""

    exit_code: ClassVar[int] = 1

"""Tracker: takes the parameters, metrics and files of a run. ``--track NAME`` finds one, in this order:

python:MODULE:FUNCTION    a function of the user's, which is called with a TrackedRun
NAME, NAME:REST           a file of ``trackers/``, or an entry point of the group "qconvert.trackers"
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from qconvert.calibrate.sources.python_function import user_code
from qconvert.errors import QConvertError, RecipeError
from qconvert.registry import Registry, suggest
from qconvert.report.model import Report
from qconvert.report.quantities import values
from qconvert.report.result import Result, command_of
from qconvert.report.summaries import summary_of

GROUP = "qconvert.trackers"
_PYTHON = "python:"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackedRun:
    """One run, as trackers take it.

    Attributes:
        command: "quantize", "compare", "evaluate" or "bench".
        name: what the run was about: "digits_cnn.onnx -> digits_cnn.int8.onnx".
        parameters: the recipe's fields, the versions, the data.
        metrics: the figures that ``--fail-if`` knows; of several models as "model.quantity".
        artifacts: the reports that were written, and the model where that was asked for.
        result: all of it.
    """

    command: str
    name: str
    parameters: Mapping[str, str]
    metrics: Mapping[str, float]
    artifacts: tuple[Path, ...]
    result: Result


Tracker = Callable[[TrackedRun], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackerFactory:
    """A kind of tracker.

    Attributes:
        open: from what stands behind "NAME:" to a tracker; it checks what can be checked before there is a run.
        description: one line.
    """

    open: Callable[[str], Tracker]
    description: str


TRACKERS: Registry[TrackerFactory] = Registry("tracker")
TRACKERS.discover("qconvert.tracking.trackers")


def tracker_of(text: str) -> Tracker:
    """The tracker that ``--track text`` names.

    Raises:
        RecipeError: there is none, or it cannot be used here.
        DataError: the module of the user's function fails.
    """
    if text.startswith(_PYTHON):
        return _function(text)
    name, _, rest = text.partition(":")
    factory = TRACKERS.find(name)
    if factory is not None:
        return factory.open(rest)
    found = {point.name: point for point in entry_points(group=GROUP)}
    if name in found:
        with user_code(f"--track {text}"):
            loaded: Tracker = found[name].load()
        return _guarded(loaded, text)
    names = (*TRACKERS.names(), *sorted(found))
    raise RecipeError(f"--track {text}: unknown tracker", hint=f"{suggest(name, names)}, python:MODULE:FUNCTION")


def tracked(result: Result, artifacts: tuple[Path, ...]) -> TrackedRun:
    """``result`` as trackers take it."""
    summary = summary_of(result)
    several = len(values(result)) > 1
    return TrackedRun(
        command=command_of(result),
        name=summary.subject,
        parameters=_parameters(result),
        metrics={
            f"{model}.{name}" if several else name: value
            for model, figures in values(result).items()
            for name, value in figures.items()
        },
        artifacts=artifacts,
        result=result,
    )


def _parameters(result: Result) -> dict[str, str]:
    found: dict[str, Any] = {"command": command_of(result)}
    if isinstance(result, Report):
        found |= {f"recipe.{key}": value for key, value in result.recipe.items()}
        found |= {"model": result.model.path, "output": result.output.path, "target": result.target.name}
        found |= {"calibration.source": result.calibration.source, "calibration.samples": result.calibration.samples}
        found |= {"model.sha256": result.model.sha256, "output.sha256": result.output.sha256}
        versions = result.versions
        found |= {f"version.{n}": getattr(versions, n) for n in ("qconvert", "onnxruntime", "onnx", "numpy", "python")}
        found["machine"] = versions.machine
    else:
        found["models"] = summary_of(result).subject
        source = getattr(result, "source", None) or getattr(result, "data", "")
        found |= {"data": source, "samples": result.samples, "threads": result.threads}
    return {key: _text(value) for key, value in found.items()}


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _function(text: str) -> Tracker:
    """The function of "python:MODULE:FUNCTION"."""
    module, _, name = text.removeprefix(_PYTHON).partition(":")
    if not module or not name:
        raise RecipeError(
            f"--track {text} names no function", hint="write python:tracking:log for log(run) in tracking.py"
        )
    with user_code(f"--track {text}"):
        importlib.invalidate_caches()
        function = getattr(importlib.import_module(module), name, None)
    if not callable(function):
        raise RecipeError(f"--track {text}: module {module!r} has no function {name!r}", hint="check the name")
    return _guarded(function, text)


def _guarded(function: Tracker, text: str) -> Tracker:
    """``function`` with its failures as errors of qconvert, and its output on stderr."""

    def call(run: TrackedRun) -> None:
        with user_code(f"--track {text}"):
            function(run)

    return call


def log(trackers: Mapping[str, Tracker], run: TrackedRun) -> tuple[str, ...]:
    """Give ``run`` to every tracker; what failed, a line each. The run itself is done and written by then."""
    failures = []
    for text, tracker in trackers.items():
        try:
            tracker(run)
        except QConvertError as error:
            failures.append(f"the run was not logged with --track {text}: {error.message}")
    return tuple(failures)

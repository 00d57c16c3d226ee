"""What can be reported: the results of the commands, by one name."""

from __future__ import annotations

from qconvert.evaluate.benchmark import Benchmark
from qconvert.evaluate.comparison import ModelComparison
from qconvert.evaluate.evaluation import Evaluation
from qconvert.report.model import Report

Result = Report | ModelComparison | Evaluation | Benchmark

KINDS: dict[str, type[Result]] = {
    "quantize": Report,
    "compare": ModelComparison,
    "evaluate": Evaluation,
    "bench": Benchmark,
}
"""Command -> its result."""


def command_of(result: Result) -> str:
    """The command that ``result`` is of."""
    return next(command for command, kind in KINDS.items() if isinstance(result, kind))

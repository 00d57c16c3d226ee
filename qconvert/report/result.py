"""What can be reported: the results of the commands, by one name."""

from __future__ import annotations

from typing import cast

from qconvert.evaluate.benchmark import Benchmark
from qconvert.evaluate.comparison import ModelComparison
from qconvert.evaluate.evaluation import Evaluation
from qconvert.evaluate.shown import Shown, show_with
from qconvert.report.model import Report

Result = Report | ModelComparison | Evaluation | Benchmark

KINDS: dict[str, type[Result]] = {
    "quantize": Report,
    "compare": ModelComparison,
    "evaluate": Evaluation,
    "bench": Benchmark,
}
"""Command -> its result."""


def _inline(result: Shown) -> str:
    from qconvert.diagnose.diagnosis import Diagnosis
    from qconvert.report.html.page import render_inline_summary
    from qconvert.report.notebook import diagnosis
    from qconvert.report.summaries import summary_of

    if isinstance(result, Diagnosis):
        return diagnosis(result)
    return render_inline_summary(summary_of(cast(Result, result)))


show_with(_inline)


def command_of(result: Result) -> str:
    """The command that ``result`` is of."""
    return next(command for command, kind in KINDS.items() if isinstance(result, kind))

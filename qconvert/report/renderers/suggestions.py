"""What to try next, from what a report shows: each with the command that does it, the most pressing first."""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass

from qconvert.report.model import AccuracyReport, NodeDecision, Report
from qconvert.report.renderers import phrases

# A drop of the metric above this is worth an effort; in its unit.
_TELLING_DROP = {"%": 0.5, "dB": 0.3}
_TELLING_SHARE = 0.01  # of the value, for a metric without unit
# An SQNR below this shows in most metrics.
_LOW_DB = 20.0
_FEW_SAMPLES = 64
_WORST = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """One thing to try: why, and the command, "" where there is none to copy."""

    text: str
    command: str = ""


def suggestions(report: Report) -> tuple[Suggestion, ...]:
    """What a person may want to do with ``report`` in hand; the last one is always to measure where the model will run.

    "DATA" and "LABELS" in a command stand for files that only the user knows.
    """
    model, output = shlex.quote(report.model.path), shlex.quote(report.output.path)
    again = f"qconvert quantize {model} --calib DATA -o {output} --force"
    v = report.verification
    examine = f"qconvert check {output}"
    found = []
    if v.checker or v.loads is False or v.interface:
        text = "A check failed: do not ship this model before you know why."
        found.append(Suggestion(text=text, command=examine))
    if report.accuracy is not None and _accuracy_suffers(report.accuracy):
        found += _accuracy(report, again)
    if report.latency is not None and report.latency.speedup.median < 1 + phrases.SAME_SPEED:
        found.append(Suggestion(text="It is not faster on this machine. See what costs the time.", command=examine))
    if report.accuracy is not None and not report.accuracy.held_out:
        found.append(
            Suggestion(
                text="Accuracy was measured on samples that calibration has seen. Measure it on others.",
                command=f"{again} --eval DATA",
            )
        )
    if report.accuracy is not None and report.accuracy.comparison.metric is None:
        found.append(
            Suggestion(
                text="Outputs were compared with the original's only. With labels you see what it means for the task.",
                command=f"{again} --eval DATA --labels LABELS",
            )
        )
    found.append(
        Suggestion(
            text="Speed depends on the processor. Measure on the machine that the model will run on.",
            command=f"qconvert bench {model} {output}",
        )
    )
    return tuple(found)


def _accuracy_suffers(accuracy: AccuracyReport) -> bool:
    comparison = accuracy.comparison
    metric = comparison.metric
    if metric is None:
        return comparison.fidelity.sqnr_db < _LOW_DB
    if not math.isfinite(metric.drop):
        return metric.drop > 0
    return metric.drop > _TELLING_DROP.get(metric.unit, _TELLING_SHARE * abs(metric.reference))


def _accuracy(report: Report, again: str) -> list[Suggestion]:
    found = []
    if report.recipe.get("effort") == "fast":
        text = "Accuracy suffers, and this run was a fast one. By default more is recovered."
        found.append(Suggestion(text=text, command=f"{again} --effort default"))
    samples = report.calibration.samples
    if samples < _FEW_SAMPLES:
        found.append(
            Suggestion(
                text=f"Accuracy suffers, and {phrases.count(samples, 'sample')} {'is' if samples == 1 else 'are'} few. "
                "Calibrate with a few hundred that are like those the model will see.",
                command=again,
            )
        )
    if worst := _most_harmful(report):
        names = ", ".join(d.node for d in worst)
        flags = " ".join(f"--exclude {shlex.quote(d.node)}" for d in worst)
        found.append(
            Suggestion(text=f"Accuracy suffers most from {names}. Leave them in float.", command=f"{again} {flags}")
        )
    else:
        method = "minmax" if report.calibration.method != "minmax" else "auto"
        found.append(
            Suggestion(
                text="Accuracy suffers. Try ranges of another kind, then leave single layers in float with --exclude.",
                command=f"{again} --method {method}",
            )
        )
    return found


def _most_harmful(report: Report) -> list[NodeDecision]:
    """The integer nodes that lower the SQNR most by themselves, where that was measured."""
    measured = [(d.sqnr_db, d) for d in report.decisions if d.quantized and d.sqnr_db is not None]
    return [d for _, d in sorted(measured, key=lambda pair: pair[0])[:_WORST]]

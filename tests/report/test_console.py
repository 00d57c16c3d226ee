"""The terminal's report, compared with golden files; UPDATE_GOLDEN=1 writes them anew (then read the difference)."""

from __future__ import annotations

import io
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from qconvert.evaluate.latency import Speedup
from qconvert.report.model import Report
from qconvert.report.renderers.console import ConsoleRenderer, render_console

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "console"


def text(report: Report, width: int, verbosity: int = 0, *, colour: bool = False) -> str:
    file = io.StringIO()
    kind = "truecolor" if colour else None
    render_console(report, Console(file=file, width=width, color_system=kind, force_terminal=colour), verbosity)
    # editors strip the blanks that rich pads columns with
    return "".join(f"{line.rstrip()}\n" for line in file.getvalue().splitlines())


@pytest.mark.parametrize("name", ["classifier", "detector"])
@pytest.mark.parametrize(("width", "verbosity"), [(80, 0), (120, 0), (80, -1), (100, 1)])
def test_golden(name: str, width: int, verbosity: int, request: pytest.FixtureRequest) -> None:
    got = text(request.getfixturevalue(name), width, verbosity)
    golden = GOLDEN / f"{name}-{width}{ {-1: '-quiet', 0: '', 1: '-verbose'}[verbosity] }.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(got, encoding="utf-8")
    assert got == golden.read_text(encoding="utf-8"), "if the new text is meant: UPDATE_GOLDEN=1 make unit"


@pytest.mark.parametrize("name", ["classifier", "detector"])
@pytest.mark.parametrize("width", [60, 70, 80, 100, 120, 200])
def test_no_line_is_wider_than_the_terminal_or_120(name: str, width: int, request: pytest.FixtureRequest) -> None:
    lines = text(request.getfixturevalue(name), width, 1).splitlines()
    assert max(map(len, lines)) <= min(width, 120)


@pytest.mark.parametrize("width", [60, 80])
def test_a_narrow_terminal_loses_nothing(detector: Report, width: int) -> None:
    squeezed = "".join(text(detector, width).split())
    for fact in ("a/very/long/path/of/an/exported/module/boxes", "1.23e+06", "Conv_3", "1,234values", "3.10e+07"):
        assert fact in squeezed
    assert "…" not in squeezed


def test_quiet_is_one_line_however_narrow(classifier: Report) -> None:
    assert text(classifier, 40, -1).splitlines() == [
        "digits.onnx -> digits.int8.onnx: 420 kB -> 120 kB (3.5x smaller), 1.8x faster, top1 99.4 % -> 99.2 %"
    ]


def test_verbose_names_every_node(classifier: Report) -> None:
    shown = text(classifier, 120, 1)
    assert all(d.node in shown for d in classifier.decisions)


def test_markup_in_names_is_text(classifier: Report) -> None:
    odd = replace(classifier, output=replace(classifier.output, path="out/[red]a[/red].onnx"), notes=("[bold]x",))
    shown = text(odd, 120)
    assert "[red]a[/red].onnx" in shown
    assert "[bold]x" in shown


def test_the_text_is_ascii_and_colour_adds_no_word(detector: Report) -> None:
    plain, coloured = text(detector, 80), text(detector, 80, colour=True)
    assert plain.isascii()
    assert "\x1b[" in coloured
    bare = re.sub(r"\x1b\[[0-9;]*m", "", coloured)
    assert [line.rstrip() for line in bare.splitlines()] == plain.splitlines()


@pytest.mark.parametrize(
    ("ratio", "words"),
    [(1.0, "same speed"), (1.02, "same speed"), (1.05, "1.05x faster"), (0.5, "2.0x slower"), (12.3, "12x faster")],
)
def test_speed_in_words(classifier: Report, ratio: float, words: str) -> None:
    speedup = Speedup(median=ratio, p10=ratio, p90=ratio)
    report = replace(classifier, latency=replace(classifier.latency, speedup=speedup))
    assert f", {words}, " in text(report, 80, -1)


def test_without_labels_the_headline_tells_the_agreement(classifier: Report) -> None:
    comparison = replace(classifier.accuracy.comparison, metric=None)
    report = replace(classifier, accuracy=replace(classifier.accuracy, comparison=comparison))
    assert "same top-1 class for 99.8 % of samples" in text(report, 80, -1)


def test_a_text_file_holds_every_decision(classifier: Report) -> None:
    shown = ConsoleRenderer().render(classifier)
    assert shown.isascii()
    assert "Softmax_5_0" in shown
    assert not any(line.endswith(" ") for line in shown.splitlines())

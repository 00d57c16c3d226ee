"""Charts as inline SVG, without a library: shapes only, coloured by classes of ``style.css``, so that both themes fit.

A chart is as wide as its place. What stretches stands in a nested <svg> with a viewBox of its own, what must not (text,
points) is placed in per cent:

    <svg height="96"> <svg viewBox="0 0 n 100" preserveAspectRatio="none"> path </svg> <text x="40%"> </svg>

Nothing of the user's is in a chart except the labels of points, which are escaped. A chart is an image for assistive
technology; the text beside it says the same in numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup, escape

from qconvert.evaluate.latency import Latency
from qconvert.report.model import Front, TensorReport
from qconvert.report.renderers import phrases

_PLOT, _AXIS = 96, 18  # heights in px
_LATENCY_BINS = 72
# Axis of latencies ends here: one run that the system interrupted must not squeeze all others to the left.
_LATENCY_TAIL = 0.98
# A tick's label needs this share of the width to itself.
_ROOM = 0.16


def tensor_chart(tensor: TensorReport) -> Markup:
    """Histogram with logarithmic counts; what the chosen range leaves out is shaded.

    Without a histogram the range seen is a plain bar; without that, the chosen range stands alone.
    """
    lo, hi = tensor.range
    ends = [lo, hi, 0.0, *(tensor.observed or ())]
    if tensor.histogram is not None:
        h = tensor.histogram
        ends += [h.start, h.start + h.width * len(h.counts)]
    axis = _Axis(min(ends), max(ends))
    seen = tensor.observed or tensor.range
    cuts = ((seen[0], lo), (hi, seen[1]))
    parts = [
        f'<rect class="cut" x="{axis.at(a)}" width="{axis.span(a, b)}" height="{_PLOT}"/>' for a, b in cuts if b > a
    ]
    if tensor.histogram is not None:
        h = tensor.histogram
        end = h.start + h.width * len(h.counts)
        parts.append(
            f'<svg x="{axis.at(h.start)}" width="{axis.span(h.start, end)}" height="{_PLOT}" '
            f'viewBox="0 0 {len(h.counts)} 100" preserveAspectRatio="none">'
            f'<path class="bars" d="{_bars([math.log1p(c) for c in h.counts])}"/></svg>'
        )
    elif tensor.observed is not None:
        a, b = tensor.observed
        parts.append(f'<rect class="bars" x="{axis.at(a)}" width="{axis.span(a, b)}" y="{_PLOT - 12}" height="12"/>')
    parts += [f'<line class="end" x1="{axis.at(v)}" x2="{axis.at(v)}" y2="{_PLOT}"/>' for v in (lo, hi)]
    parts += _ticks(axis, [0.0] if axis.low < 0.0 < axis.high else [])
    return _svg(parts, _PLOT + _AXIS, "Histogram with the chosen range" if tensor.histogram else "Range")


def latency_chart(latency: Latency, others: Sequence[Latency], kind: str) -> Markup:
    """How often ``latency`` took how long, on an axis that ``others`` share; "" without single runs.

    ``kind`` is the class that colours it.
    """
    if not latency.times_ms:
        return Markup("")
    every = [l for l in (latency, *others) if l.times_ms]
    low = min(min(l.times_ms) for l in every)
    high = max(float(np.quantile(l.times_ms, _LATENCY_TAIL)) for l in every)
    axis = _Axis(low, high if high > low else low * 1.01 + 1e-6)
    shown = np.minimum(latency.times_ms, axis.high)  # the last bin holds the tail
    counts, _ = np.histogram(shown, bins=_LATENCY_BINS, range=(axis.low, axis.high))
    median = axis.at(min(latency.median_ms, axis.high))
    a, b = (min(v, axis.high) for v in (latency.p10_ms, latency.p90_ms))
    parts = [
        f'<rect class="band" x="{axis.at(a)}" width="{axis.span(a, b)}" height="{_PLOT - 32}"/>',
        f'<svg width="100%" height="{_PLOT - 32}" viewBox="0 0 {_LATENCY_BINS} 100" preserveAspectRatio="none">'
        f'<path class="bars" d="{_bars([math.sqrt(c) for c in counts])}"/></svg>',
        f'<line class="median" x1="{median}" x2="{median}" y2="{_PLOT - 32}"/>',
        *_ticks(axis, [], _PLOT - 32, " ms"),
    ]
    return _svg(parts, _PLOT - 32 + _AXIS, "Distribution of the runs", kind)


def interval_chart(value: float, low: float, high: float, unit: str) -> Markup:
    """A drop with its confidence interval, beside zero."""
    reach = max(abs(low), abs(high), abs(value)) * 1.15 or 1.0
    axis = _Axis(-reach, reach)
    parts = [
        '<line class="zero" x1="50%" x2="50%" y2="34"/>',
        f'<line class="whisker" x1="{axis.at(low)}" x2="{axis.at(high)}" y1="17" y2="17"/>',
        *(f'<line class="whisker" x1="{axis.at(v)}" x2="{axis.at(v)}" y1="10" y2="24"/>' for v in (low, high)),
        f'<circle class="dot" cx="{axis.at(value)}" cy="17" r="5"/>',
        *_ticks(axis, [0.0], 34, unit),
    ]
    return _svg(parts, 34 + _AXIS, "The drop with its confidence interval")


def front_chart(front: Front) -> Markup:
    """Speed to the right, accuracy upwards; the model that was written is filled."""
    values = [p.value for p in front.points] + ([front.reference] if front.reference is not None else [])
    finite = [v for v in values if math.isfinite(v)]
    if not finite:
        return Markup("")
    x = _Axis(min([1.0, *(p.speedup for p in front.points)]), max([1.0, *(p.speedup for p in front.points)])).padded()
    y = _Axis(min(finite), max(finite)).padded()
    height = 220

    def up(value: float) -> str:
        share = y.share(value)
        return f"{height * (1 - share if front.higher_is_better else share):.1f}"

    parts = []
    if front.reference is not None and math.isfinite(front.reference):
        level = up(front.reference)
        parts.append(f'<line class="zero" x2="100%" y1="{level}" y2="{level}"/>')
        parts.append(f'<text y="{float(level) - 5:.1f}">FP32, {_value(front.reference, front)}</text>')
    for p in front.points:
        if math.isfinite(p.value):
            title = escape(f"{p.label}: {phrases.significant(p.speedup)}x, ") + _value(p.value, front)
            kind = "dot chosen-point" if p.chosen else "dot"
            parts.append(
                f'<circle class="{kind}" cx="{x.at(p.speedup)}" cy="{up(p.value)}" r="6">'
                f"<title>{title}</title></circle>"
            )
            if p.chosen:
                parts.append(
                    f'<text x="{x.at(p.speedup)}" y="{float(up(p.value)) + 22:.1f}" class="middle">'
                    f"{phrases.significant(p.speedup)}x, {_value(p.value, front)}</text>"
                )
    parts += _ticks(x, [1.0] if x.low < 1.0 < x.high else [], height, "x")
    return _svg(parts, height + _AXIS, f"Speed against {front.quantity}", "front")


def _value(value: float, front: Front) -> Markup:
    return escape(f"{phrases.significant(value, 4)} {front.unit}".rstrip())


class _Axis:
    """Maps low..high to 0..100 per cent of the width."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high if high > low else low + 1.0

    def padded(self) -> _Axis:
        """With a margin of 8 % on both sides."""
        room = 0.08 * (self.high - self.low)
        return _Axis(self.low - room, self.high + room)

    def share(self, value: float) -> float:
        """Where ``value`` is, 0..1."""
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))

    def at(self, value: float) -> str:
        return f"{100 * self.share(value):.2f}%"

    def span(self, a: float, b: float) -> str:
        return f"{100 * (self.share(b) - self.share(a)):.2f}%"


def _ticks(axis: _Axis, inner: Sequence[float], top: int = _PLOT, unit: str = "") -> list[str]:
    """The axis with labels at its ends, and at those of ``inner`` that have room."""
    y = top + 14
    found = [
        f'<line class="axis" x2="100%" y1="{top}" y2="{top}"/>',
        f'<text y="{y}">{escape(phrases.significant(axis.low) + unit)}</text>',
        f'<text x="100%" y="{y}" class="last">{escape(phrases.significant(axis.high) + unit)}</text>',
    ]
    for value in inner:
        if _ROOM < axis.share(value) < 1 - _ROOM:
            found.append(
                f'<text x="{axis.at(value)}" y="{y}" class="middle">{escape(phrases.significant(value) + unit)}</text>'
            )
    return found


def _bars(heights: Sequence[float]) -> str:
    """A path over bins of width 1 whose greatest is 98 of 100 high; one that is not empty is at least 2 high."""
    top = max(heights, default=0.0) or 1.0
    levels = [100 - (max(2, round(98 * h / top)) if h > 0 else 0) for h in heights]
    path, run = ["M0 100"], 0
    for i, level in enumerate(levels):
        run += 1
        if i + 1 == len(levels) or levels[i + 1] != level:
            path.append(f"V{level}h{run}")
            run = 0
    return "".join([*path, "V100z"])


def _svg(parts: Sequence[str], height: int, label: str, kind: str = "") -> Markup:
    classes = f"chart {kind}".strip()
    return Markup(
        f'<svg class="{classes}" role="img" aria-label="{escape(label)}" height="{height}">{"".join(parts)}</svg>'
    )

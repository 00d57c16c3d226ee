"""From a report to one HTML file that needs nothing else: no network, no other file, no script to be read.

Style and script are part of the page. A content security policy forbids every other source and every script but that
one, which is named by its digest; whatever a model calls its nodes, nothing of it runs. Escaping is the template's
(jinja2 with autoescape), so the policy is a second lock and not the first.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from qconvert.report.html.charts import front_chart, interval_chart, latency_chart, tensor_chart
from qconvert.report.html.rows import Kind, TensorRef, columns_of, regions_of, rows_of
from qconvert.report.html.tiles import tiles_of
from qconvert.report.model import Report
from qconvert.report.renderers import phrases
from qconvert.report.renderers.facts import Fact, Level, facts, scheme
from qconvert.report.renderers.suggestions import suggestions
from qconvert.report.summary import Grid, Summary

# Where a name may be broken: not within 0.125, nor within an entity such as &#39;
_SEPARATOR = re.compile(r"([/_]+|[.:]+(?=[A-Za-z]))(?=\w)")


def render_page(report: Report) -> str:
    """The whole file."""
    script = _asset("script.js")
    tensors = {t.name: TensorRef(anchor=f"t{i}", tensor=t) for i, t in enumerate(report.tensors)}
    rows = rows_of(report.decisions, tensors)
    urgent, others = _by_urgency(facts(report))
    metric = report.measured[0].comparison.metric
    interval = metric.interval if metric is not None else None
    return (
        _environment()
        .get_template("page.html")
        .render(
            report=report,
            title=f"{phrases.file_name(report.model.path)} quantized",
            headline=phrases.headline(report),
            scheme=scheme(report.recipe),
            sections=_sections(report),
            policy=_policy(script),
            style=Markup(_asset("style.css")),
            script=Markup(script),
            tiles=tiles_of(report, rows),
            urgent=urgent,
            facts=others,
            suggestions=suggestions(report),
            sizes=_sizes(report),
            largest=max(report.model.bytes, report.output.bytes, 1),
            interval=interval,
            rows=rows,
            causes=next((tuple(r.decision.error_split) for r in rows if r.decision.error_split), ()),
            columns=columns_of(rows),
            kinds=[k for k in Kind if any(r.kind is k for r in rows)],
            operators=sorted({r.decision.op_type for r in rows}),
            regions=regions_of(rows),
            tensors=list(tensors.values()),
            first=max(tensors.values(), key=lambda t: t.tensor.clipped or 0.0, default=None),
        )
    )


def _by_urgency(said: Sequence[Fact]) -> tuple[list[Fact], list[Fact]]:
    """(what a person should look at first, the rest)."""
    loud = (Level.BAD, Level.WARNING)
    return [f for f in said if f.level in loud], [f for f in said if f.level not in loud]


def render_summary(summary: Summary) -> str:
    """The file for the result of another command than quantize: its tables and facts."""
    script = _asset("script.js")
    urgent, others = _by_urgency(summary.facts)
    return (
        _environment()
        .get_template("summary.html")
        .render(
            summary=summary,
            policy=_policy(script),
            style=Markup(_asset("style.css")),
            script=Markup(script),
            urgent=urgent,
            quiet=others,
            grids=summary.grids,
        )
    )


def render_inline(report: Report) -> str:
    """A small piece of HTML for a notebook's cell: the tiles, and what a person should look at."""
    urgent, _ = _by_urgency(facts(report))
    tensors = {t.name: TensorRef(anchor=f"t{i}", tensor=t) for i, t in enumerate(report.tensors)}
    was_run = report.accuracy is not None and report.latency is not None
    return (
        _environment()
        .get_template("inline.html")
        .render(
            headline=phrases.headline(report),
            tiles=tiles_of(report, rows_of(report.decisions, tensors)) if was_run else [],
            grids=(),
            urgent=urgent,
        )
    )


def render_inline_summary(summary: Summary) -> str:
    """The same for the result of another command: its tables."""
    return render_inline_grids(summary.headline, summary.grids, summary.facts)


def render_inline_grids(headline: str, grids: Sequence[Grid], said: Sequence[Fact]) -> str:
    """The same for tables, and for what is bad, or a warning, of ``said``."""
    urgent, _ = _by_urgency(said)
    return _environment().get_template("inline.html").render(headline=headline, tiles=(), grids=grids, urgent=urgent)


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("qconvert.report", "html"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["soft"] = _soft
    made.globals.update(
        phrases=phrases,
        tensor_chart=tensor_chart,
        latency_chart=latency_chart,
        interval_chart=interval_chart,
        front_chart=front_chart,
    )
    return made


def _soft(name: str) -> Markup:
    """``name`` with places where a line may end: behind the parts that node names are made of."""
    return Markup(_SEPARATOR.sub(r"\1<wbr>", str(escape(name))))


def _sections(report: Report) -> list[tuple[str, str]]:
    """(id of its heading, name) of the sections, for the navigation."""
    front = [("front", "Front")] if report.front is not None else []
    tensors = [("tensors", "Tensors")] if report.tensors else []
    named = ("size", "accuracy", "latency")
    return [
        ("summary", "Summary"),
        *((name, name.capitalize()) for name in named),
        ("next", "Next steps"),
        *front,
        ("graph", "Graph"),
        ("layers", "Layers"),
        *tensors,
        ("details", "Details"),
    ]


def _sizes(report: Report) -> list[tuple[str, str, int, int]]:
    """(kind of content, its classes in style.css, bytes before, bytes after); a family's later kinds are paler."""
    rows = phrases.sizes_by_kind(report.model, report.output)
    families = [_family(kind) for kind, _, _ in rows]
    classes = [f"{family} again" if family in families[:i] else family for i, family in enumerate(families)]
    return [(kind, told, before, after) for (kind, before, after), told in zip(rows, classes, strict=True)]


def _family(kind: str) -> str:
    if kind.startswith(("float", "bfloat")):
        return "float"
    return "integer" if kind.startswith(("int8", "uint8", "int4", "uint4", "int16", "uint16", "int32")) else "rest"


def _asset(name: str) -> str:
    return files("qconvert.report.html").joinpath(name).read_text(encoding="utf-8").strip()


def _policy(script: str) -> str:
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'; "
        "form-action 'none'"
    )

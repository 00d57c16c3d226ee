"""The gates as JUnit XML, which Jenkins, GitLab, GitHub and others read: a case a gate, a failure where it is broken.

    testsuites > testsuite "qconvert compare: a -> b" > properties (every figure by name), testcase per gate

A run without gates has one case, that it ran. Times are seconds, of the whole run.
"""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass

from qconvert.evaluate.gates import told
from qconvert.report.renderer import register
from qconvert.report.result import Result
from qconvert.report.summaries import summary_of
from qconvert.report.summary import Summary

# what XML 1.0 cannot hold in any form
_ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class JUnitRenderer:
    """One test suite."""

    name: str = "junit"
    suffixes: tuple[str, ...] = (".xml",)

    def render(self, result: Result) -> str:
        """The document with a newline at its end."""
        summary = summary_of(result)
        broken = sum(v.broken for v in summary.gates)
        counts = {"tests": str(max(1, len(summary.gates))), "failures": str(broken), "errors": "0"}
        suite = _legal(f"qconvert {summary.command}: {summary.subject}")
        root = ET.Element("testsuites", {"name": "qconvert", **counts})
        time = f"{summary.seconds:.3f}"
        group = ET.SubElement(root, "testsuite", {"name": suite, **counts, "skipped": "0", "time": time})
        properties = ET.SubElement(group, "properties")
        for name, value in _properties(summary):
            ET.SubElement(properties, "property", {"name": _legal(name), "value": value})
        _cases(group, summary)
        ET.SubElement(group, "system-out").text = _legal(f"{summary.headline}\n")
        ET.indent(root)
        return f'<?xml version="1.0" encoding="utf-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _cases(group: ET.Element, summary: Summary) -> None:
    place = {"classname": f"qconvert.{summary.command}", "time": "0"}
    if not summary.gates:
        ET.SubElement(group, "testcase", {"name": "ran", **place})
    for verdict in summary.gates:
        of = f" [{verdict.model}]" if verdict.model else ""
        case = ET.SubElement(group, "testcase", {"name": _legal(f"not {verdict.gate}{of}"), **place})
        if verdict.broken:
            failure = {"message": _legal(told(verdict)), "type": "GateMissed"}
            ET.SubElement(case, "failure", failure).text = _legal(summary.headline)


def _properties(summary: Summary) -> Iterator[tuple[str, str]]:
    for model, found in summary.values.items():
        for name, value in found.items():
            shown = repr(value) if math.isfinite(value) else str(value)
            yield f"{model}.{name}" if model else name, shown


def _legal(text: str) -> str:
    return _ILLEGAL.sub("\N{REPLACEMENT CHARACTER}", text)


register(JUnitRenderer())

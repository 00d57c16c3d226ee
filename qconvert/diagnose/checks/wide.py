"""Activations of 16 bits, for which ONNX Runtime's CPU provider has conversions and no kernels."""

from __future__ import annotations

from collections.abc import Iterator

from qconvert.diagnose.finding import CHECKS, Check, Finding, Severity, Subject
from qconvert.diagnose.integer_ops import is_wide, reads_wide


def _wide(subject: Subject) -> Iterator[Finding]:
    """Operators between conversions of 16 bits; no fault where the model is for another processor."""
    graph = subject.run
    found = [n.name for n in graph.nodes.values() if reads_wide(graph, n) and n.op_type != "QuantizeLinear"]
    conversions = [n.name for n in graph.nodes.values() if is_wide(graph, n)]
    if found:
        yield Finding(
            check="wide-activations",
            severity=Severity.NOTE,
            what="activations have 16 bits: ONNX Runtime's CPU provider computes in float between the conversions",
            nodes=tuple(found),
            cost=f"conversions: {subject.cost(conversions, 'not timed')}",
            cure="none where the model is for a processor with 16-bit integers (qconvert targets); for this one "
            "quantize to int8",
            share=subject.share(conversions),
        )


CHECKS.add("wide-activations", Check(title="activations of 16 bits", run=_wide))

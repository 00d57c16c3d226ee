"""Conversions between float and integers that are left in the graph that ONNX Runtime runs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from qconvert.diagnose.finding import CHECKS, Check, Finding, Severity, Subject
from qconvert.diagnose.integer_ops import is_wide, reads_wide
from qconvert.graph.boundary import dequantizers, quantizers
from qconvert.graph.view import GraphView, NodeView

# Conversions that take less than this part of the time are not worth a change of the model.
_SMALL_SHARE = 0.1
_CLAMPS = ("Relu", "Clip")


def _is(node: NodeView | None, op_type: str) -> bool:
    return node is not None and node.op_type == op_type


def _readers(graph: GraphView, node: NodeView) -> list[NodeView]:
    return [reader for reader, _ in graph.consumers(node.outputs[0])]


def _pairs(subject: Subject) -> Iterator[Finding]:
    """QuantizeLinear that only DequantizeLinear reads: values are rounded, and nothing runs on the integers."""
    graph, found = subject.run, []
    for q in (q for q in quantizers(graph) if not is_wide(graph, q)):
        readers = _readers(graph, q)
        if readers and all(_is(r, "DequantizeLinear") for r in readers) and not graph.tensors[q.outputs[0]].is_output:
            found.append((q.name, [q.name, *(r.name for r in readers)]))
    if found:
        nodes = [name for _, both in found for name in both]
        yield Finding(
            check="pairs",
            severity=Severity.WARNING,
            what="QuantizeLinear and DequantizeLinear in a row: values are rounded, but nothing runs on integers",
            nodes=tuple(name for name, _ in found),
            cost=subject.cost(nodes, "two passes over each tensor, and its rounding, for nothing (not timed)"),
            cure="leave the operators around them in float (--exclude), or quantize all inputs and outputs of those "
            "that have an integer kernel",
            share=subject.share(nodes),
        )


def _islands(subject: Subject) -> Iterator[Finding]:
    """DequantizeLinear in the middle: integer results that go back to float for operators without integer kernel."""
    graph = subject.run
    found: list[str] = []
    ops: set[str] = set()
    for dq in (dq for dq in dequantizers(graph) if not is_wide(graph, dq)):
        readers = [r for r in _readers(graph, dq) if not _is(r, "QuantizeLinear")]
        if readers and not _is(graph.producer(dq.input(0) or ""), "QuantizeLinear"):
            found.append(dq.name)
            ops.update(r.op_type for r in readers)
    if not found:
        return
    back = [q.name for q in quantizers(graph) if not graph.tensors[q.input(0) or ""].is_input]
    nodes = [*found, *back]
    share = subject.share(nodes)
    small = bool(subject.times) and share < _SMALL_SHARE
    yield Finding(
        check="islands",
        severity=Severity.NOTE if small else Severity.WARNING,
        what=f"integer results go back to float for {', '.join(sorted(ops))}",
        nodes=tuple(found),
        cost=subject.cost(nodes, "a conversion before and behind each of them (not timed)"),
        cure="quantize these operators where ONNX Runtime has an integer kernel for them; where it has none, leave "
        "their neighbours in float too if that is faster (qconvert bench tells)",
        share=share,
    )


def _residuals(subject: Subject) -> Iterator[Finding]:
    """Add in float between integers."""
    graph, found = subject.run, []
    for node in graph.nodes.values():
        if node.op_type != "Add" or any(graph.is_constant(name) for name in node.inputs) or reads_wide(graph, node):
            continue
        sources = [s for s in (graph.producer(name or "") for name in node.inputs) if s is not None]
        if any(_is(s, "DequantizeLinear") and graph.is_constant(s.input(0)) for s in sources):
            continue  # a bias
        around = [s for s in sources if _is(s, "DequantizeLinear")]
        requantized = any(_is(r, "QuantizeLinear") for r in _readers(graph, node))
        if len(around) == 2 or (around and requantized):
            found.append((node.name, [node.name, *(s.name for s in around)]))
    if found:
        nodes = [name for _, all_ in found for name in all_]
        yield Finding(
            check="residuals",
            severity=Severity.WARNING,
            what="residual additions run in float between integer operators",
            nodes=tuple(name for name, _ in found),
            cost=subject.cost(nodes, "conversions of both inputs and of the result (not timed)"),
            cure="quantize both inputs and the output of each Add, all in one integer type, with constant scales",
            share=subject.share(nodes),
        )


def _apart(subject: Subject) -> Iterator[Finding]:
    """A clamp between DequantizeLinear and QuantizeLinear of symmetric ranges, which cannot absorb it."""
    graph, found = subject.run, []
    for node in graph.nodes.values():
        if (
            node.op_type not in _CLAMPS
            or reads_wide(graph, node)
            or not _is(graph.producer(node.input(0) or ""), "DequantizeLinear")
        ):
            continue
        behind = [r for r in _readers(graph, node) if _is(r, "QuantizeLinear")]
        if behind and all(_middle(graph, q) for q in behind):
            found.append(node.name)
    if found:
        yield Finding(
            check="symmetric-clamps",
            severity=Severity.WARNING,
            what="symmetric activations keep Relu and Clip as operations of their own",
            nodes=tuple(found),
            cost=subject.cost(found, "an operation and two conversions each (not timed), and half of the codes unused"),
            cure="use asymmetric activations: a range that starts at 0 makes the clamp disappear "
            "(qconvert quantize --asymmetric)",
            share=subject.share(found),
        )


def _middle(graph: GraphView, q: NodeView) -> bool:
    """Whether the zero point is the middle code."""
    zero = q.input(2)
    if not zero or not graph.is_constant(zero):
        return False
    value = graph.constant(zero)
    return bool(np.all(np.asarray(value, np.int64) == (0 if value.dtype.kind == "i" else 128)))


CHECKS.add("pairs", Check(title="QuantizeLinear and DequantizeLinear with nothing between them", run=_pairs))
CHECKS.add("islands", Check(title="integer results that go back to float in the middle", run=_islands))
CHECKS.add("residuals", Check(title="residual additions in float", run=_residuals))
CHECKS.add("symmetric-clamps", Check(title="Relu and Clip that symmetric activations keep apart", run=_apart))

"""Nodes that stay float because quantizing them would add rounding that buys nothing.

Quantizing a value that is held as integers anyway costs no accuracy, quantizing any other does. Integers hold a value

- downstream of an operator that can only write integers (a convolution): such values are *anchored*;
- just before an operator that reads integers: moving the quantization up through Reshape or Transpose changes nothing.

Arithmetic (Add, Mul, Concat, pooling) makes new values and rounds them. It runs on integers only where its inputs are
anchored and a weighted operator reads its result. So in a transformer the products alone run on integers, and behind
the last convolution of a detector boxes are decoded in float.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from qconvert.graph.view import GraphView
from qconvert.ops.rule import Kind, Role
from qconvert.plan.candidates import Candidate

_UNANCHORED = (
    "its inputs are float results of integer kernels; rounding them would cost accuracy and save next to nothing"
)
_LEADS_NOWHERE = "no weighted operator follows; rounding here would cost accuracy and save next to nothing"


def keep_accurate(graph: GraphView, candidates: Mapping[str, Candidate]) -> dict[str, Candidate]:
    """The same candidates, with an objection to each node that quantization would only make less accurate."""
    anchored: set[str] = set()
    for name, c in candidates.items():
        if c.objection or c.table or c.rule is None:
            continue
        sources = [graph.producer(c.node.inputs[p] or "") for p in c.rule.ports(Role.ACTIVATION, c.node)]
        if (c.weighted and not c.capability.float_result) or (
            not c.weighted and any(s is not None and s.name in anchored for s in sources)
        ):
            anchored.add(name)
    leads: set[str] = set()
    for name in reversed(list(candidates)):
        readers = [
            (candidates[r], r) for t in candidates[name].node.outputs if t for r, _ in graph.tensors[t].consumers
        ]
        if any((r.weighted and not r.table and not r.objection) or n in leads for r, n in readers):
            c = candidates[name]
            if not c.objection and not c.table and not c.weighted:
                leads.add(name)
    return {name: _judge(c, name in anchored, name in leads) for name, c in candidates.items()}


def _judge(candidate: Candidate, anchored: bool, leads: bool) -> Candidate:
    rule = candidate.rule
    if candidate.objection or rule is None or candidate.weighted or candidate.is_clamp:
        return candidate
    if rule.kind is Kind.ARITHMETIC:
        objection = "" if anchored and leads else (_UNANCHORED if not anchored else _LEADS_NOWHERE)
    else:
        objection = "" if anchored or leads else "its neighbours are float"
    return replace(candidate, objection=objection)

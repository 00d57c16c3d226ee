"""Channels whose sums can saturate on x86 without VNNI (numerics/saturation.py)."""

from __future__ import annotations

import math
from collections.abc import Iterator

from qconvert.diagnose.finding import CHECKS, Check, Finding, Severity, Subject
from qconvert.diagnose.integer_ops import saturable
from qconvert.diagnose.isa import Isa
from qconvert.graph.optimized import origin

# Quantization to 8 bits itself costs about as much as this; below, saturation is the larger error.
_DAMAGED_DB = 30.0
_DAMAGED_AGREEMENT = 0.99


def _saturating(subject: Subject) -> Iterator[Finding]:
    if subject.isa is not Isa.AVX2:
        return
    graph, damage = subject.run, subject.damage
    found = [s for n in graph.nodes.values() if (s := saturable(graph, n)) is not None and s.unsafe]
    if not found:
        return
    unsafe, channels = sum(s.unsafe for s in found), sum(s.channels for s in found)
    cost = f"{unsafe:,} of {channels:,} channels can; whether they do depends on the data (--data measures it)"
    severity = Severity.WARNING
    order = sorted(found, key=lambda s: -s.unsafe / s.channels)
    if damage is not None:
        whole, layers = damage.end_to_end, damage.layers
        order = sorted(found, key=lambda s: layers.get(origin(s.node), math.inf))
        bad = whole.sqnr_db < _DAMAGED_DB or (whole.top1_agreement or 1.0) < _DAMAGED_AGREEMENT
        severity = Severity.ERROR if bad else Severity.WARNING
        cost = f"{unsafe:,} of {channels:,} channels can. " + _measured(subject, origin(order[0].node))
        if math.isinf(whole.sqnr_db) and whole.sqnr_db > 0:
            severity = Severity.NOTE
    yield Finding(
        check="saturation",
        severity=severity,
        what="sums of two products can saturate in 16 bits on x86 without VNNI",
        nodes=tuple(s.node for s in order),
        cost=cost,
        cure="quantize for such processors (target: x86-avx2 in a recipe): only the channels that could saturate "
        "change; or use uint8 weights, which never saturate but are slower",
    )


def _measured(subject: Subject, worst: str) -> str:
    """Saturating against exact arithmetic, in words."""
    damage = subject.damage
    if damage is None:
        return ""
    whole = damage.end_to_end
    if math.isinf(whole.sqnr_db) and whole.sqnr_db > 0:
        return f"On {damage.samples} samples none changed the result (measured)"
    agreement = "" if whole.top1_agreement is None else f", same top-1 class for {100 * whole.top1_agreement:.1f} %"
    layer = damage.layers.get(worst, math.inf)
    return (
        f"On {damage.samples} samples the outputs have an SQNR of {whole.sqnr_db:.1f} dB against exact sums"
        f"{agreement}; worst layer {worst}, {layer:.1f} dB (measured by emulation)"
    )


CHECKS.add("saturation", Check(title="sums that saturate on x86 without VNNI", run=_saturating))

"""What a check looks at, and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from qconvert.diagnose.emulation import Damage
from qconvert.diagnose.isa import Isa
from qconvert.graph.view import GraphView
from qconvert.registry import Registry


class Severity(Enum):
    """How much a finding matters.

    ERROR: results are wrong, or there are none.
    WARNING: time, memory or accuracy are lost that need not be.
    NOTE: worth knowing; nothing to mend.
    """

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        check: the check that found it.
        severity: how much it matters.
        what: the fault, one sentence.
        nodes: the nodes, or tensors, that have it.
        cost: what it costs, and whether that was measured or estimated.
        cure: what to do about it.
        share: part of the run time that it concerns, 0..1; 0 where that is not known.
        bytes: of the file or of memory that it concerns.
    """

    check: str
    severity: Severity
    what: str
    nodes: tuple[str, ...]
    cost: str
    cure: str
    share: float = 0.0
    bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The model under examination.

    Attributes:
        path: its file.
        quantized_ops: operators that show it to be quantized; empty for a float model.
        stored: the graph as the file holds it.
        run: the graph as ONNX Runtime runs it on this processor.
        isa: instructions of the processor that it is meant for.
        times: node of ``run`` -> milliseconds a run; empty when it could not be timed.
        constant_bytes: of all constants in the file.
        damage: what saturation does to it, where that was measured.
    """

    path: Path
    quantized_ops: tuple[str, ...]
    stored: GraphView
    run: GraphView
    isa: Isa
    times: Mapping[str, float] = field(default_factory=dict)
    constant_bytes: int = 0
    damage: Damage | None = None

    def share(self, nodes: Iterable[str]) -> float:
        """Part of the run time that ``nodes`` of ``run`` take, 0..1; 0 when nothing was timed."""
        total = sum(self.times.values())
        return sum(self.times.get(name, 0.0) for name in nodes) / total if total else 0.0

    def cost(self, nodes: Iterable[str], otherwise: str) -> str:
        """The measured share of time in words, or ``otherwise`` when nothing was timed."""
        nodes = list(nodes)
        if not self.times:
            return otherwise
        spent = sum(self.times.get(name, 0.0) for name in nodes)
        return f"{100 * self.share(nodes):.0f} % of the time, {spent:.3g} ms a run (measured)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One kind of fault.

    Attributes:
        title: what it looks for, for people.
        run: finds it; a float model is only shown to checks that want it.
        float_models: whether it looks at models that are not quantized.
    """

    title: str
    run: Callable[[Subject], Iterable[Finding]]
    float_models: bool = False


CHECKS: Registry[Check] = Registry("check")
CHECKS.discover("qconvert.diagnose.checks")

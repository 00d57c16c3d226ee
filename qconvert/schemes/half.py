"""Half precision: fp16 for arithmetic and storage, bf16 for storage alone (:mod:`qconvert.emit.half`).

A node stays float32 if it is excluded or another scheme's, if ONNX has no float16 form of it, if one of its small
constants would become 0, or if the values that it makes or reads go beyond float16 on the inputs at hand.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qconvert.emit.additions import Additions
from qconvert.emit.half import MAX_HALF, HalfEmitter, OpNode, decodes
from qconvert.graph.build_view import view_of
from qconvert.graph.model import Model
from qconvert.graph.prepare.canonical import agreement
from qconvert.graph.signature import session_of
from qconvert.plan.model import Decision, NodePlan
from qconvert.schemes.scheme import Converted, Work
from qconvert.schemes.tally import Tally

# Below this, float16 arithmetic has cost a classifier some of its answers: MobileNetV1-0.25 loses 0.2 points at 37 dB,
# six other nets nothing at 54 dB and more.
LEAST_DB = 45.0
# room for inputs that were not seen
_MOST = MAX_HALF / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Half:
    """A 16-bit float scheme: its name, and whether arithmetic is in 16 bits, too."""

    name: str
    arithmetic: bool

    def convert(self, work: Work) -> Converted:
        """Rewrite what is the scheme's."""
        model = work.model.clone()
        large = too_large(work) if self.arithmetic else {}

        def blocked(node: OpNode) -> str:
            name = node.name or ""
            owner = work.owner(name, node.op_type)
            if owner != self.name:
                return "excluded" if owner == "float" else f"it is of {owner}"
            return large.get(name, "")

        emitter = HalfEmitter(
            additions=Additions(model=model.ir, spool=work.spool), blocked=blocked, progress=work.progress
        )
        notes = []
        if self.arithmetic:
            emitter.convert(model.ir.graph, keep_io=work.recipe.keep_io)
            db = _agreement(work, model) if work.recipe.keep_io else float("inf")
            if db < LEAST_DB:
                notes.append(
                    f"float16 arithmetic leaves {db:.1f} dB: weights are stored as float16, arithmetic is float32"
                )
                model = work.model.clone()
                emitter = HalfEmitter(
                    additions=Additions(model=model.ir, spool=work.spool), blocked=blocked, progress=work.progress
                )
        if not emitter.taken:
            for graph in list(model.ir.graphs()):
                emitter.store(graph, self.name)
        nodes = dict(_decisions(emitter, work, self.name))
        if emitter.clipped:
            notes.append(f"{emitter.clipped:,} constants are beyond float16 and became its largest value, 65504")
        if emitter.flushed:
            notes.append(f"{emitter.flushed:,} numbers of weights are too small for {self.name} and became 0")
        if large:
            notes.append(f"{len(large)} operators stay float32: their values are beyond float16")
        notes += Tally(count=emitter.count, zeros=emitter.zeros).sparsity()
        return Converted(model=model, nodes=nodes, notes=tuple(notes), method="rounding to nearest")


def _decisions(emitter: HalfEmitter, work: Work, name_of: str) -> list[tuple[str, NodePlan]]:
    found = []
    for node in work.model.ir.graph.all_nodes():
        name = node.name or ""
        taken = name in emitter.taken
        done = "weights stored in 16 bits, float32 arithmetic" if name in emitter.stored else "float16"
        reason = done if taken else emitter.reasons.get(name, "it has no weight that the scheme stores")
        if work.owner(name, node.op_type) == name_of and not decodes(node):
            decision = Decision(taken=taken, reason=reason)
            found.append((name, NodePlan(node=name, op_type=node.op_type, decision=decision)))
    return found


def _agreement(work: Work, model: Model) -> float:
    """SQNR in dB of ``model`` against the float one, the worst of the trial inputs."""
    if not work.trials:
        return float("inf")
    before, after = session_of(work.model), session_of(model)
    return min(agreement(before.run_on(feed), after.run_on(feed)) for feed in work.trials)


def too_large(work: Work) -> dict[str, str]:
    """Nodes next to values that float16 cannot hold on the trial inputs, each with the reason."""
    graph = view_of(work.model)
    names = [t.name for t in graph.tensors.values() if t.is_float and t.producer is not None and not t.is_constant]
    if not work.trials or not names:
        return {}
    session = session_of(work.model, outputs=names, optimize=False)
    most: dict[str, float] = {}
    for feed in work.trials:
        for name, value in zip(names, session.run_on(feed), strict=True):
            finite = np.abs(value[np.isfinite(value)])
            most[name] = max(most.get(name, 0.0), float(finite.max(initial=0.0)))
    found: dict[str, str] = {}
    for name, size in most.items():
        # values at the very end of float32 stand for minus infinity in masks, and -65504 does as well
        if _MOST < size < 1e30:
            nodes = [graph.tensors[name].producer, *(n for n, _ in graph.tensors[name].consumers)]
            found.update({n: f"its values reach {size:.3g}, float16 ends at 65504" for n in nodes if n})
    return found

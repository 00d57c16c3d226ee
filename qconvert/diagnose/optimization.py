"""What ONNX Runtime's optimizations change in the results of a quantized model.

As written, a model says where values are rounded: at every QuantizeLinear. Optimized, integer kernels round there too,
but sums come in another order, and a value near the middle of two codes may fall on the other side; such a code is a
step off, and what follows moves with it. Two roundings of one model are independent at worst, so that

    sum (on - off)^2  <=  2 sum (off - fp32)^2

where on and off are the outputs with and without optimizations, and fp32 the original's. A larger difference has a
cause: a fusion that leaves out a rounding, or kernels that saturate (x86 without VNNI). It is looked for where codes
first differ by more than one step: every QuantizeLinear's result is made an output, in both forms.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from qconvert.diagnose.isa import Isa, this_machine
from qconvert.errors import ModelError
from qconvert.evaluate.fidelity import Fidelity, FidelityReport
from qconvert.graph.boundary import quantizers
from qconvert.graph.build_view import view_of
from qconvert.graph.model import Model
from qconvert.graph.prepare.canonical import MIN_AGREEMENT_DB
from qconvert.graph.session import Feed, Session
from qconvert.graph.signature import session_of

# Twice the energy of the error that quantization makes.
_ROUNDING_DB = 10 * math.log10(2)
# The energies of fewer values are a matter of chance.
_LEAST_ELEMENTS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizationEffect:
    """The outputs with ONNX Runtime's optimizations against those without.

    Attributes:
        samples: how many were run.
        sqnr_db: SQNR of the optimized model against itself without optimizations; inf where nothing differs.
        error_db: SQNR of the model without optimizations against the original.
        steps: largest difference, in quantization steps of the output; None where no output is quantized.
        outputs: the outputs that differ by more than two roundings do; empty where all is well.
        begins_at: then the node behind which codes first differ by more than a step, with its operator; "" where none
            does.
        saturates: whether this processor's integer kernels can saturate.
    """

    samples: int
    sqnr_db: float
    error_db: float
    steps: float | None
    outputs: tuple[str, ...] = ()
    begins_at: str = ""
    saturates: bool = False


def optimization_effect(
    model: Model, optimized: Session, reference: Session, feeds: Sequence[Feed], scales: Mapping[str, float]
) -> OptimizationEffect | None:
    """Run ``model`` on ``feeds`` with and without optimizations; None where that says nothing.

    It says nothing of a model that draws random numbers, and of one that ONNX Runtime runs only when optimized.

    Args:
        model: the quantized model.
        optimized: it, loaded with all optimizations.
        reference: the original.
        feeds: a sample or two.
        scales: output -> its quantization step, for outputs that are quantized.
    """
    if model.is_random() or not feeds:
        return None
    names = [spec.name for spec in optimized.outputs]
    change, error = Fidelity(names), Fidelity(names)
    try:
        plain = session_of(model, optimize=False)
        for feed in feeds:
            off = plain.run(feed)
            change.update(off, optimized.run(feed))
            error.update(reference.run_on(feed), off)
    except ModelError:
        return None
    changed, wrong = change.report(), error.report()
    steps = [o.max_abs_error / scales[o.name] for o in changed.outputs if o.name in scales]
    found = OptimizationEffect(
        samples=len(feeds),
        sqnr_db=changed.sqnr_db,
        error_db=wrong.sqnr_db,
        steps=max(steps, default=None),
        outputs=_beyond_rounding(changed, wrong),
    )
    if not found.outputs:
        return found
    return replace(found, begins_at=_first_difference(model, feeds), saturates=this_machine() is Isa.AVX2)


def _beyond_rounding(changed: FidelityReport, wrong: FidelityReport) -> tuple[str, ...]:
    """Outputs whose change has more than twice the energy of their quantization error."""
    return tuple(
        c.name
        for c, w in zip(changed.outputs, wrong.outputs, strict=True)
        if c.elements >= _LEAST_ELEMENTS and not c.shape_mismatches
        if c.sqnr_db is not None and w.sqnr_db is not None
        if c.sqnr_db < min(w.sqnr_db - _ROUNDING_DB, MIN_AGREEMENT_DB)
    )


def _first_difference(model: Model, feeds: Sequence[Feed]) -> str:
    """The node, with its operator, whose quantized result is the first to differ by more than a step; "" for none."""
    graph = view_of(model)
    pairs = quantizers(graph)
    codes = [q.outputs[0] for q in pairs]
    try:
        on, off = session_of(model, outputs=codes), session_of(model, optimize=False, outputs=codes)
        results = [(on.run_on(feed), off.run_on(feed)) for feed in feeds]
    except ModelError:
        return ""
    for i, q in enumerate(pairs):
        gaps = [np.abs(a[i].astype(np.int32) - b[i].astype(np.int32)).max(initial=0) for a, b in results]
        if max(gaps) > 1:
            made = graph.producer(q.input(0) or "")
            return f"{made.name} ({made.op_type})" if made is not None else q.input(0) or ""
    return ""

"""How much a conversion may cost: which recovery passes run by themselves, how much work each may do, and how long
anything is timed.

Bounds of work are numbers of multiplications and of runs of the model, not seconds, so that a result can be repeated.
What that comes to in seconds is in docs/decisions/0017.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """A level of effort.

    Attributes:
        chain: the passes that run if none are named, in this order.
        work: how many times its usual work a pass may do.
        dearest: multiplications of one run of a model beyond which none of the passes runs by itself.
        guards: whether operators go back to float where the outputs are poor (:mod:`qconvert.tuning.guard`).
        timing: how long placements and results are timed, as a multiple of the usual time.
        accepts: how many times faster than FP32 a placement by the target's table must be for nothing else to be tried.
    """

    chain: tuple[str, ...]
    work: float
    dearest: float = math.inf
    guards: bool = True
    timing: float = 1.0
    accepts: float = math.inf


# The order matters: rewriting before rounding, rounding before what is measured on rounded weights. What only "max"
# does comes late, so that it adds to what "default" keeps: a gain kept early may stand in the way of a larger one.
LEVELS: Mapping[str, Effort] = {
    "fast": Effort(chain=("bias-correction",), work=0.25, dearest=3e8, guards=False, timing=0.15, accepts=1.5),
    "default": Effort(chain=("equalize", "smooth", "gptq", "bias-correction", "ranges", "copies"), work=1.0),
    "max": Effort(
        chain=("equalize", "smooth", "absorb", "gptq", "bias-correction", "adaround", "ranges", "copies"), work=4.0
    ),
}

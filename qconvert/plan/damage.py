"""Damage: what running nodes on integers does to the outputs, as the second term of placement.

    total = cost + lambda x sum over terms t of noise(t)    if any of the nodes of t runs on integers

A term is one source of error: the rounding of a weight, which its node alone is to blame for, or that of the tensors
that share a scale, which is there as long as any node reads or writes one of them as integers. Noise is that of the
outputs as a share of their power; independent errors add up. "If any of these" is submodular, so the least total is
still a minimum cut.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """One source of error.

    Attributes:
        nodes: it is there if any of these runs on integers.
        noise: squared error of the outputs that it alone makes, as a share of their power.
    """

    nodes: frozenset[str]
    noise: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """The second term.

    Attributes:
        integer: the nodes that may run on integers: those that do where damage counts for nothing.
        terms: the sources of error.
        price: lambda, the ns that a noise as strong as the outputs would be worth.
    """

    integer: frozenset[str]
    terms: Sequence[Term]
    price: float = 0.0


def noise_of(terms: Sequence[Term], integer: Collection[str]) -> float:
    """The noise of the outputs when the nodes ``integer`` run on integers, as a share of their power."""
    chosen = set(integer)
    return sum(t.noise for t in terms if t.nodes & chosen)

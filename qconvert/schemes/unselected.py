"""Branches of If that no compared sample selects: made to run all the same, so that something judges them.

    for each such branch: both models with the conditions on the way to it fixed -> the samples that there are -> SQNR

What such samples say of a branch that was not meant for them is little, but it tells a broken branch from a sound one;
and where even that cannot be had, the report names the branch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from qconvert.branches import branch_feeds
from qconvert.errors import ModelError
from qconvert.evaluate.fidelity import FLOOR_DB
from qconvert.graph.bodies import Path, extract, taking, weighted_branches
from qconvert.graph.model import Model
from qconvert.graph.prepare.canonical import agreement
from qconvert.graph.session import Feed
from qconvert.graph.signature import session_of
from qconvert.run import Feeds

# Samples that an unselected branch is made to run on.
_SAMPLES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Unselected:
    """What is to be told of branches that no sample selects: those that held, and those to be warned of."""

    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def judge_unselected(original: Model, written: Model, feeds: Feeds) -> Unselected:
    """Run the branches with weights that none of ``feeds`` selects.

    Args:
        original: canonical, float.
        written: what was made of it; its If nodes have their names still.
        feeds: the samples that the two are compared on.
    """
    notes: list[str] = []
    warnings: list[str] = []
    for path in _unselected(original, feeds):
        place = "/".join(part for step in path for part in step)
        said = f"{place}: no sample that is compared selects it"
        try:
            db = _forced_db(original, written, path, feeds)
        except ModelError:
            warnings.append(
                f"{said}, and it does not run on those there are: nothing has verified it; add samples that select it"
            )
            continue
        text = f"{said}; made to run on them, it leaves the outputs with {db:.1f} dB"
        (notes if db >= FLOOR_DB else warnings).append(text)
    return Unselected(notes=tuple(notes), warnings=tuple(warnings))


def _unselected(model: Model, feeds: Feeds, before: Path = ()) -> Iterator[Path]:
    """The outermost branches that none of ``feeds`` selects."""
    for branch in weighted_branches(model):
        path = (*before, (branch.node, branch.attribute))
        try:
            inner = branch_feeds(model, branch, feeds)
            selected = next(iter(inner), None) is not None
            within = extract(model, branch) if selected else None
        except ModelError:
            continue  # it reads what is no tensor: nobody can look into it
        if within is None:
            yield path
        else:
            yield from _unselected(within, inner, path)


def _forced_db(original: Model, written: Model, path: Path, feeds: Feeds) -> float:
    """The SQNR of the outputs with the branch at ``path`` taken in both models, the least over some samples.

    Raises:
        ModelError: one of them does not run so.
    """
    reference, other = (session_of(taking(m, path)) for m in (original, written))
    return min((agreement(reference.run(f), other.run(f)) for f in _first(feeds)), default=-math.inf)


def _first(feeds: Feeds) -> Iterator[Feed]:
    return islice(iter(feeds), _SAMPLES)

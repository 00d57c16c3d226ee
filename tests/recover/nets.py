"""What the tests of recovery share: a network through preparing, and a subject for a pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from qconvert.conversion import Quantized, convert
from qconvert.graph.build_view import view_of
from qconvert.graph.model import Model
from qconvert.graph.prepare.canonical import Prepared, prepare
from qconvert.graph.signature import session_of
from qconvert.plan.forms import open_products
from qconvert.plan.model import QuantPlan
from qconvert.recipe.recipe import MEASURED, STATIC, Recipe
from qconvert.recover.recovery import Changes, Subject
from qconvert.recover.samples import Samples
from qconvert.run import Run
from qconvert.targets.auto import target_of

Feed = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True, kw_only=True)
class Listed:
    """Feeds held in memory."""

    items: Sequence[Feed]

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Feed]:
        return iter(self.items)

    def feed(self, i: int) -> Feed:
        return self.items[i]


def prepared(proto: onnx.ModelProto, feed: Feed) -> Prepared:
    return prepare(Model(ir=ir.from_proto(proto), path=None), feed)


def all_of(feeds: Sequence[Feed]) -> Samples:
    return Samples(feeds=Listed(items=feeds), indices=range(len(feeds)))


def subject(
    model: Model,
    feeds: Sequence[Feed],
    plan: QuantPlan | None = None,
    changes: Changes | None = None,
    target: str = "x86-vnni",
) -> Subject:
    graph = view_of(model)
    return Subject(
        model=model,
        graph=graph,
        samples=all_of(feeds),
        plan=plan,
        changes=changes or Changes(),
        open_products=open_products(graph, plan, Recipe(), target_of(target)) if plan is not None else frozenset(),
    )


def quantized(net: Prepared, feeds: Sequence[Feed], recipe: Recipe | None = None) -> Quantized:
    return convert(net, run(feeds, recipe))


def run(feeds: Sequence[Feed], recipe: Recipe | None = None) -> Run:
    """A run in the placement of the target's table: what is faster on these small networks is not the question."""
    recipe = recipe or Recipe()
    recipe = replace(recipe, placement=STATIC) if recipe.placement == MEASURED else recipe
    return Run(recipe=recipe, samples=Listed(items=feeds))


def sqnr(reference: Model, other: Model, feeds: Sequence[Feed], *, integers: bool = True) -> float:
    """dB, pooled over outputs and samples; ``integers=False`` computes Q/DQ pairs of the reference as they stand."""
    one, two = session_of(reference, integers=integers), session_of(other)
    signal = noise = 0.0
    for feed in feeds:
        for a, b in zip(one.run(feed), two.run(feed), strict=True):
            x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
            signal += float((x**2).sum())
            noise += float(((x - y) ** 2).sum())
    return float(10 * np.log10(signal / noise)) if noise else float("inf")

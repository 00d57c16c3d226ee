"""What tests of convolutions in other forms share: a conversion with a form and without, and its results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from qconvert.conversion import Quantized, convert
from qconvert.emit.cleanup import clean
from qconvert.emit.fake_quantization import remove
from qconvert.graph.build_view import view_of
from qconvert.graph.model import Model
from qconvert.graph.prepare.canonical import Prepared
from qconvert.graph.session import Feed
from qconvert.graph.signature import session_of
from qconvert.recipe.recipe import ALL, Recipe
from qconvert.run import Run

RECIPE = Recipe(target="x86-vnni", placement=ALL)


@dataclass
class Few:
    """Some samples."""

    feeds: Sequence[Feed]

    def __iter__(self) -> Iterator[Feed]:
        return iter(self.feeds)

    def feed(self, i: int) -> Feed:
        return self.feeds[i]


def made(
    net: Prepared, samples: Few, form: str, recipe: Recipe = RECIPE
) -> tuple[Quantized, list[NDArray[np.float32]]]:
    """What comes of ``net`` with every Conv in ``form`` where it can, and its outputs, optimized and then not."""
    result = convert(net, Run(recipe=replace(recipe, forms=(f"Conv={form}",)), samples=samples))  # type: ignore[arg-type]
    found = []
    for optimized in (True, False):
        session = session_of(result.model, optimize=optimized)
        found += [session.run(feed)[0] for feed in samples]
    return result, found


def dequantized(model: Model) -> Model:
    """As `qconvert convert --to float` does it."""
    return clean(remove(model), model)


def maker(net: Prepared, value: str) -> str:
    """The node that makes ``value``."""
    return next(n.name for n in view_of(net.model).nodes.values() if value in n.outputs)

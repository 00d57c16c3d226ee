"""Inputs made up for a model, where what its weights do to any input is looked for and no data are at hand.

An integer input that picks rows of a constant table takes all rows of it, evenly; other integers are 1, as the masks
and lengths of whole samples are; floats are standard normal. Sizes that are free: 1 for a first axis, else 32.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qconvert.graph.build_view import view_of
from qconvert.graph.model import Model
from qconvert.graph.session import Feed, IOSpec
from qconvert.graph.signature import session_of
from qconvert.graph.view import GraphView
from qconvert.recover.samples import Samples

_COUNT = 16
_FREE_SIZE = 32
# bytes of one input; a signature can ask for anything
_LARGEST = 1 << 26


class MadeFeeds(list[Feed]):
    """Feeds as passes read them."""

    def feed(self, i: int) -> Feed:
        """The i-th."""
        return self[i]


def made_samples(model: Model) -> Samples | None:
    """Some inputs of ``model``, always the same; None where one of its inputs cannot be made up."""
    graph = view_of(model)
    interface = session_of(model, optimize=False).inputs
    if not all(spec.is_tensor and np.prod(_shape(spec), dtype=float) * 8 <= _LARGEST for spec in interface):
        return None
    feeds = MadeFeeds()
    for number in range(_COUNT):
        feed: dict[str, NDArray[np.generic]] = {}
        for i, spec in enumerate(interface):
            if spec.dtype not in ("float16", "float32", "float64", "bool", "int8", "uint8", "int32", "int64"):
                return None
            feed[spec.name] = _values(spec, graph, np.random.default_rng([number, i]))
        feeds.append(feed)
    return Samples(feeds=feeds, indices=range(_COUNT))


def _values(spec: IOSpec, graph: GraphView, random: np.random.Generator) -> NDArray[np.generic]:
    shape = _shape(spec)
    if spec.dtype.startswith("float"):
        return random.standard_normal(shape).astype(spec.dtype)
    if spec.dtype in ("int8", "uint8"):
        limits = np.iinfo(spec.dtype)
        return random.integers(limits.min, limits.max, shape, dtype=spec.dtype, endpoint=True)
    rows = _rows(graph, spec.name)
    return np.asarray(random.integers(0, rows, shape) if rows else np.ones(shape), spec.dtype)


def _rows(graph: GraphView, name: str) -> int:
    """Rows of the smallest constant table that the input ``name`` picks from; 0 if it picks from none."""
    found = []
    waiting, seen = [name], {name}
    while waiting:
        for node, port in graph.consumers(waiting.pop()):
            if (
                node.op_type == "Gather"
                and port == 1
                and graph.is_constant(node.input(0))
                and not node.attr_int("axis", 0)
            ):
                shape = graph.tensors[node.input(0) or ""].shape or ()
                found += [d for d in shape[:1] if isinstance(d, int)]
            elif node.op_type in ("Cast", "Reshape", "Identity", "Squeeze", "Unsqueeze", "Flatten"):
                waiting += [t for t in node.outputs if t and t not in seen]
                seen.update(node.outputs)
    return min(found, default=0)


def _shape(spec: IOSpec) -> tuple[int, ...]:
    return tuple(s if isinstance(s, int) else 1 if axis == 0 else _FREE_SIZE for axis, s in enumerate(spec.shape))

"""Second moments of the inputs of products, gathered a few layers at a time so that they fit into memory."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence

from qconvert.emit.sites import Kind, Site
from qconvert.graph.build_view import view_of
from qconvert.graph.model import Model
from qconvert.recover.gram import second_moments
from qconvert.recover.layers import Layer, find_layers
from qconvert.recover.recovery import Subject
from qconvert.recover.samples import Samples
from qconvert.rounding.method import Moments

# Bytes of moments that are held at once; a pass over the samples for each such part.
MOST_BYTES = 1 << 29
# Samples, and positions of each, that moments are made from: beyond these, perplexity of a small language model no
# longer changed.
SAMPLES, POSITIONS = 64, 512


def each_with_moments(
    groups: Sequence[Sequence[Site]],
    model: Model,
    samples: Samples | None,
    kinds: Collection[Kind] = (Kind.PRODUCT,),
) -> Iterator[tuple[int, Moments | None]]:
    """The index of each of ``groups``, the sites of a weight, once, with the moments of what it is multiplied by.

    Moments are [K, K], those of convolutions in groups [groups, K, K]. Weights of several readers and those of other
    ``kinds`` have none, nor has any without ``samples``; those with moments come first, as these do.
    """
    waiting = {i: group[0].name for i, group in enumerate(groups)}
    alone = {g[0].name: i for i, g in enumerate(groups) if len(g) == 1 and g[0].kind in kinds}
    if samples is not None and alone:
        for name, moments in moments_of(model, alone, samples):
            if waiting.pop(alone[name], None) is not None:
                yield alone[name], moments
    for i in waiting:
        yield i, None


def moments_of(model: Model, names: Collection[str], samples: Samples) -> Iterator[tuple[str, Moments]]:
    """(node, H) of those of the nodes ``names`` of the main graph that multiply with a weight; shapes as above."""
    graph = view_of(model)
    layers = {n: layer for n, layer in find_layers(graph).items() if n in names}
    subject = Subject(model=model, graph=graph, samples=samples)
    few = samples.first(SAMPLES)
    for part in _parts(layers, subject):
        for name, moments in second_moments(subject, part, few, POSITIONS).items():
            yield name, moments[0] if len(moments) == 1 else moments


def _parts(layers: dict[str, Layer], subject: Subject) -> Iterator[dict[str, Layer]]:
    part: dict[str, Layer] = {}
    size = 0
    for name, layer in layers.items():
        shape = subject.graph.tensors[subject.graph.nodes[name].inputs[1] or ""].shape or ()
        sizes = [size for axis, size in enumerate(shape) if axis != layer.out_axis and isinstance(size, int)]
        needed = 8 * layer.group * math.prod(sizes) ** 2
        if part and size + needed > MOST_BYTES:
            yield part
            part, size = {}, 0
        part[name] = layer
        size += needed
    if part:
        yield part

"""Second moments of the inputs of products, gathered a few layers at a time so that they fit into memory."""

from __future__ import annotations

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
    groups: Sequence[Sequence[Site]], model: Model, samples: Samples | None
) -> Iterator[tuple[int, Moments | None]]:
    """The index of each of ``groups``, the sites of a weight, once, with the moments of what it is multiplied by.

    Weights of several readers and those that are no product's have none, nor has any without ``samples``; those with
    moments come first, as these do.
    """
    waiting = {i: group[0].name for i, group in enumerate(groups)}
    alone = {g[0].name: i for i, g in enumerate(groups) if len(g) == 1 and g[0].kind is Kind.PRODUCT}
    if samples is not None and alone:
        for name, moments in moments_of(model, alone, samples):
            if waiting.pop(alone[name], None) is not None:
                yield alone[name], moments
    for i in waiting:
        yield i, None


def moments_of(model: Model, names: Collection[str], samples: Samples) -> Iterator[tuple[str, Moments]]:
    """(node, H [K, K]) of those of the nodes ``names`` of the main graph that are products with a weight."""
    graph = view_of(model)
    layers = {n: layer for n, layer in find_layers(graph).items() if n in names and layer.op_type != "Conv"}
    subject = Subject(model=model, graph=graph, samples=samples)
    few = samples.first(SAMPLES)
    for part in _parts(layers, subject):
        for name, moments in second_moments(subject, part, few, POSITIONS).items():
            yield name, moments[0]


def _parts(layers: dict[str, Layer], subject: Subject) -> Iterator[dict[str, Layer]]:
    part: dict[str, Layer] = {}
    size = 0
    for name, layer in layers.items():
        shape = subject.graph.tensors[subject.graph.nodes[name].inputs[1] or ""].shape or ()
        inputs = shape[1 - layer.out_axis] if len(shape) == 2 else 0
        needed = 8 * inputs**2 if isinstance(inputs, int) else 0
        if part and size + needed > MOST_BYTES:
            yield part
            part, size = {}, 0
        part[name] = layer
        size += needed
    if part:
        yield part

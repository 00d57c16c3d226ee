"""Second moments of what layers read: H = E[x x^T] over samples and positions, x one column of the unfolded input.

    Conv    x is a patch, [inputs a group * taps]; H [groups, K, K]
    Gemm, MatMul    x is a row, [K]; H [1, K, K]

Nothing is kept but the sums. Of a large feature map only a regular grid of patches is used.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from qconvert.graph.session import Feed
from qconvert.graph.signature import session_of
from qconvert.graph.view import NodeView
from qconvert.recover.layers import Array, Layer
from qconvert.recover.recovery import Subject


def second_moments(
    subject: Subject, layers: Mapping[str, Layer], samples: Iterable[Feed], positions: int
) -> dict[str, NDArray[np.float64]]:
    """H of each layer, from the float model; ``positions``: about so many columns a sample at most."""
    given = set(subject.graph.inputs)
    sources = [t for t in dict.fromkeys(layer.source for layer in layers.values()) if t not in given]
    session = session_of(subject.model, outputs=sources) if sources else None
    shapes = {n: subject.weight(layer).shape for n, layer in layers.items()}
    sums: dict[str, NDArray[np.float64]] = {}
    columns = dict.fromkeys(layers, 0)
    for feed in samples:
        values = dict(feed)
        if session is not None:
            values.update(zip(sources, session.run_on(feed, sources), strict=True))
        for name, layer in layers.items():
            x = np.asarray(values[layer.source], np.float32)
            patches = _patches(subject.graph.nodes[name], layer, x, shapes[name], positions)
            sums[name] = sums.get(name, 0.0) + (patches.swapaxes(1, 2) @ patches).astype(np.float64)
            columns[name] += patches.shape[1]
    return {name: total / max(1, columns[name]) for name, total in sums.items()}


def _patches(node: NodeView, layer: Layer, x: Array, weight: tuple[int, ...], positions: int) -> Array:
    """[groups, columns, K], in the order of the weight's elements."""
    if layer.op_type != "Conv":
        rows = x.reshape(1, -1, x.shape[-1])
        return np.ascontiguousarray(rows[:, :: max(1, math.ceil(rows.shape[1] / positions))])
    kernel = weight[2:]
    rank = len(kernel)
    strides = node.attr_ints("strides", (1,) * rank)
    dilations = node.attr_ints("dilations", (1,) * rank)
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    before, after = _padding(node, x.shape[2:], spans, strides)
    x = np.pad(x, [(0, 0), (0, 0), *zip(before, after, strict=True)])
    windows = np.lib.stride_tricks.sliding_window_view(x, spans, axis=tuple(range(2, 2 + rank)))
    sizes = [-(-windows.shape[2 + i] // strides[i]) for i in range(rank)]
    # the same step along every axis, so that about ``positions`` windows of all samples of the feed are left
    skip = max(1, math.ceil((x.shape[0] * math.prod(sizes) / positions) ** (1 / rank)))
    chosen = [slice(min(skip // 2, n - 1) * s, None, skip * s) for n, s in zip(sizes, strides, strict=True)]
    taps = [slice(None, None, d) for d in dilations]
    picked = windows[(slice(None), slice(None), *chosen, *taps)]  # [N, C, oh, ow, kh, kw]
    picked = np.moveaxis(picked, 1, 1 + rank)
    columns = math.prod(picked.shape[: 1 + rank])
    return np.ascontiguousarray(picked.reshape(columns, layer.group, -1).swapaxes(0, 1))


def _padding(
    node: NodeView, sizes: tuple[int, ...], spans: list[int], strides: tuple[int, ...]
) -> tuple[list[int], list[int]]:
    auto = node.attr_str("auto_pad", "NOTSET")
    rank = len(sizes)
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        results = [-(-n // s) for n, s in zip(sizes, strides, strict=True)]
        total = [max(0, (r - 1) * s + span - n) for r, s, span, n in zip(results, strides, spans, sizes, strict=True)]
        small, large = [t // 2 for t in total], [t - t // 2 for t in total]
        return (small, large) if auto == "SAME_UPPER" else (large, small)
    pads = node.attr_ints("pads", (0,) * (2 * rank)) if auto == "NOTSET" else (0,) * (2 * rank)
    return list(pads[:rank]), list(pads[rank:])

"""How much work a run of a model is, told from one run: what bounds the cost of passes without a clock."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from qconvert.graph.signature import session_of
from qconvert.recover.layers import Layer
from qconvert.recover.recovery import Subject


def multiplications(subject: Subject, layers: Mapping[str, Layer]) -> float:
    """Multiplications of ``layers`` on the first sample: for each element of a result, the weights of its channel."""
    results = list(dict.fromkeys(layer.result for layer in layers.values()))
    if not results:
        return 0.0
    session = session_of(subject.model, outputs=results)
    arrays = session.run_on(next(iter(subject.samples)), results)
    sizes = {name: np.asarray(a).size for name, a in zip(results, arrays, strict=True)}
    return sum(sizes[n.result] * subject.weight(n).size / outputs(subject, n) for n in layers.values())


def outputs(subject: Subject, layer: Layer) -> int:
    """Output channels of ``layer``."""
    return int(subject.weight(layer).shape[layer.out_axis])

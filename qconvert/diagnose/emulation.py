"""A model run as x86 without VNNI would run it, on any processor.

The optimized graph is cut at the nodes that can saturate. These are computed in numpy (``integer_ops``), once exactly
and once with saturating sums; what lies between them is run by ONNX Runtime. Both runs differ in nothing else, so the
difference of their outputs is what saturation costs. Nodes that are proven safe stay with ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qconvert.diagnose.integer_ops import PORTS, at, compute, saturable
from qconvert.evaluate.fidelity import Fidelity, FidelityReport
from qconvert.graph.build_view import view_of
from qconvert.graph.model import Model
from qconvert.graph.optimized import optimized_model, segment
from qconvert.graph.session import Feed, Session
from qconvert.graph.signature import session_of
from qconvert.graph.view import GraphView, NodeView
from qconvert.progress import Progress, Silent

Array = NDArray[np.generic]


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """Saturating against exact arithmetic.

    Attributes:
        end_to_end: of the model's outputs.
        layers: of each node that can saturate, both fed with the exact run's inputs: node -> SQNR in dB, inf where
            nothing saturated.
        samples: samples run.
    """

    end_to_end: FidelityReport
    layers: dict[str, float]
    samples: int


def saturation_damage(path: Path, feeds: Sequence[Feed], progress: Progress | None = None) -> Damage | None:
    """What saturation does to the model at ``path`` on ``feeds``; None where no node can saturate.

    Raises:
        ModelError: ONNX Runtime cannot run the model.
    """
    model = optimized_model(path, layouts=False)
    view = view_of(model)
    found = [s for node in view.nodes.values() if (s := saturable(view, node)) is not None and s.unsafe]
    if not found:
        return None
    net = _SplitNet(model, view, [s.node for s in found])
    whole = Fidelity(view.outputs)
    layers = {s.node: Fidelity([s.node]) for s in found}
    for feed in (progress or Silent()).track(feeds, label="saturation", total=len(feeds)):
        exact = net.run(feed, saturate=False, layers=layers)
        whole.update(exact, net.run(feed, saturate=True))
    return Damage(
        end_to_end=whole.report(),
        layers={name: fidelity.report().sqnr_db for name, fidelity in layers.items()},
        samples=whole.report().samples,
    )


class _SplitNet:
    """A model whose nodes ``cut`` are computed here, and the rest by ONNX Runtime."""

    def __init__(self, model: Model, view: GraphView, cut: Sequence[str]) -> None:
        self._model, self._view = model, view
        self._cut = [view.nodes[name] for name in cut]
        self._sessions: dict[str, Session | None] = {}

    def run(self, feed: Feed, *, saturate: bool, layers: dict[str, Fidelity] | None = None) -> list[Array]:
        """The model's outputs; ``layers`` are told of exact and saturating results on the same inputs."""
        values: dict[str, Array] = dict(feed)
        for node in self._cut:
            wanted = [name for name in node.inputs if name and not self._view.is_constant(name)]
            self._make(node.name, wanted, values)
            inputs = tuple(self._value(name, values) for name in node.inputs)
            result = compute(node, inputs, saturate=saturate)
            if layers is not None:
                other = compute(node, inputs, saturate=True)
                layers[node.name].update([self._centred(node, result)], [self._centred(node, other)])
            values[node.outputs[0]] = result
        self._make("", self._view.outputs, values)
        return [values[name] for name in self._view.outputs]

    def _value(self, name: str | None, values: dict[str, Array]) -> Array | None:
        if not name:
            return None
        return values[name] if name in values else self._view.constant(name)

    def _centred(self, node: NodeView, result: Array) -> Array:
        """Codes less their zero point: what the result's values are proportional to."""
        zero = at(node, PORTS[node.op_type].y_zero)
        if zero is None or not self._view.is_constant(zero):
            return result
        return np.asarray(result, np.float32) - np.float32(self._view.constant(zero).reshape(-1)[0])

    def _make(self, key: str, wanted: Iterable[str], values: dict[str, Array]) -> None:
        """Add the values ``wanted`` to ``values``."""
        missing = [name for name in wanted if name not in values]
        if not missing:
            return
        if key not in self._sessions:
            part = segment(self._model, {n: v.dtype for n, v in values.items()}, missing)
            self._sessions[key] = session_of(part, optimize=False) if part is not None else None
        session = self._sessions[key]
        if session is None:  # an output that is a constant
            values.update({name: self._view.constant(name) for name in missing})
            return
        values.update(zip(missing, session.run_on(values, missing), strict=True))

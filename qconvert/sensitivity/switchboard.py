"""A quantized model as one session in which every source of error has a switch.

The error of a source has two parts. A weight whose code is beyond the end of the grid is clipped, any other is rounded;
a value of an activation beyond the range is clipped to its end, and then rounded:

    weights      w' - w = clipping + rounding, each zero where the other is not
    activations  clip(x) - x   and   step round(x / step) - x
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from qconvert.errors import InternalError
from qconvert.graph.constants import Port
from qconvert.graph.model import Model
from qconvert.graph.session import Feed, Session
from qconvert.graph.signature import session_of
from qconvert.graph.switches import WeightInput, switch, switched
from qconvert.graph.view import GraphView
from qconvert.numerics.affine import dequantize, quantize, weight_params
from qconvert.plan.model import QuantPlan
from qconvert.recover.layers import Array
from qconvert.recover.recovery import Changes
from qconvert.recover.simulation import roundings
from qconvert.sensitivity.sources import Source


class Part(Enum):
    """Which part of a source's error is switched on."""

    BOTH = "both"
    ROUNDING = "rounding"
    CLIPPING = "clipping"


@dataclass(frozen=True, slots=True, kw_only=True)
class Switchboard:
    """The session, and what its switches are fed with.

    Attributes:
        session: the model; its outputs are the original's, in their order.
        off: the inputs of all switches, with nothing switched on.
        graph, plan, changes: what was quantized, how, and what recovery has made of the weights.
    """

    session: Session
    off: Feed
    graph: GraphView
    plan: QuantPlan
    changes: Changes

    @classmethod
    def of(
        cls, model: Model, graph: GraphView, plan: QuantPlan, changes: Changes, sources: Sequence[Source]
    ) -> Switchboard:
        """For ``model`` (or one with other outputs), pictured by ``graph``, under the solved ``plan``."""
        off: dict[str, NDArray[np.generic]] = {}
        weights: list[WeightInput] = []
        free: dict[int, str] = {}
        for source in sources:
            if source.port is not None:
                array = _exact(graph, source.port)
                off[source.switch] = array
                weights.append(WeightInput(port=source.port, name=source.switch, shape=array.shape))
            if source.scale is not None:
                free[source.scale] = source.switch
                off |= switch(source.switch, None)
        switches = [r for r in roundings(graph, plan, free) if r.free is not None]
        session = session_of(switched(model, switches, weights), integers=False)
        return cls(session=session, off=off, graph=graph, plan=plan, changes=changes)

    def run(self, feed: Feed, on: Feed) -> list[NDArray[np.generic]]:
        """The outputs for ``feed`` with the switches ``on``, as :meth:`setting` gives them."""
        return self.session.run_on({**self.off, **feed, **on})

    def setting(self, source: Source, part: Part = Part.BOTH) -> Feed | None:
        """Inputs that switch ``source`` on; None for a clipping that is known to change nothing."""
        if source.scale is not None:
            params = self.plan.groups[source.scale].params
            return switch(source.switch, params, rounds=part is not Part.CLIPPING, clips=part is not Part.ROUNDING)
        exact, written, clipped = self._weight(source)
        if part is Part.BOTH:
            return {source.switch: written}
        if part is Part.ROUNDING:
            return {source.switch: np.where(clipped, exact, written)}
        return {source.switch: np.where(clipped, written, exact)} if clipped.any() else None

    def _weight(self, source: Source) -> tuple[Array, Array, NDArray[np.bool_]]:
        """(a weight, its integer form as real numbers, where the former is beyond the grid), [same shape] each."""
        if source.weight is None or source.port is None:
            raise InternalError(f"{source.tensor} is no weight")
        exact = _exact(self.graph, source.port)
        chosen = np.asarray(self.changes.constants.get(source.port, exact), np.float32)
        params = source.weight.params or weight_params(chosen, source.weight.spec)
        spec = params.spec
        shape = [-1 if i == spec.axis else 1 for i in range(exact.ndim)]
        codes = np.rint(exact / params.scale.reshape(shape)) + params.zero_point.astype(np.float32).reshape(shape)
        return exact, dequantize(quantize(chosen, params), params), (codes < spec.lo) | (codes > spec.hi)


def _exact(graph: GraphView, port: Port) -> Array:
    node, index = port
    return np.asarray(graph.constant(graph.nodes[node].inputs[index] or ""), np.float32)

"""What a recovery pass is, what it is given, and what it gives back.

A pass works at one of three stages:

    WEIGHTS  other FP32 weights for the same function; planning and calibration follow
    SOLVED   on a plan with numbers: other weights, weight scales and biases for the quantized form
    LAST     the same, after all others: what is right only all together, so that nothing that looks at single weights
             or measures them is to see it

It never touches a model: it returns :class:`Changes`, which the caller writes into a copy, judges on samples that the
pass has not seen, and keeps or drops.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from qconvert.forms import FUSED, TITLES
from qconvert.graph.constants import BIAS_PORT, Port, added_name, with_constants
from qconvert.graph.model import Model
from qconvert.graph.scaling import Scaling, with_scalings
from qconvert.graph.view import GraphView
from qconvert.numerics.spec import QParams
from qconvert.plan.model import NodePlan, QuantPlan
from qconvert.recover.layers import Array, Layer
from qconvert.recover.samples import Samples
from qconvert.registry import Registry

# What the plan calls the source of a scale that a pass has chosen.
RANGES = "ranges"


class Stage(Enum):
    """When a pass works."""

    WEIGHTS = "weights"
    SOLVED = "solved"
    LAST = "last"


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What one pass, or several after each other, want changed.

    Attributes:
        constants: new values of constants, by where they are read; a bias may be new.
        scalings: tensors that some readers are to read scaled, at stage WEIGHTS.
        parameters: scales of weights that are not those of their extremes, by node.
        ranges: scales of activations, by the first tensor of their group.
        changed: how many layers have changed (links between layers for equalization, tensors for smoothing).
    """

    constants: Mapping[Port, NDArray[np.float32]] = field(default_factory=dict)
    scalings: Mapping[str, Scaling] = field(default_factory=dict)
    parameters: Mapping[str, QParams] = field(default_factory=dict)
    ranges: Mapping[str, QParams] = field(default_factory=dict)
    changed: int = 0

    def and_then(self, later: Changes) -> Changes:
        """Both, ``later`` over these."""
        return Changes(
            constants={**self.constants, **later.constants},
            scalings={**self.scalings, **later.scalings},
            parameters={**self.parameters, **later.parameters},
            ranges={**self.ranges, **later.ranges},
            changed=self.changed + later.changed,
        )

    def applied(self, model: Model) -> Model:
        """A copy of ``model`` with the new constants, and with the scalings."""
        return with_scalings(with_constants(model, self.constants), self.scalings)

    def planned(self, plan: QuantPlan) -> QuantPlan:
        """``plan`` with the chosen scales of weights and activations, and with the biases that are new."""
        nodes = dict(plan.nodes)
        for name, params in self.parameters.items():
            weight = nodes[name].weight
            if weight is not None:
                nodes[name] = replace(nodes[name], weight=replace(weight, params=params))
        for name, port in self.constants:
            if port == BIAS_PORT and nodes[name].weight is not None and nodes[name].activations:
                nodes[name] = _with_bias(nodes[name])
        groups = tuple(
            replace(g, params=self.ranges[g.tensors[0]], method=RANGES) if g.tensors[0] in self.ranges else g
            for g in plan.groups
        )
        return replace(plan, nodes=nodes, groups=groups)


def _with_bias(node: NodePlan) -> NodePlan:
    """``node`` with a bias of its own: int32, or of a MatMul a float one that its kernel adds to a float result."""
    if node.op_type != "MatMul":
        return replace(node, bias=BIAS_PORT)
    decision = replace(node.decision, reason=f"integer kernel, {TITLES[FUSED]}")
    return replace(node, form=FUSED, adds=added_name(node.node), decision=decision)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What a pass works on.

    Attributes:
        model: the canonical FP32 model.
        graph: its picture.
        samples: calibration samples, without those that the result is judged on.
        plan: solved; at the stage WEIGHTS that of the model before the pass, where there is one.
        changes: those of earlier passes.
        saturates: whether the target's kernels add two products in 16 bits.
        open_products: MatMuls without a bias whose integer kernels would add one for nothing
            (:func:`qconvert.plan.forms.open_products`).
        work: how many times its usual work the pass may do.
    """

    model: Model
    graph: GraphView
    samples: Samples
    plan: QuantPlan | None = None
    changes: Changes = field(default_factory=Changes)
    saturates: bool = False
    open_products: frozenset[str] = frozenset()
    work: float = 1.0

    def weight(self, layer: Layer) -> Array:
        """The weight of ``layer`` as it is by now."""
        return self.constant(layer.weight)

    def bias(self, layer: Layer) -> Array | None:
        """The bias of ``layer`` as it is by now, None where it has none."""
        if layer.bias is None or not (layer.has_bias or layer.bias in self.changes.constants):
            return None
        return self.constant(layer.bias)

    def constant(self, port: Port) -> Array:
        """The float constant at ``port`` as it is by now."""
        if port in self.changes.constants:
            return self.changes.constants[port]
        return self._float(port)

    def original(self, layer: Layer) -> Array:
        """The weight of ``layer`` in float, before passes of stage SOLVED."""
        return self._float(layer.weight)

    def _float(self, port: Port) -> Array:
        node, index = port
        return np.asarray(self.graph.constant(self.graph.nodes[node].inputs[index] or ""), np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryOutcome:
    """What came of a pass.

    Attributes:
        name: the pass.
        kept: whether the model has its changes.
        before_db, after_db: SQNR without and with it, as :mod:`qconvert.recover.judge` defines its score.
        changed: how many layers (links) it changed.
        held_out: whether it was judged on samples that it has not seen.
    """

    name: str
    kept: bool
    before_db: float
    after_db: float
    changed: int
    held_out: bool = True

    def __str__(self) -> str:
        where = "samples that it has not seen" if self.held_out else "the samples that it has seen"
        return (
            f"recovery, {self.name}: {self.before_db:.1f} -> {self.after_db:.1f} dB on {where}, "
            f"{self.changed} {'change' if self.changed == 1 else 'changes'} {'kept' if self.kept else 'dropped'}"
        )


class Recovery(Protocol):
    """A pass. Its options are a frozen dataclass of its own module."""

    @property
    def name(self) -> str:
        """As users write it."""
        ...

    @property
    def stage(self) -> Stage:
        """When it works."""
        ...

    def apply(self, subject: Subject) -> Changes:
        """What to change; nothing where there is nothing to gain."""
        ...


RECOVERIES: Registry[Recovery] = Registry("recovery pass")
RECOVERIES.discover("qconvert.recover.passes")

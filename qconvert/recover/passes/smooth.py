"""SmoothQuant: move the unevenness of channels from activations, which share one scale, to weights, which have many.

    Y = X W  =  (X S^-1) (S W)        s_c = (max |X_c|)^alpha / (max |W_c|)^(1 - alpha)

X [rows, C] is what one or more products read, W [C, N] their weights side by side. A LayerNormalization gives some
channels ten times the others' range, always the same ones, and rounding to one scale loses the others. Xiao et al. 2023
(arXiv:2211.10438), equation 4; alpha is searched for each tensor by the error of the outputs,

    e(alpha) = sum over readers  |Y - Q(X S^-1) Q(S W)|^2 / |Y|^2

with the rounding of the plan and the extremes as ranges. S^-1 costs nothing where what makes X takes it into its
constants (:mod:`qconvert.recover.folding`). If others read X too, as the residual branch of a post-norm transformer
does, a Mul is put between X and the products: on all-MiniLM-L6-v2 no cost could be measured (docs/decisions/0017), but
it has to gain more. What comes from a nonlinear operator (GELU) is left alone: nothing before it can take a factor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from qconvert.graph.constants import Port
from qconvert.graph.scaling import Scaling
from qconvert.graph.signature import session_of
from qconvert.graph.view import GraphView, NodeView
from qconvert.numerics.affine import dequantize, params_from_range, quantize, weight_params
from qconvert.numerics.dtypes import UINT8
from qconvert.numerics.spec import QuantSpec
from qconvert.plan.model import QuantPlan
from qconvert.recover.folding import Place, find_place
from qconvert.recover.layers import Array, Layer, find_layers, owns_weight
from qconvert.recover.recovery import RECOVERIES, Changes, Stage, Subject
from qconvert.recover.simulation import multiplying_layers

Vector = NDArray[np.float64]

# What DynamicQuantizeLinear makes.
_AS_IT_RUNS = QuantSpec(qtype=UINT8, symmetric=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SmoothOptions:
    """Constants of the pass.

    Attributes:
        alphas: those that are tried.
        samples: how many samples X is taken from.
        least_rows, most_rows: rows of X at least and at most.
        operations: multiplications that the search may cost, beyond the least rows.
        floor: least range of a channel, as a share of the greatest: one that was silent here may still speak.
        least_gain_db, least_gain_of_a_node_db: gain in e below which a tensor is left alone, without and with a Mul.
    """

    alphas: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    samples: int = 16
    least_rows: int = 64
    most_rows: int = 512
    operations: float = 5e10
    floor: float = 1e-3
    least_gain_db: float = 0.3
    least_gain_of_a_node_db: float = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    """A tensor, the layers that read it, at which ports, where its factors can go, and whether others read it, too.

    The ports are those of the layers, or of the Transpose between, which leaves channels where they are.
    """

    tensor: str
    readers: tuple[Layer, ...]
    ports: frozenset[Port]
    place: Place
    shared: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Smooth:
    """The pass."""

    options: SmoothOptions = field(default_factory=SmoothOptions)
    name: str = "smooth"
    stage: Stage = Stage.WEIGHTS

    def apply(self, subject: Subject) -> Changes:
        """Scaled weights and constants of what they read; a scaling of its own where others read that, too."""
        plan = subject.plan
        found = _candidates(subject, plan) if plan is not None else []
        if plan is None or not found:
            return Changes()
        constants: dict[Port, Array] = {}
        scalings: dict[str, Scaling] = {}
        changed = 0
        rows = _rows(subject, found, self.options.samples, self._row_count(subject, found))
        for candidate in found:
            weights = [subject.weight(layer) for layer in candidate.readers]
            factors, gain_db = self._best(plan, candidate, rows[candidate.tensor], weights)
            least = self.options.least_gain_of_a_node_db if candidate.shared else self.options.least_gain_db
            if factors is None or gain_db < least:
                continue
            changed += 1
            for layer in candidate.readers:
                # a weight may have been scaled along its columns already, for the products that read its result
                weight = constants.get(layer.weight, subject.weight(layer))
                constants[layer.weight] = layer.scaled_inputs(weight, factors)
            if candidate.shared:
                inverse = np.asarray(1 / factors, np.float32)
                scalings[candidate.tensor] = Scaling(factors=inverse, readers=candidate.ports)
                continue
            for port, axis in candidate.place.axes.items():
                value = constants.get(port, subject.constant(port))
                shape = [1] * value.ndim
                shape[axis] = -1
                constants[port] = np.asarray(value / factors.reshape(shape), np.float32)
        return Changes(constants=constants, scalings=scalings, changed=changed)

    def _row_count(self, subject: Subject, found: Sequence[_Candidate]) -> int:
        each = sum(subject.weight(layer).size for c in found for layer in c.readers) * (len(self.options.alphas) + 2)
        return int(
            np.clip(self.options.operations * subject.work / each, self.options.least_rows, self.options.most_rows)
        )

    def _best(
        self, plan: QuantPlan, candidate: _Candidate, x: Array, weights: Sequence[Array]
    ) -> tuple[Vector | None, float]:
        """(factors [C] of geometric mean 1, None for all 1; by how many dB e falls)."""
        matrices = [w if layer.out_axis == 1 else w.T for layer, w in zip(candidate.readers, weights, strict=True)]
        expected = [x @ w for w in matrices]
        power = [max(float(np.square(y, dtype=np.float64).sum()), 1e-30) for y in expected]
        heard = np.max([np.abs(w).max(axis=1) for w in matrices], axis=0).astype(np.float64)
        peak = np.abs(x).max(axis=0).astype(np.float64)
        peak, heard = (np.maximum(v, max(self.options.floor * v.max(), 1e-30)) for v in (peak, heard))

        def error(factors: Vector) -> float:
            rounded = _rounded_rows(plan, candidate.tensor, np.asarray(x / factors, np.float32))
            total = 0.0
            for layer, w, y, p in zip(candidate.readers, weights, expected, power, strict=True):
                scaled = layer.scaled_inputs(w, factors)
                codes = _rounded_weight(plan, layer, scaled)
                found = rounded @ (codes if layer.out_axis == 1 else codes.T)
                total += float(np.square(found - y, dtype=np.float64).sum()) / p
            return total

        start = least = error(np.ones(x.shape[1]))
        best: Vector | None = None
        for alpha in self.options.alphas:
            log_s = alpha * np.log(peak) - (1 - alpha) * np.log(heard)
            factors = np.exp(log_s - log_s.mean())
            e = error(factors)
            if e < least:
                least, best = e, factors
        return best, 10.0 * float(np.log10(start / least)) if least > 0 else 0.0


def _candidates(subject: Subject, plan: QuantPlan) -> list[_Candidate]:
    """Tensors whose channels can be scaled for all the integer products that read them, in graph order."""
    graph, every = subject.graph, find_layers(subject.graph)
    integer = multiplying_layers(subject, plan)
    # what is read in its own order and through a Transpose, too, is scaled once, for all readers
    together: dict[str, tuple[list[Layer], set[Port]]] = {}
    for read in dict.fromkeys(layer.source for layer in integer.values()):
        readers = [layer for layer in integer.values() if layer.source == read]
        if any(layer.op_type == "Conv" or not owns_weight(graph, layer) for layer in readers):
            continue
        turn = _turn_before(graph, read, len(readers))
        layers, ports = together.setdefault(read if turn is None else turn.inputs[0] or read, ([], set()))
        layers += readers
        ports |= {(layer.node, 0) for layer in readers} if turn is None else {(turn.name, 0)}
    found = []
    for tensor, (layers, ports) in together.items():
        place = find_place(graph, every, tensor, layers[0].inputs(subject.weight(layers[0])))
        if place is None:
            continue
        view = graph.tensors[tensor]
        shared = view.is_output or view.captured or len(view.consumers) != len(ports)
        if not shared or place.normalizes:
            found.append(
                _Candidate(tensor=tensor, readers=tuple(layers), ports=frozenset(ports), place=place, shared=shared)
            )
    return found


def _turn_before(graph: GraphView, tensor: str, readers: int) -> NodeView | None:
    """The Transpose that makes ``tensor`` and leaves its channels last, where so many ``readers`` are all it has."""
    node, view = graph.producer(tensor), graph.tensors[tensor]
    if node is None or node.op_type != "Transpose" or view.is_output or view.captured or len(view.consumers) != readers:
        return None
    perm = node.attr_ints("perm")
    return node if perm and perm[-1] == len(perm) - 1 else None


def _rows(subject: Subject, found: Sequence[_Candidate], samples: int, count: int) -> Mapping[str, Array]:
    """Some rows of each tensor, spread evenly over the samples: [count or less, C]."""
    tensors = [c.tensor for c in found]
    session = session_of(subject.model, outputs=tensors)
    chosen = subject.samples.first(samples)
    kept: dict[str, list[Array]] = {t: [] for t in tensors}
    for feed in chosen:
        for tensor, array in zip(tensors, session.run_on(feed, tensors), strict=True):
            rows = np.asarray(array, np.float32).reshape(-1, array.shape[-1])
            step = max(1, -(-rows.shape[0] * len(chosen) // count))
            kept[tensor].append(rows[::step])
    return {t: np.concatenate(parts) for t, parts in kept.items()}


def _rounded_rows(plan: QuantPlan, tensor: str, x: Array) -> Array:
    group = plan.group_of().get(tensor)
    spec = _AS_IT_RUNS if group is None else plan.groups[group].spec
    params = params_from_range(float(x.min(initial=0.0)), float(x.max(initial=0.0)), spec)
    return dequantize(quantize(x, params), params)


def _rounded_weight(plan: QuantPlan, layer: Layer, weight: Array) -> Array:
    planned = plan.nodes[layer.node].weight
    if planned is None:
        return weight
    params = weight_params(weight, planned.spec)
    return dequantize(quantize(weight, params), params)


RECOVERIES.add("smooth", Smooth())

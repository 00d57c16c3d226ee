"""Every placement between the fastest and the most accurate one that is best at some exchange rate.

    S(lambda) = argmin over placements S of  cost(S) + lambda x noise(S)

noise only ever counts against integers, so S(lambda) shrinks as lambda grows (Gallo, Grigoriadis and Tarjan 1989,
SIAM J. Comput. 18, 30-55): cost rises and noise falls from one placement to the next. They are the corners of the lower
convex hull of all pairs (noise, cost), and found exactly. Two neighbours are alike to

    lambda* = (cost' - cost) / (noise - noise')

and a cut at lambda* gives a placement between them, or proves that there is none (Eisner and Severance 1976, J. ACM 23,
619-635).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Self

from qconvert.graph.view import GraphView
from qconvert.plan.build import weighed
from qconvert.plan.candidates import Candidate
from qconvert.plan.costs import Costs, StaticCosts
from qconvert.plan.damage import Damage, Term, noise_of
from qconvert.plan.model import QuantPlan
from qconvert.plan.placement import cut
from qconvert.recipe.recipe import Recipe
from qconvert.targets.target import Target

# Where both sides cost the same, integers are preferred.
_TIE_NS = 1.0

_LEFT = "the plan leaves it in float"

# A gain of the total below this share is a rounding error of the cut.
_SAME = 1e-7


@dataclass(frozen=True, slots=True, kw_only=True)
class Corner:
    """A placement that is best at the rate ``price``.

    Attributes:
        price: lambda, in ns for noise as strong as the outputs; the least at which it is among the best.
        integer: the nodes that run on integers.
        cost: what they, the nodes that could be among them, and the conversions cost, in ns.
        noise: expected squared error of the outputs, as a share of their power.
    """

    price: float
    integer: frozenset[str]
    cost: float
    noise: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tradeoff:
    """The placements of one graph.

    Attributes:
        graph, recipe, target: as for planning.
        integer: the nodes that a plan of the graph runs on integers.
        absorbed: the clamps among them, and what absorbs each.
        terms: what they do to the outputs.
        measured: what nodes and conversions were measured to cost; None: the target's estimates are used.
        shares: nodes that need not compute in float where they leave the integers of the plan, and what they take then
            as a share of what they take in float, but no less than on integers (:mod:`qconvert.plan.dynamic`).
    """

    graph: GraphView
    recipe: Recipe
    target: Target
    integer: frozenset[str]
    absorbed: Mapping[str, str]
    terms: Sequence[Term]
    measured: Costs | None = None
    shares: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        graph: GraphView,
        recipe: Recipe,
        target: Target,
        plan: QuantPlan,
        terms: Sequence[Term],
        measured: Costs | None = None,
    ) -> Tradeoff:
        """From ``plan``; what it does not run on integers stays float, and so do operators that only store integers."""
        integer = frozenset(n.node for n in plan.taken() if n.activations or n.table or n.absorbed_into)
        absorbed = {n.node: n.absorbed_into for n in plan.taken() if n.absorbed_into}
        return cls(
            graph=graph,
            recipe=recipe,
            target=target,
            integer=integer,
            absorbed=absorbed,
            terms=terms,
            measured=measured,
        )

    def corners(self, most: int, *, wary: bool = False) -> list[Corner]:
        """From everything on integers to nothing, by rising price and cost and falling noise; ``most`` at most, 2 at
        least.

        Where there are more, the widest gaps of noise are filled first. ``wary``: as if what was measured were wrong of
        every operator in float, so that there is a corner for each step towards that.
        """
        candidates = {
            # what the plan leaves in float is in no group, so that it does not take the others of its group along
            name: c if c.objection or name in self.integer else replace(c, objection=_LEFT)
            for name, c in weighed(self.graph, self.recipe, self.target).items()
        }
        costs = self._costs(candidates)
        if wary:
            costs = costs.surer(self.integer) or costs

        def solve(price: float, allowed: frozenset[str]) -> Corner:
            damage = Damage(integer=allowed, terms=self.terms, price=price)
            total, integer = cut(self.graph, candidates, self.absorbed, costs, damage)
            noise = noise_of(self.terms, integer)
            return Corner(price=price, integer=frozenset(integer), cost=total - price * noise, noise=noise)

        first = solve(0.0, self.integer)
        while better := costs.surer(self.integer - first.integer):
            costs = better
            first = solve(0.0, self.integer)
        found = [first, solve(0.0, frozenset())]
        settled: set[tuple[float, float]] = set()
        while len(found) < most:
            gaps = [(a, b) for a, b in itertools.pairwise(found) if (a.noise, b.noise) not in settled]
            if not gaps:
                break
            low, high = max(gaps, key=lambda gap: gap[0].noise - gap[1].noise)
            price = _rate(low, high)
            between = solve(price, self.integer)
            gain = low.cost + price * low.noise - between.cost - price * between.noise
            if high.noise < between.noise < low.noise and gain > _SAME * (low.cost + price * low.noise):
                found.insert(found.index(high), between)
            else:
                settled.add((low.noise, high.noise))
        # a price is where a placement takes over from the one before
        return [found[0], *(replace(b, price=_rate(a, b)) for a, b in itertools.pairwise(found) if a.noise > b.noise)]

    def extra(self, nodes: Iterable[str]) -> dict[str, float]:
        """What each of ``nodes``, now on integers, would alone cost more in float, with all conversions around it, in
        ns."""
        candidates = weighed(self.graph, self.recipe, self.target)
        costs = self._costs(candidates)
        return {n: costs.alone(candidates[n]) - costs.on_integers(candidates[n]) for n in nodes}

    def saved(self, nodes: Iterable[str]) -> float:
        """What ``nodes`` cost less off the integers of the plan, by their shares, than in float, in ns."""
        candidates = weighed(self.graph, self.recipe, self.target)
        less, whole = (t._costs(candidates) for t in (self, replace(self, shares={})))
        charged = [candidates[n] for n in {less.group(name) for name in nodes}]
        return sum(whole.in_float(c) - less.in_float(c) for c in charged)

    def _costs(self, candidates: Mapping[str, Candidate]) -> _Costs:
        static = StaticCosts.of(self.graph, self.target, candidates)
        if self.measured is None:
            return _Costs(static=static, shares=self.shares)
        around: dict[str, float] = {}
        by_group = {self.measured.group(name): share for name, share in self.shares.items()}
        found = _MeasuredCosts(static=static, shares=by_group, measured=self.measured, around=around)
        for name, candidate in candidates.items():
            group = found.group(name)
            around[group] = around.get(group, 0.0) + found.conversions(candidate)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Costs:
    """The static estimates, with every operator free to be float.

    A weighted operator costs no less in float than on integers with all conversions that this may need: the estimates
    are too coarse to call float the faster side as well as the more accurate one.

    Attributes:
        static: the estimates.
        shares: those of :class:`Tradeoff`, by group.
    """

    static: StaticCosts
    shares: Mapping[str, float] = field(default_factory=dict)

    def group(self, name: str) -> str:
        return self.static.group(name)

    def surer(self, wrong: Set[str]) -> Self | None:
        """These costs, where they put ``wrong`` into float although it is faster on integers; None: they are sure."""
        del wrong
        return None

    def in_float(self, candidate: Candidate) -> float:
        if not candidate.weighted:
            return self.static.node(candidate.node, candidate.capability, integer=False)
        in_float = self._kernel(candidate, integer=False) * self.shares.get(candidate.node.name, 1.0)
        kernel = max(in_float, self.on_integers(candidate))
        return kernel + self.conversions(candidate) + _TIE_NS

    def alone(self, candidate: Candidate) -> float:
        """Running a node in float amid integers."""
        return self.in_float(candidate)

    def conversions(self, candidate: Candidate) -> float:
        """All that a node may need."""
        node, tensors = candidate.node, self.static.graph.tensors
        read = [t for t in node.inputs if t and tensors[t].is_float and not tensors[t].is_constant]
        return sum(map(self.quantize, read)) + sum(map(self.dequantize, filter(None, node.outputs)))

    def on_integers(self, candidate: Candidate) -> float:
        return self._kernel(candidate, integer=True)

    def float_before(self, candidate: Candidate) -> Iterable[str]:
        del candidate
        return ()

    def quantize(self, tensor: str) -> float:
        return self.static.quantize(tensor)

    def dequantize(self, tensor: str) -> float:
        return self.static.dequantize(tensor)

    def _kernel(self, candidate: Candidate, *, integer: bool) -> float:
        node = candidate.node
        by_shape = self.static.convolution(node, integer=integer) if node.op_type == "Conv" else None
        return self.static.node(node, candidate.capability, integer=integer) if by_shape is None else by_shape


@dataclass(frozen=True, slots=True, kw_only=True)
class _MeasuredCosts(_Costs):
    """Measured costs, with every operator free to be float, tables too, which are estimated.

    The placement that was measured to be the fastest is where the tradeoff begins: of a group that its costs would put
    into float all the same, they are wrong, and it costs no less there than on integers with all conversions around it.

    Attributes:
        measured: what was measured.
        around: group -> all conversions that its nodes may need.
        bounded: such groups.
    """

    measured: Costs
    around: Mapping[str, float]
    bounded: frozenset[str] = frozenset()

    def surer(self, wrong: Set[str]) -> Self | None:
        more = {self.group(name) for name in wrong} - self.bounded
        return replace(self, bounded=self.bounded | more) if more else None

    def group(self, name: str) -> str:
        return self.measured.group(name)

    def in_float(self, candidate: Candidate) -> float:
        found = self.measured.in_float(candidate)
        if found is None:
            return _Costs.in_float(self, candidate)
        if (share := self.shares.get(candidate.node.name)) is not None:
            found = max(found * share, self.on_integers(candidate))
        if self.group(candidate.node.name) not in self.bounded:
            return found + _TIE_NS
        around = self.around[candidate.node.name] if self.group(candidate.node.name) == candidate.node.name else 0.0
        return max(found, self.on_integers(candidate) + around) + _TIE_NS

    def alone(self, candidate: Candidate) -> float:
        found, group = self.measured.in_float(candidate) or 0.0, self.group(candidate.node.name)
        return max(found, self.on_integers(candidate)) + self.around[group]

    def on_integers(self, candidate: Candidate) -> float:
        return self.measured.on_integers(candidate)

    def quantize(self, tensor: str) -> float:
        return self.measured.quantize(tensor)

    def dequantize(self, tensor: str) -> float:
        return self.measured.dequantize(tensor)


def _rate(low: Corner, high: Corner) -> float:
    """lambda at which both are as good."""
    return max(0.0, high.cost - low.cost) / (low.noise - high.noise) if low.noise > high.noise else 0.0

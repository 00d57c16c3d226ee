"""Where placements are made, profiled and timed: :class:`Workbench`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

from qconvert.conversion import Quantized
from qconvert.evaluate.latency import Latency, measure_latency, thread_clock
from qconvert.graph.build_view import view_of
from qconvert.graph.model import Model
from qconvert.graph.prepare.canonical import Prepared
from qconvert.graph.session import Session
from qconvert.graph.signature import session_of
from qconvert.graph.view import GraphView
from qconvert.measure.profile import Profile, profile
from qconvert.plan.build import build_plan, weighed
from qconvert.plan.candidates import Candidate
from qconvert.plan.clamps import find_absorbed
from qconvert.plan.model import QuantPlan, same_plan, told_as
from qconvert.recipe.recipe import PINNED, Recipe
from qconvert.recipe.resolve import types_for
from qconvert.recover.effort import LEVELS
from qconvert.repair import convert_and_repair
from qconvert.run import Run
from qconvert.targets.auto import target_of
from qconvert.trials import Trial, output_sqnr

# Times are for an effort of 1.
_PROFILE_RUNS, _PROFILE_SECONDS, _PROFILE_LEAST = 20, 0.5, 0.06
_TIMING_SECONDS, _TIMING_ROUNDS, _MOST_ROUNDS = 0.8, 15, 2000
# What is clear anyway is timed in a few rounds.
_CLEAR_SECONDS, _FEWEST_ROUNDS = 0.2, 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Workbench:
    """A model, and what was made of it so far.

    Attributes:
        prepared: the model.
        run: its recipe has a static placement.
        base: the canonical model with quantized branches, where it has any.
        kept_float: nodes that stay float, and why.
        graph: the canonical graph.
        able: its nodes, as placement by measurement may put them.
        sessions: what was timed, by name.
        converted: for each plan without numbers the model that came of it.
    """

    prepared: Prepared
    run: Run
    base: Model | None
    kept_float: Mapping[str, str]
    graph: GraphView
    able: Mapping[str, Candidate]
    sessions: dict[str, Session] = field(default_factory=dict)
    converted: list[tuple[QuantPlan, Quantized]] = field(default_factory=list)

    @classmethod
    def of(cls, prepared: Prepared, run: Run, base: Model | None, kept_float: Mapping[str, str]) -> Workbench:
        """One with nothing on it yet."""
        graph = view_of(prepared.model)
        able = weighed(graph, run.recipe, target_of(run.recipe.target), kept_float)
        return cls(prepared=prepared, run=run, base=base, kept_float=kept_float, graph=graph, able=able)

    @property
    def effort(self) -> float:
        """How much of the usual time is spent on timing."""
        return LEVELS[self.run.recipe.effort].timing

    def trial(self, name: str, recipe: Recipe) -> Trial:
        """The model as ``recipe`` says."""
        return Trial(name=name, recipe=recipe, result=self.convert(replace(self.run, recipe=recipe)))

    def pinned(self, name: str, integer: Set[str], forms: tuple[str, ...]) -> Trial:
        """The trial in which the nodes ``integer`` alone run on integers, in ``forms`` where they fit."""
        pinned = self.left_out(integer)
        return self.trial(name, replace(self.run.recipe, placement=PINNED, pinned_float=pinned, forms=forms))

    def left_out(self, integer: Set[str]) -> tuple[str, ...]:
        """The nodes that could run on integers and are not among ``integer``, in graph order."""
        return tuple(name for name in self.graph.nodes if not self.able[name].objection and name not in integer)

    def within(self, most: Trial) -> tuple[dict[str, Candidate], dict[str, str]]:
        """(the nodes, with objections to what is not on integers in ``most``; the clamps that vanish into others)."""
        # what no neighbour or mask lets onto integers now, nothing will
        plan, integer = most.result.plan, most.integer
        candidates = {
            name: c if name in integer or c.objection else replace(c, objection=plan.nodes[name].decision.reason)
            for name, c in self.able.items()
        }
        types = types_for(most.recipe, target_of(most.recipe.target))
        return candidates, find_absorbed(self.graph, candidates, types)

    def plan(self, run: Run) -> QuantPlan:
        """The plan under the recipe of ``run``, without numbers."""
        return build_plan(self.graph, run.recipe, target_of(run.recipe.target), self.kept_float, run.times)

    def convert(self, run: Run) -> Quantized:
        """The model under the recipe of ``run``; of plans that differ in words only, one is carried out."""
        planned = self.plan(run)
        for plan, result in self.converted:
            if same_plan(plan, planned):
                return replace(result, plan=told_as(result.plan, planned))
        result = convert_and_repair(self.prepared, run, base=self.base, kept_float=self.kept_float, required=False)
        self.converted.append((planned, result))
        return result

    def profile(self, model: Model) -> Profile:
        """What its operators take on the first sample."""
        with self.run.watch.stage("place"):
            seconds = _PROFILE_SECONDS * self.effort
            least = _PROFILE_LEAST * self.effort
            return profile(model, self.run.samples.feed(0), runs=_PROFILE_RUNS, seconds=seconds, least=least)

    def timed(self, trials: Sequence[Trial], *, clear: bool = False) -> dict[str, Latency]:
        """Latency of everything timed so far and of ``trials``, in turn; in short where it is ``clear`` anyway."""
        with self.run.watch.stage("place"):
            for trial in trials:
                if trial.name not in self.sessions:
                    self.sessions[trial.name] = session_of(trial.result.model, threads=1)
            return measure_latency(
                self.sessions,
                self.run.samples.feed(0),
                seconds=_CLEAR_SECONDS if clear else _TIMING_SECONDS * self.effort,
                min_runs=_FEWEST_ROUNDS if clear else max(_FEWEST_ROUNDS, int(_TIMING_ROUNDS * self.effort)),
                max_runs=_MOST_ROUNDS,
                warmup=1 if clear else 3,
                clock=thread_clock(),
            )

    def sqnr(self, *trials: Trial) -> list[float]:
        """The SQNR of the outputs of each of ``trials``, in dB, on a few samples."""
        return output_sqnr(trials, session_of(self.prepared.model), self.run.samples)

"""Quantizing the branches of If nodes, each as a model of its own: extract, prepare, convert, splice.

A branch is calibrated on the samples that select it: for each, the main graph gives the condition and the values that
the branch reads. Nothing is kept between samples. In a branch that no sample selects nothing runs on integers, nor in
one that fails anywhere on the way: a note says so, and weights there are stored as bytes
(:mod:`qconvert.schemes.bodies`). Branches within branches are done first, by the same function.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from qconvert.conversion import parted, quantizes
from qconvert.errors import DataError, RecipeError, described
from qconvert.graph.bodies import Branch, extract, observer, splice, weighted_branches
from qconvert.graph.build_view import view_of
from qconvert.graph.model import Model
from qconvert.graph.prepare.canonical import Prepared, prepare
from qconvert.graph.session import Feed, Session
from qconvert.graph.signature import session_of
from qconvert.graph.view import GraphView
from qconvert.plan.candidates import matches, rewritten
from qconvert.plan.model import QuantPlan
from qconvert.recipe.recipe import ALL, STATIC, Recipe
from qconvert.recovery import convert_and_recover
from qconvert.run import Feeds, Run
from qconvert.targets.auto import target_of

NOT_INCLUDED = "not among --include"


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizedBranches:
    """A model with quantized branches in a float main graph.

    Attributes:
        model: the model; the prepared one itself if nothing changed.
        plans: where the branch is ("If_12/then_branch", "If_12/then_branch/If_3/else_branch") -> its plan.
        notes: what stayed float, and why.
        tensors, skipped_values: what calibration observed in branches, and what it left out.
        patterns: --include and --exclude patterns that select nodes of branches.
    """

    model: Model
    plans: Mapping[str, QuantPlan] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    tensors: int = 0
    skipped_values: int = 0
    patterns: frozenset[str] = frozenset()

    def outer_recipe(self, recipe: Recipe, prepared: Prepared) -> tuple[Recipe, dict[str, str]]:
        """(recipe, nodes kept float) for the graph around the branches.

        Patterns that select nodes of branches only would be errors there.
        """
        view = view_of(prepared.model)
        own = _selecting(recipe, view, "")
        include = tuple(p for p in recipe.include if p in own or p not in self.patterns)
        exclude = tuple(p for p in recipe.exclude if p in own or p not in self.patterns)
        only_inside = bool(recipe.include) and not include
        return replace(recipe, include=include, exclude=exclude), _all_float(view) if only_inside else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class BranchFeeds:
    """The inputs of a branch for the samples that select it, computed one at a time.

    Attributes:
        branch: which branch.
        outer: the inputs of the graph around it.
        session: computes what is no input of that graph; None where there is nothing to compute.
        constants: a condition that is a constant.
    """

    branch: Branch
    outer: Feeds
    session: Session | None
    constants: Feed

    def __iter__(self) -> Iterator[Feed]:
        return (inner for _, inner in self.pairs())

    def feed(self, i: int) -> Feed:
        """The i-th; IndexError when fewer samples select the branch."""
        for n, inner in enumerate(self):
            if n == i:
                return inner
        raise IndexError(i)

    def pairs(self) -> Iterator[tuple[Feed, Feed]]:
        """(inputs of the graph around it, inputs of the branch) for every sample that selects the branch."""
        for outer in self.outer:
            values = {**self.constants, **outer}
            if self.session is not None:
                results = self.session.run_on(outer)
                values.update(zip((s.name for s in self.session.outputs), results, strict=True))
            if bool(np.asarray(values[self.branch.condition]).reshape(-1)[0]) == self.branch.taken_if:
                yield outer, {name: values[name] for name in self.branch.captured}


def quantize_branches(prepared: Prepared, run: Run) -> QuantizedBranches:
    """Quantize the If branches of a canonical model that hold weights, as far as possible.

    Args:
        prepared: the canonical model; not changed.
        run: the conversion of that model, which may be a branch itself.

    Raises:
        DataError: a sample is unusable.
    """
    done = QuantizedBranches(model=prepared.model)
    for branch in weighted_branches(prepared.model):
        place = f"{run.place}/{branch.node}/{branch.attribute}".lstrip("/")
        try:
            done = _quantize_branch(prepared, branch, place, done, run)
        except (DataError, RecipeError):
            raise
        except Exception as error:  # a branch that cannot be quantized is no reason to fail, whatever the reason is
            message = described(error)
            done = replace(done, notes=(*done.notes, f"{place}: nothing there runs on integers: {message[:300]}"))
    return done


def _quantize_branch(
    prepared: Prepared, branch: Branch, place: str, done: QuantizedBranches, run: Run
) -> QuantizedBranches:
    """``done`` with one branch more."""
    recipe = run.recipe
    feeds = branch_feeds(prepared.model, branch, run.samples)
    with run.watch.stage("calibrate"):
        first = next(feeds.pairs(), None)
    if first is None:
        return replace(
            done, notes=(*done.notes, f"{place}: nothing there runs on integers: no calibration sample selects it")
        )
    with run.watch.stage("prepare"):
        otherwise = rewritten(recipe, target_of(recipe.target))
        inner = prepare(extract(prepared.model, branch), first[1], min_opset=prepared.model.opset, rewritten=otherwise)
        inner = parted(inner, recipe)
    within = replace(run, samples=feeds, source=place, place=place)
    nested = quantize_branches(inner, within)
    view = view_of(inner.model)
    own = _selecting(recipe, view, place)
    local = replace(
        recipe,
        placement=ALL if recipe.placement == ALL else STATIC,
        pinned_float=(),
        forms=(),
        include=tuple(n for p in recipe.include for n in own.get(p, ())),
        exclude=tuple(n for p in recipe.exclude for n in own.get(p, ())),
    )
    kept = _all_float(view) if recipe.include and not local.include else {}
    result = convert_and_recover(
        inner, replace(within, recipe=local), base=nested.model, kept_float=kept, required=False
    )
    plans = {**done.plans, place: result.plan, **nested.plans}
    model = done.model
    if any(quantizes(p) for p in (result.plan, *nested.plans.values())):
        model = splice(done.model, branch, result.model)
        session_of(model).run(first[0])
    return QuantizedBranches(
        model=model,
        plans=plans,
        notes=(*done.notes, *nested.notes, *(f"{place}: {n}" for n in (*inner.notes, *result.notes))),
        tensors=done.tensors + nested.tensors + result.calibration.tensors,
        skipped_values=done.skipped_values + nested.skipped_values + result.calibration.skipped_values,
        patterns=done.patterns | nested.patterns | frozenset(own),
    )


def branch_feeds(model: Model, branch: Branch, samples: Feeds) -> BranchFeeds:
    """Feeds of ``branch`` for the samples of ``model``."""
    view = view_of(model)
    needed = dict.fromkeys((branch.condition, *branch.captured))
    computed = [n for n in needed if n not in view.inputs and not view.is_constant(n)]
    return BranchFeeds(
        branch=branch,
        outer=samples,
        session=observer(model, computed) if computed else None,
        constants={n: view.constant(n) for n in needed if view.is_constant(n)},
    )


def _selecting(recipe: Recipe, view: GraphView, place: str) -> dict[str, tuple[str, ...]]:
    """The --include and --exclude patterns that select nodes of ``view``, each with the names of these.

    The nodes of a branch are also known by the names that the report gives them: "If_12/then_branch/conv1".
    """
    found: dict[str, tuple[str, ...]] = {}
    for pattern in (*recipe.include, *recipe.exclude):
        names = [
            name
            for name, node in view.nodes.items()
            if matches(node, pattern) or (place and fnmatch.fnmatchcase(f"{place}/{name}", pattern))
        ]
        if names:
            found[pattern] = tuple(names)
    return found


def _all_float(view: GraphView) -> dict[str, str]:
    return dict.fromkeys(view.nodes, NOT_INCLUDED)

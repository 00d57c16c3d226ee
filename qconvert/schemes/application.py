"""The schemes of a recipe applied to a canonical model, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from qconvert.emit.cleanup import clean, drop_types_of_constants
from qconvert.emit.narrowed import narrow
from qconvert.emit.sites import Kind, find_sites, node_names
from qconvert.errors import InternalError, ModelError
from qconvert.graph.model import Model
from qconvert.graph.prepare.canonical import Prepared
from qconvert.graph.session import Feed
from qconvert.graph.spool import Spool
from qconvert.plan.model import Decision, NodePlan
from qconvert.progress import Progress, Silent
from qconvert.recipe.recipe import Recipe
from qconvert.recover.samples import Samples
from qconvert.schemes.assignment import check_patterns, owner_of
from qconvert.schemes.scheme import SCHEMES, Converted, Work

_NO_WEIGHT = "it has no weight that the scheme stores"


def schemes_of(recipe: Recipe) -> tuple[str, ...]:
    """The schemes in use, the recipe's own last: what it does to all that is left may depend on the others."""
    mixed = [entry.rpartition("=")[2] for entry in recipe.mix]
    others = [name for name in dict.fromkeys(mixed) if name in SCHEMES and name != recipe.scheme]
    return (*others, recipe.scheme)


def least_opset(recipe: Recipe) -> int:
    """The least opset that all schemes of ``recipe`` can work with."""
    return max(SCHEMES.get(name).least_opset(recipe) for name in schemes_of(recipe))


def at_best_opset(recipe: Recipe, source: Model, make: Callable[[int], Prepared]) -> Prepared:
    """``make`` of the opset that the schemes of ``recipe`` like best for ``source``, of the least if that cannot be.

    Raises:
        ModelError: of the latter.
    """
    schemes = [SCHEMES.get(name) for name in schemes_of(recipe)]
    least = least_opset(recipe)
    best = max([least, *(s.opset_for(recipe, source) for s in schemes if s.opset_for is not None)])
    if best > max(least, source.opset):
        with suppress(ModelError):
            return make(best)
    return make(least)


def rewrite(work: Work, names: Sequence[str]) -> tuple[Work, list[Converted]]:
    """(``work`` as the schemes ``names`` leave it, one after the other; what came of each)."""
    done: list[Converted] = []
    for name in names:
        convert = SCHEMES.get(name).convert
        if convert is None:
            raise InternalError(f"{name} rewrites no model")
        done.append(convert(work))
        work = replace(work, model=done[-1].model)
    return work, done


def _nearest(recipe: Recipe, model: Model) -> str:
    """What to do where a scheme finds nothing."""
    kinds = {s.kind for s in find_sites(model)}
    if recipe.scheme == "dynamic" and Kind.CONVOLUTION in kinds and not (recipe.include or recipe.exclude):
        return "--scheme w8 stores filters in 8 bits at float speed; --scheme int8 with --calib runs them on integers"
    return "`qconvert inspect MODEL` shows what the model holds"


def apply(
    prepared: Prepared,
    recipe: Recipe,
    samples: Samples | None = None,
    trials: Sequence[Feed] = (),
    spool: Spool | None = None,
    progress: Progress | None = None,
) -> Converted:
    """The model as ``recipe`` wants it, tidied up, with a decision for every node.

    Args:
        prepared: the canonical model, at :func:`least_opset` or above; not changed.
        recipe: the choices, of which :func:`~qconvert.schemes.scheme.check_combination` approves.
        samples: calibration samples, if there are any.
        trials: some inputs, perhaps made up, on which the model runs.
        spool: where large weights are kept until the model is written; None: in memory.
        progress: told what goes on.

    Raises:
        ModelError: there is nothing to convert.
        RecipeError: a pattern selects no node.
    """
    names = node_names(prepared.model)
    check_patterns(recipe, names)
    work = Work(
        model=prepared.model,
        recipe=recipe,
        owner=owner_of(recipe),
        samples=samples,
        trials=trials,
        spool=spool,
        progress=progress or Silent(),
    )
    work, done = rewrite(work, schemes_of(recipe))
    nodes = {n: NodePlan(node=n, op_type=op, decision=Decision(taken=False, reason=_NO_WEIGHT)) for n, op in names}
    for converted in done:
        nodes.update(converted.nodes)
    if not any(n.decision.taken for n in nodes.values()):
        reasons = dict.fromkeys(f"{n.op_type}: {n.decision.reason}" for c in done for n in c.nodes.values())
        listed = "; ".join(list(reasons)[:5]) or "it holds no float weights worth it"
        raise ModelError(
            f"{prepared.source.path}: nothing for {recipe.scheme} to convert ({listed})",
            hint=_nearest(recipe, work.model),
        )
    model = clean(work.model, prepared.source)
    narrow(model, prepared.model, prepared.source, spool)
    drop_types_of_constants(model)
    return Converted(
        model=model,
        nodes=nodes,
        notes=tuple(note for c in done for note in c.notes),
        method=next((c.method for c in reversed(done) if c.method), ""),
        samples=max(c.samples for c in done),
    )

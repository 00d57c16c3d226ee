"""A static scheme mixed with others: the others' nodes stay out of the static plan, and are rewritten behind it.

    canonical model -> plan, calibrate, recover, emit, without the nodes of others -> QDQ model -> each other scheme

So ranges are those of the float model, and what rounds by the inputs that it sees (gptq, smoothing) sees them as they
are in the quantized one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from qconvert.branches import QuantizedBranches
from qconvert.conversion import Quantized
from qconvert.emit.cleanup import clean, drop_types_of_constants
from qconvert.emit.narrowed import narrow
from qconvert.emit.sites import node_names
from qconvert.errors import InternalError, ModelError
from qconvert.graph.infer import infer_types
from qconvert.graph.model import Model
from qconvert.graph.session import Feed
from qconvert.graph.signature import session_of
from qconvert.progress import Progress
from qconvert.recipe.recipe import STATIC_SCHEMES, Recipe
from qconvert.recover.samples import Samples
from qconvert.schemes.application import rewrite, schemes_of
from qconvert.schemes.assignment import FLOAT, check_patterns, owner_of
from qconvert.schemes.scheme import Work


def with_static_first(recipe: Recipe) -> Recipe:
    """``recipe`` with a static scheme, if it has one, as its own, and what was its own mixed in for the rest."""
    static = [name for name in schemes_of(recipe) if name in STATIC_SCHEMES]
    if not static or recipe.scheme in STATIC_SCHEMES:
        return recipe
    return replace(recipe, scheme=static[0], mix=(f"*={recipe.scheme}", *recipe.mix))


def nodes_of_others(model: Model, recipe: Recipe) -> dict[str, str]:
    """Nodes of ``model`` that the recipe's own scheme must leave alone: name -> why.

    Raises:
        RecipeError: a pattern selects no node.
    """
    if not recipe.mix:
        return {}
    names = node_names(model)
    check_patterns(replace(recipe, include=(), exclude=()), names)
    owner = owner_of(recipe)
    owners = {name: owner(name, op_type) for name, op_type in names}
    return {
        name: "kept in float by --mix" if who == FLOAT else f"left to {who}"
        for name, who in owners.items()
        if who not in STATIC_SCHEMES
    }


def branches_of_others(model: Model, others: Mapping[str, str]) -> QuantizedBranches | None:
    """No quantized branches, where nodes of control-flow bodies are among ``others``; None where none are."""
    inside = {name for name, _ in node_names(model)} - {n.name for n in model.ir.graph}
    if not inside & set(others):
        return None
    note = "weights in control-flow bodies are left to the schemes that are mixed in"
    return QuantizedBranches(model=model, notes=(note,))


def with_others(
    quantized: Quantized, recipe: Recipe, samples: Samples | None, trials: Sequence[Feed], progress: Progress
) -> Quantized:
    """``quantized`` with the nodes of the other schemes of ``recipe`` rewritten.

    Raises:
        InternalError: ONNX Runtime refuses the result.
    """
    others = [name for name in schemes_of(recipe) if name not in STATIC_SCHEMES]
    if not others:
        return quantized
    typed = quantized.model.clone()
    infer_types(typed)
    work = Work(model=typed, recipe=recipe, owner=owner_of(recipe), samples=samples, trials=trials, progress=progress)
    work, done = rewrite(work, others)
    model = clean(work.model, quantized.prepared.source)
    narrow(model, quantized.prepared.model, quantized.prepared.source)
    drop_types_of_constants(model)
    try:
        session = session_of(model)
        session.run(trials[0])
    except ModelError as error:
        raise InternalError(
            f"ONNX Runtime refuses the model with {', '.join(others)} mixed in: {error.message}",
            hint="leave the operator named above in float (--mix NAME=float); attach the model to a report",
        ) from error
    nodes = dict(quantized.plan.nodes)
    for converted in done:
        nodes.update((name, plan) for name, plan in converted.nodes.items() if name in nodes or plan.decision.taken)
    notes = [
        f"{name}: {sum(n.decision.taken for n in c.nodes.values())} operators"
        for name, c in zip(others, done, strict=True)
    ]
    return replace(
        quantized,
        model=model,
        session=session,
        plan=replace(quantized.plan, nodes=nodes),
        notes=(*quantized.notes, f"mixed in: {', '.join(notes)}", *(note for c in done for note in c.notes)),
    )

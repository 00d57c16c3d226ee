"""Which nodes are written in another form than between Q/DQ pairs (:mod:`qconvert.forms`), and which could be.

A dynamic node reads no quantized tensor: its plan keeps the weight and names no activations, and a tensor that nothing
else reads as codes is quantized no longer. So calibration, recovery and emission see of it what there is.
"""

from __future__ import annotations

import glob
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from qconvert.errors import InternalError, RecipeError
from qconvert.forms import (
    ACTIVATION,
    BOUNDED,
    CHANNELS_LAST,
    DYNAMIC,
    FOLDED,
    FORMS,
    FUSED,
    ONE_SCALE,
    PLAIN,
    TITLES,
    TWO_BYTES,
    UNPROFILED,
    WIDENED,
)
from qconvert.graph.view import GraphView, NodeView
from qconvert.numerics.dtypes import INT8, INT16, UINT8
from qconvert.numerics.spec import PerTensor
from qconvert.ops.rule import Role, key, rule_of
from qconvert.plan.activations import activation_at, argument_of
from qconvert.plan.candidates import matches, matches_inside
from qconvert.plan.dynamic import is_stored, leaves_integers, lstm_objection, stored_objection
from qconvert.plan.folding import Fold, fold_of
from qconvert.plan.model import Decision, NodePlan, QuantPlan, WeightPlan
from qconvert.plan.widening import with_widening
from qconvert.recipe.recipe import MEASURED, PINNED, Recipe
from qconvert.registry import suggest
from qconvert.targets.target import Target

# The heart of an activation function that ONNX Runtime's CPU provider makes no one operator of in float, either (1.32).
_UNKNOWN_IN_FLOAT = "Tanh"


def with_forms(graph: GraphView, plan: QuantPlan, recipe: Recipe, target: Target) -> QuantPlan:
    """``plan`` with the forms of ``recipe`` on every node that they fit and that can take them.

    Convolutions of which it says nothing are folded, or get more channels, where the target's costs say that this is
    faster.

    Args:
        graph: the canonical graph that ``plan`` is for.
        plan: with numbers or without; nodes in no form.
        recipe: names the forms.
        target: has them or not.

    Raises:
        RecipeError: a pattern fits no node, or none that has the form on ``target``.
    """
    said = _wanted(graph, recipe, target) if recipe.forms else {}
    wanted = {**dict.fromkeys(_paying_folds(graph, plan, target), FOLDED), **said}
    nodes = dict(plan.nodes)
    for name, form in wanted.items():
        in_float = form in (BOUNDED, ACTIVATION)
        in_float |= form == DYNAMIC and leaves_integers(plan.nodes[name])
        if form in (PLAIN, WIDENED, plan.nodes[name].form) or (not in_float and name in recipe.pinned_float):
            continue
        if form_objection(graph, plan, target, name, form):
            continue
        if form == ACTIVATION:
            takes = activation_at(graph, graph.nodes[name])
            nodes.update({n: _in_float(nodes[n], takes if n == name else ()) for n in takes})
        elif form == FOLDED:
            nodes[name] = _folded(graph, nodes[name], target)
        elif form == CHANNELS_LAST:
            nodes[name] = _told(nodes[name], form)
        else:
            nodes[name] = _formed(graph, nodes[name], form)
    for form, objection in ((ONE_SCALE, _has_one_scale), (TWO_BYTES, _not_stored)):
        for name in _beside(graph, recipe, target, form) if recipe.forms else ():
            if not objection(nodes[name]):
                nodes[name] = _told(nodes[name], form)
    read = {t for n in nodes.values() for t in (*n.read_tensors, *n.quantized_outputs)}
    groups = tuple(g for g in plan.groups if read.intersection(g.tensors))
    plan = replace(plan, nodes=nodes, groups=groups)
    return with_widening(graph, plan, target.convolutions, said) if WIDENED in target.capability("Conv").forms else plan


def able(graph: GraphView, plan: QuantPlan, recipe: Recipe, target: Target) -> dict[str, tuple[str, ...]]:
    """Form -> the nodes that could take it and of which ``recipe`` says nothing, in graph order.

    Convolutions and pools are not among them: what the target says of their shape decides, and what becomes of them.
    Nor are dynamic forms of operators in float, which accuracy decides (:mod:`qconvert.plan.dynamic`).
    """
    measured = (f for f in FORMS if f != PLAIN and f not in UNPROFILED)
    found = {form: takers(graph, plan, recipe, target, form) for form in measured}
    found[DYNAMIC] = tuple(n for n in found[DYNAMIC] if _may_gain(plan.nodes[n]))
    return {form: names for form, names in found.items() if names}


def _may_gain(decided: NodePlan) -> bool:
    """Whether its dynamic form may be faster than what it is in. A Gemm has its bias on integers as it is."""
    return decided.second is not None or (decided.op_type == "MatMul" and not is_stored(decided))


def takers(graph: GraphView, plan: QuantPlan, recipe: Recipe, target: Target, form: str) -> tuple[str, ...]:
    """The nodes that could take ``form`` and of whose form ``recipe`` says nothing, in graph order."""
    said = set[str]()
    if recipe.forms:
        said.update(_beside(graph, recipe, target, form) if form == ONE_SCALE else _wanted(graph, recipe, target))
    return tuple(n for n in graph.nodes if n not in said and not form_objection(graph, plan, target, n, form))


def parts_of(graph: GraphView, name: str, form: str) -> tuple[str, ...]:
    """The nodes that become one if the node ``name`` takes ``form``, where there are others than itself."""
    return activation_at(graph, graph.nodes[name]) if form == ACTIVATION else ()


def fits_float(graph: GraphView, name: str, form: str) -> bool:
    """Whether the node ``name`` in ``form`` is what it might be between float operators, too."""
    return form == BOUNDED or (form == ACTIVATION and graph.nodes[name].op_type == _UNKNOWN_IN_FLOAT)


def open_products(graph: GraphView, plan: QuantPlan, recipe: Recipe, target: Target) -> frozenset[str]:
    """The MatMuls that could be written in the fused form if only something added a bias to them, and of whose form
    ``recipe`` says nothing: a bias costs them no node. None under a placement that has no forms of its own.

    Keys and values are not among them: attention does without their biases (graph/prepare/attention.py).
    """
    if recipe.placement not in (MEASURED, PINNED):
        return frozenset()
    said = set(_wanted(graph, recipe, target)) if recipe.forms else set()
    return frozenset(
        name
        for name, node in graph.nodes.items()
        if name not in said
        and not plan.nodes[name].form
        and not _no_product(graph, plan, target, name, FUSED)
        and added(graph, node) is None
        and not _makes_keys_or_values(graph, node)
    )


def _makes_keys_or_values(graph: GraphView, product: NodeView) -> bool:
    """Whether its result, in another shape, is the right operand of a product of two activations."""
    tensor = product.outputs[0]
    while not graph.tensors[tensor].is_output and len(readers := graph.consumers(tensor)) == 1:
        node, port = readers[0]
        if node.op_type == "MatMul":
            return port == 1
        if node.op_type not in ("Reshape", "Transpose") or port != 0:
            return False
        tensor = node.outputs[0]
    return False


def entries(forms: Mapping[str, str]) -> tuple[str, ...]:
    """The entries of a recipe for node -> form."""
    return tuple(f"{glob.escape(name)}={form}" for name, form in forms.items())


def without(listed: Sequence[str], names: Iterable[str], form: str) -> tuple[str, ...]:
    """``listed``, entries of a recipe, but for those that give ``form`` to one of ``names``."""
    gone = entries(dict.fromkeys(names, form))
    return tuple(entry for entry in listed if entry not in gone)


def form_objection(graph: GraphView, plan: QuantPlan, target: Target, name: str, form: str) -> str:
    """Why the node ``name`` of ``plan`` cannot take ``form``; "" if it can."""
    node, decided = graph.nodes[name], plan.nodes[name]
    if form == BOUNDED:
        return _no_form(target, node, form) or _unbounded(graph, node, decided)
    if form == ACTIVATION:
        return _no_form(target, node, form) or _no_activation(graph, plan, node)
    if form == FOLDED:
        return _no_form(target, node, form) or _no_fold(graph, plan, target, node)
    if form == ONE_SCALE:
        return _no_form(target, node, form) or _has_one_scale(decided)
    if form == TWO_BYTES:
        return _no_form(target, node, form) or _not_stored(decided)
    if form == CHANNELS_LAST:
        return _no_form(target, node, form) or _not_turned(graph, plan, decided)
    if node.op_type == "LSTM":
        return _no_form(target, node, form) or lstm_objection(node, decided)
    if form == DYNAMIC and leaves_integers(decided):
        return _no_form(target, node, form) or stored_objection(graph, decided)
    if objection := _no_product(graph, plan, target, name, form):
        return objection
    if form == FUSED:
        return "" if added(graph, node) is not None else "nothing adds a bias to it"
    if any(node.inputs[0] in n.quantized_outputs for n in plan.nodes.values()):
        return "its input is made by an integer operator"
    return ""


def _not_stored(decided: NodePlan) -> str:
    return "" if is_stored(decided) else "it does not compute in float with a weight that is stored as integers"


def _no_form(target: Target, node: NodeView, form: str) -> str:
    has = form in _forms_of(target, node)
    return "" if has else f"{node.op_type} has no form {form!r} on {target.title}"


def _no_product(graph: GraphView, plan: QuantPlan, target: Target, name: str, form: str) -> str:
    """Why the node ``name`` is no integer product of bytes with a float result, which ``form`` is for; "" if it is."""
    node, decided = graph.nodes[name], plan.nodes[name]
    if objection := _no_form(target, node, form):
        return objection
    if not decided.decision.taken or decided.weight is None or decided.activations != (0,):
        return "it does not multiply quantized activations with an integer weight"
    if decided.quantized_outputs:
        return "its result is quantized"
    if graph.tensors[node.inputs[1] or ""].rank != 2:
        return "its weight is no matrix"
    source = node.inputs[0] or ""
    codes = (decided.weight.spec, *(g.spec for g in plan.groups if source in g.tensors))
    if any(spec.qtype.bits != 8 for spec in codes):
        return "it does not multiply bytes"
    return ""


def added(graph: GraphView, product: NodeView) -> str | None:
    """The Add that alone reads ``product``, and adds a constant to it that is [N], or has ones in front."""
    if product.op_type != "MatMul":
        return None
    out = graph.tensors[product.outputs[0]]
    if out.is_output or out.captured or len(out.consumers) != 1:
        return None
    add, port = graph.consumers(out.name)[0]
    bias = add.input(1 - port)
    if add.op_type != "Add" or add.domain not in ("", "ai.onnx") or not graph.is_constant(bias):
        return None
    shape, columns = (
        graph.tensors[bias or ""].shape or (),
        (graph.tensors[product.inputs[1] or ""].shape or (None,))[-1],
    )
    ones = all(d == 1 for d in shape[:-1])
    if not shape or shape[-1] != columns or not ones or len(shape) > (out.rank or 0):
        return None
    return add.name


def _no_activation(graph: GraphView, plan: QuantPlan, node: NodeView) -> str:
    nodes = activation_at(graph, node)
    if not nodes:
        return "it is of no activation function that is one operator"
    if node.op_type == _UNKNOWN_IN_FLOAT:
        return ""
    made = any(argument_of(graph, nodes) in n.quantized_outputs for n in plan.nodes.values())
    return "" if made else "its input is made by a float operator"


def _no_fold(graph: GraphView, plan: QuantPlan, target: Target, node: NodeView) -> str:
    decided = plan.nodes[node.name]
    if not decided.decision.taken or decided.weight is None or not decided.activations:
        return "it does not run on integers with a constant weight"
    source = next(g.spec.qtype for g in plan.groups if decided.read_tensors[0] in g.tensors)
    if source != UINT8 or decided.weight.spec.qtype != INT8 or not decided.weight.spec.symmetric:
        return "the faster kernel is for unsigned bytes by symmetric signed ones"
    makers = [decided, *(n for n in plan.nodes.values() if n.absorbed_into == node.name)]
    if not any(n.quantized_outputs for n in makers):
        return "its result is not quantized"
    return (
        ""
        if _fold(graph, node, target) is not None
        else "it has enough channels, or its rows are of no known size that can be folded"
    )


def _has_one_scale(decided: NodePlan) -> str:
    if not decided.multiplies or decided.weight is None:
        return "it does not run on integers with a constant weight"
    return "its weight has one scale anyway" if decided.weight.spec.axis is None else ""


def _not_turned(graph: GraphView, plan: QuantPlan, decided: NodePlan) -> str:
    if not decided.decision.taken or decided.activations != (0,) or len(decided.quantized_outputs) != 1:
        return "it does not run on integers"
    if graph.tensors[decided.read_tensors[0]].rank != 4:
        return "it has no two dimensions beside channels"
    return "its codes have 16 bits" if plan.is_wide(decided) else ""


def _fold(graph: GraphView, node: NodeView, target: Target) -> Fold | None:
    return fold_of(graph, node, target.convolutions)


def _paying_folds(graph: GraphView, plan: QuantPlan, target: Target) -> list[str]:
    """The convolutions that are faster folded."""
    folds = {name: _fold(graph, node, target) for name, node in graph.nodes.items()}
    paying = [name for name, fold in folds.items() if fold is not None and fold.pays]
    return [name for name in paying if not form_objection(graph, plan, target, name, FOLDED)]


def _unbounded(graph: GraphView, node: NodeView, decided: NodePlan) -> str:
    source = graph.tensors[node.inputs[0] or ""]
    if decided.decision.taken or not source.is_float or source.is_constant:
        return "it computes on integers, or on no float32 values"
    if graph.opset < 13 or source.rank is None or node.attr_int("axis", -1) not in (-1, source.rank - 1):
        return "it does not run along the last axis"
    return ""


def _wanted(graph: GraphView, recipe: Recipe, target: Target) -> dict[str, str]:
    """Node -> the form that ``recipe`` wants for it, but for its weight; the last entry that fits decides."""
    found: dict[str, str] = {}
    for names, form in _entries(graph, recipe, target):
        found.update(dict.fromkeys(names if form not in (ONE_SCALE, TWO_BYTES) else (), form))
    return {n: found[n] for n in graph.nodes if n in found}


def _beside(graph: GraphView, recipe: Recipe, target: Target, wanted: str) -> tuple[str, ...]:
    """The nodes whose weights are to have ``wanted``, one scale or two bytes, by ``recipe``, in whatever form."""
    found = set[str]()
    for names, form in _entries(graph, recipe, target):
        if form == wanted:
            found.update(names)
        elif form == PLAIN:
            found.difference_update(names)
    return tuple(n for n in graph.nodes if n in found)


def _entries(graph: GraphView, recipe: Recipe, target: Target) -> list[tuple[list[str], str]]:
    """(nodes, form) of the entries of ``recipe``, those of control-flow bodies left out."""
    found: list[tuple[list[str], str]] = []
    for entry in recipe.forms:
        pattern, _, form = entry.rpartition("=")
        fits = [n for n, node in graph.nodes.items() if matches(node, pattern) or n == pattern]
        if not fits and matches_inside(graph, pattern):
            continue  # of bodies, which are not this plan's
        if not fits:
            names = sorted({n.op_type for n in graph.nodes.values()} | set(graph.nodes))
            raise RecipeError(f"forms: {pattern!r} matches no node", hint=suggest(pattern, names[:40]))
        having = [n for n in fits if form == PLAIN or form in _forms_of(target, graph.nodes[n])]
        if not having:
            raise RecipeError(
                f"forms: no operator that {pattern!r} matches has the form {form!r} on {target.title}",
                hint=_hint(target, form),
            )
        found.append((having, form))
    return found


def _forms_of(target: Target, node: NodeView) -> tuple[str, ...]:
    rule, own = rule_of(node), target.capability(key(node.domain, node.op_type)).forms
    return (*own, TWO_BYTES) if rule is not None and rule.ports(Role.WEIGHT, node) else own


def _hint(target: Target, form: str) -> str:
    ops = [op for op, c in target.capabilities.items() if form in c.forms]
    return f"operators that have it: {', '.join(ops)}" if ops else f"{target.title} has no such form"


def _formed(graph: GraphView, plan: NodePlan, form: str) -> NodePlan:
    if form == BOUNDED:
        decision = replace(plan.decision, reason=f"{plan.decision.reason}; {TITLES[form]}")
        return replace(plan, form=form, decision=decision)
    decision = replace(plan.decision, reason=f"integer kernel, {TITLES[form]}")
    plan = replace(plan, form=form, decision=decision, adds=added(graph, graph.nodes[plan.node]))
    return replace(plan, activations=(), read_tensors=()) if form == DYNAMIC else plan


def _told(plan: NodePlan, form: str) -> NodePlan:
    decision = replace(plan.decision, reason=f"{plan.decision.reason}, {TITLES[form]}")
    if form not in (ONE_SCALE, TWO_BYTES):
        return replace(plan, form=form, decision=decision)

    def changed(weight: WeightPlan | None) -> WeightPlan | None:
        if weight is None:
            return None
        spec = weight.spec
        spec = replace(spec, qtype=INT16) if form == TWO_BYTES else replace(spec, granularity=PerTensor())
        return replace(weight, spec=spec)

    return replace(plan, weight=changed(plan.weight), second=changed(plan.second), decision=decision)


def _folded(graph: GraphView, plan: NodePlan, target: Target) -> NodePlan:
    fold = _fold(graph, graph.nodes[plan.node], target)
    if fold is None:
        raise InternalError(f"{plan.node} cannot be folded, though nothing was said against it")
    how = f"{fold.pixels} {TITLES[FOLDED]}" if fold.pixels > 1 else "groups as one"
    decision = replace(plan.decision, reason=f"{plan.decision.reason}, {how}")
    return replace(plan, form=FOLDED, fold=fold, decision=decision)


def _in_float(plan: NodePlan, takes: tuple[str, ...]) -> NodePlan:
    decision = Decision(taken=False, reason=TITLES[ACTIVATION])
    return NodePlan(node=plan.node, op_type=plan.op_type, decision=decision, form=ACTIVATION, takes=takes)

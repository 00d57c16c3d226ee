"""A conversion, and again without what ONNX Runtime did not fuse, as long as that leaves fewer conversions.

A QuantizeLinear/DequantizeLinear pair around an operator is meant to disappear into an integer kernel. Where it does
not, the operator runs in float between two conversions, its weights are unpacked at every run, and it is slower than
before. Such an operator goes back to float in the plan, which then says what is true, and all stages from planning on
run again: its neighbours may be better off in float, too.

What stands is read from the optimized graph (:mod:`qconvert.diagnose.standing`), so no list of unfusable forms has to
be kept for each version of ONNX Runtime.

So it is with pools of bytes whose channels ONNX Runtime leaves first: they are written with channels last
(:mod:`qconvert.forms`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from types import MappingProxyType

from qconvert.conversion import Quantized, convert
from qconvert.diagnose.standing import Leftovers, channels_first, leftovers
from qconvert.errors import ModelError
from qconvert.forms import CHANNELS_LAST
from qconvert.graph.build_view import view_of
from qconvert.graph.model import Model
from qconvert.graph.optimized import optimized_view
from qconvert.graph.prepare.canonical import Prepared
from qconvert.plan.forms import entries, takers
from qconvert.recipe.recipe import ALL
from qconvert.recipe.resolve import types_for
from qconvert.run import Run
from qconvert.targets.auto import target_of

# Sending a node back can bring others to light, which were in its middle; no network needed more than two rounds.
MAX_ROUNDS = 4

_ORT = f"ONNX Runtime {version('onnxruntime')}"


def convert_and_repair(
    prepared: Prepared,
    run: Run,
    *,
    base: Model | None = None,
    kept_float: Mapping[str, str] = MappingProxyType({}),
    required: bool = True,
) -> Quantized:
    """:func:`qconvert.conversion.convert`, with nothing on integers that ONNX Runtime does not fuse.

    Arguments and errors are the same. With ``placement: all`` the plan stays as it is: whoever asks for everything on
    integers gets it. So it does for targets that are not ONNX Runtime's CPU provider, and with int8
    or 16-bit activations where that does not fuse them: who asks for these has another machine in mind.
    """
    result = convert(prepared, run, base=base, kept_float=kept_float, required=required)
    target = target_of(run.recipe.target)
    if run.recipe.placement == ALL or not target.host:  # what fuses here says nothing about another runtime
        return result
    types = types_for(run.recipe, target)
    if types.wide or (types.activations == "int8" and not target.fuses_int8):
        return result
    result, kept, sent_back = _fused(result, prepared, run, base, kept_float, required)
    pools = _channels_first(result, run)
    if pools:
        forms = (*entries(dict.fromkeys(pools, CHANNELS_LAST)), *run.recipe.forms)
        turned = replace(run, recipe=replace(run.recipe, forms=forms))
        result = convert(prepared, turned, base=base, kept_float=kept, required=required)
    return replace(result, notes=(*result.notes, _note(result, sent_back))) if sent_back else result


def _fused(
    result: Quantized,
    prepared: Prepared,
    run: Run,
    base: Model | None,
    kept_float: Mapping[str, str],
    required: bool,
) -> tuple[Quantized, Mapping[str, str], tuple[str, ...]]:
    """(``result``, or one without what does not fuse; the nodes that stay float in it; those that went back)."""
    fuses_int8 = target_of(run.recipe.target).fuses_int8
    tried, left = result, _leftovers(result, run, fuses_int8)
    best, kept = left, dict(kept_float)
    kept_so: Mapping[str, str] = kept_float
    for _ in range(MAX_ROUNDS):
        if not left.standing:
            break
        kept.update({s.node: f"{_ORT} does not fuse it: {s.how}" for s in left.standing})
        try:
            tried = convert(prepared, run, base=base, kept_float=kept, required=required)
        except ModelError:  # nothing else is worth quantizing
            break
        left = _leftovers(tried, run, fuses_int8)
        if _better(left, best):
            result, best, kept_so = tried, left, dict(kept)
    return result, kept_so, tuple(n for n in kept_so if n not in kept_float)


def _channels_first(result: Quantized, run: Run) -> tuple[str, ...]:
    """The planned pools that can be written with channels last and that ONNX Runtime leaves with channels first."""
    target = target_of(run.recipe.target)
    graph = view_of(result.prepared.model)
    able = takers(graph, result.plan, run.recipe, target, CHANNELS_LAST)
    if not able:
        return ()
    with run.watch.stage("verify"):
        optimized = optimized_view(result.model, int8=target.fuses_int8, layouts=True)
    return tuple(sorted(channels_first(optimized) & set(able)))


def _leftovers(result: Quantized, run: Run, fuses_int8: bool) -> Leftovers:
    with run.watch.stage("verify"):
        left = leftovers(view_of(result.model), optimized_view(result.model, int8=fuses_int8), result.plan)
    plan = result.plan
    narrow = tuple(s for s in left.standing if not plan.is_wide(plan.nodes[s.node]))
    return replace(left, standing=narrow)


def _better(after: Leftovers, before: Leftovers) -> bool:
    """Fewer conversions, or as many and fewer operators that a plan is wrong about."""
    counts = [(x.conversions, len(x.standing)) for x in (after, before)]
    return counts[0] < counts[1] and len(after.standing) <= len(before.standing)


def _note(result: Quantized, sent_back: Sequence[str]) -> str:
    named = ", ".join(f"{name} ({result.plan.nodes[name].op_type})" for name in sent_back)
    one = len(sent_back) == 1
    return (
        f"{len(sent_back)} operator{'' if one else 's'} went back to float, because {_ORT} does not fuse "
        f"{'it' if one else 'them'}: {named}"
    )

"""The stages of a quantization, one after another, on a case; and the schemes that every case goes through."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from conformance.bounds import Bounds
from conformance.case import Case
from numpy.typing import NDArray
from onnx_ir.passes.common import NameFixPass

from qconvert.calibrate.collect import collect
from qconvert.calibrate.method import METHODS
from qconvert.calibrate.solve import requests_for, solve
from qconvert.emit.cleanup import clean
from qconvert.emit.qdq import emit_qdq
from qconvert.emit.qoperator import lower_to_qoperator
from qconvert.graph.build_view import view_of
from qconvert.graph.infer import infer_types
from qconvert.graph.model import Model
from qconvert.graph.prepare.canonical import prepare
from qconvert.graph.signature import session_of
from qconvert.graph.view import GraphView
from qconvert.plan.build import build_plan
from qconvert.plan.model import QuantPlan
from qconvert.recipe.recipe import Recipe
from qconvert.targets.auto import target_of

Arrays = dict[str, NDArray[np.generic]]


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """How to quantize, and at which opset: "oldest" and so on of the opsets of the case."""

    name: str
    opset: int
    recipe: Recipe

    def opset_of(self, case: Case) -> int:
        """The opset of ``case`` that comes ``opset``-th, from the end when negative."""
        return case.opsets[min(self.opset, len(case.opsets) - 1)]


def _scheme(opset: int, activations: str, *, symmetric: bool, per_channel: bool, weights: str = "int8") -> Scheme:
    kind = activations + ("-symmetric" if symmetric else "") + (f"-{weights}" if weights != "int8" else "")
    recipe = Recipe(
        target="x86-vnni",
        placement="all",
        activations=activations,
        symmetric=symmetric,
        per_channel=per_channel,
        weights=weights,
    )
    return Scheme(name=f"{kind}-{'channel' if per_channel else 'tensor'}", opset=opset, recipe=recipe)


# Every kind of activation meets every granularity, and every opset every kind of activation.
SCHEMES = (
    _scheme(2, "uint8", symmetric=False, per_channel=True),
    _scheme(0, "uint8", symmetric=False, per_channel=False),
    _scheme(1, "int8", symmetric=True, per_channel=True),
    _scheme(2, "int8", symmetric=True, per_channel=False),
    _scheme(0, "int8", symmetric=False, per_channel=True),
    _scheme(2, "int8", symmetric=False, per_channel=False),
    _scheme(1, "uint8", symmetric=True, per_channel=True, weights="uint8"),
)


@dataclass(frozen=True, kw_only=True)
class Fp32:
    """A case at one opset before quantization: all tensors of the canonical model, outputs of the source."""

    source: Model
    model: Model
    graph: GraphView
    values: Arrays
    outputs: Arrays


_cache: dict[tuple[str, int], Fp32] = {}


def in_float(case: Case, opset: int) -> Fp32:
    """Prepare ``case`` and run it in float; the last few are kept, because several schemes ask for one."""
    key = (case.name, opset)
    if key not in _cache:
        while len(_cache) >= 8:
            _cache.pop(next(iter(_cache)))
        _cache[key] = _in_float(case, opset)
    return _cache[key]


def _in_float(case: Case, opset: int) -> Fp32:
    source = Model(ir=ir.from_proto(case.model(opset)))
    feed = case.feed()
    session = session_of(source, threads=1, optimize=False)
    outputs = dict(zip(case.outputs, session.run(feed, list(case.outputs)), strict=True))
    model = prepare(source, feed).model if case.simplify else _named(source)
    graph = view_of(model)
    made = [t for n in graph.nodes.values() for t in n.outputs if t]
    values = dict(zip(made, session_of(model, threads=1, optimize=False, outputs=made).run(feed, made), strict=True))
    values.update(feed)
    values.update({n: graph.constant(n) for n, t in graph.tensors.items() if t.is_constant})
    return Fp32(source=source, model=model, graph=graph, values=values, outputs=outputs)


def _named(source: Model) -> Model:
    """The least that the planner needs: names and types."""
    model = source.clone()
    NameFixPass()(model.ir)
    infer_types(model)
    return model


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """What became of a case."""

    plan: QuantPlan
    qdq: Model
    qoperator: Model


def quantize(reference: Fp32, recipe: Recipe, feed: Arrays) -> Quantized:
    """Every stage on ``reference``, calibrated by min-max on ``feed``."""
    target = target_of(recipe.target)
    method = METHODS.get("minmax")
    plan = build_plan(reference.graph, recipe, target)
    stats = collect(reference.model, requests_for(plan, method), [feed]).table
    plan = solve(plan, stats, method, reference.graph.constant)
    qdq = clean(emit_qdq(reference.model, plan, target).model, reference.source)
    return Quantized(plan=plan, qdq=qdq, qoperator=clean(lower_to_qoperator(qdq), reference.source))


def bounds(reference: Fp32, plan: QuantPlan, *, kernels: bool) -> Bounds:
    """The bounds of every tensor of ``reference`` under ``plan``."""
    return Bounds(model=reference.model, graph=reference.graph, plan=plan, values=reference.values, kernels=kernels)


def run(model: Model, feed: Arrays, outputs: tuple[str, ...], *, optimize: bool) -> Arrays:
    """The outputs of ``model``."""
    session = session_of(model, threads=1, optimize=optimize)
    return dict(zip(outputs, session.run(feed, list(outputs)), strict=True))

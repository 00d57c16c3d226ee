"""The stages of a conversion, one after another, as the command runs them, without what comes after emission."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx

from networks.builder import Network
from qconvert.calibrate.collect import collect
from qconvert.calibrate.method import METHODS
from qconvert.calibrate.solve import requests_for, solve
from qconvert.emit.cleanup import clean
from qconvert.emit.qdq import emit_qdq
from qconvert.emit.qoperator import lower_to_qoperator
from qconvert.graph.build_view import view_of
from qconvert.graph.model import load
from qconvert.graph.prepare.canonical import Prepared, prepare
from qconvert.plan.build import build_plan
from qconvert.plan.model import QuantPlan
from qconvert.recipe.recipe import Recipe
from qconvert.targets import TARGETS

RECIPES = {
    "default": Recipe(),
    "per_tensor": Recipe(per_channel=False),
    "qoperator": Recipe(format="qoperator"),
    "all": Recipe(placement="all"),
}


@dataclass(frozen=True, kw_only=True)
class Result:
    """What came of one conversion."""

    prepared: Prepared
    plan: QuantPlan
    proto: onnx.ModelProto
    blob: bytes


def convert(net: Network, recipe: Recipe, folder: Path) -> Result:
    """Write ``net`` to a file and convert it by ``recipe``."""
    path = folder / "model.onnx"
    path.write_bytes(net.proto.SerializeToString())
    return convert_file(path, net.feeds, recipe)


def convert_file(path: Path, feeds, recipe: Recipe) -> Result:
    source = load(path)
    prepared = prepare(source, feeds[0], min_opset=13 if recipe.per_channel else 10)
    view, target = view_of(prepared.model), TARGETS.get(recipe.target)
    method = METHODS.get(recipe.method)
    plan = build_plan(view, recipe, target)
    stats = collect(prepared.model, requests_for(plan, method), feeds)
    plan = solve(plan, stats, method, view.constant)
    model = emit_qdq(prepared.model, plan, target).model
    if recipe.format == "qoperator":
        model = clean(model, source)
        model = lower_to_qoperator(model, plan)
    model = clean(model, source)
    blob = model.to_bytes()
    return Result(prepared=prepared, plan=plan, proto=onnx.load_from_string(blob), blob=blob)

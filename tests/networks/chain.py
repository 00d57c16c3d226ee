"""The stages of a conversion, one after another, as the command runs them, without what comes after emission."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from networks.builder import Feed, Network

from qconvert.calibrate.collect import collect
from qconvert.calibrate.method import METHODS
from qconvert.calibrate.solve import requests_for, solve
from qconvert.conversion import emit, parted
from qconvert.graph.build_view import view_of
from qconvert.graph.model import load
from qconvert.graph.prepare.canonical import Prepared, prepare
from qconvert.plan.build import build_plan
from qconvert.plan.model import QuantPlan
from qconvert.recipe.recipe import Recipe
from qconvert.schemes.application import least_opset
from qconvert.targets.auto import target_of

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


_last: dict[tuple[bytes, int], Prepared] = {}
_written: list[Path] = []


def convert(net: Network, recipe: Recipe, folder: Path, *, anew: bool = False) -> Result:
    """Write ``net`` to a file and convert it by ``recipe``; prepared once unless ``anew``."""
    blob = net.proto.SerializeToString()
    key = (blob, least_opset(recipe))
    if anew or key not in _last:
        # a file of its own: weights stay in it, and are read when they are needed
        path = folder / f"{len(_written)}.onnx"
        _written.append(path)
        path.write_bytes(blob)
        prepared = prepare(load(path), net.feeds[0], min_opset=key[1])
        if len(_last) > 2:
            _last.clear()
        _last[key] = prepared
    return quantize(_last[key], net.feeds, recipe)


def convert_file(path: Path, feeds: Sequence[Feed], recipe: Recipe) -> Result:
    """Convert the model at ``path``."""
    return quantize(prepare(load(path), feeds[0], min_opset=least_opset(recipe)), feeds, recipe)


def quantize(prepared: Prepared, feeds: Sequence[Feed], recipe: Recipe) -> Result:
    """All stages after preparation."""
    prepared = parted(prepared, recipe)
    view, target = view_of(prepared.model), target_of(recipe.target)
    method = METHODS.get(recipe.method)
    plan = build_plan(view, recipe, target)
    stats = collect(prepared.model, requests_for(plan, method), feeds).table
    plan = solve(plan, stats, method, view.constant)
    model, _ = emit(prepared.model, plan, recipe, prepared.source)
    blob = model.to_bytes()
    return Result(prepared=prepared, plan=plan, proto=onnx.load_from_string(blob), blob=blob)

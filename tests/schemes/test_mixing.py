"""Static int8 with other schemes for some nodes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from schemes.runs import made, types_of

from qconvert.errors import RecipeError
from qconvert.recipe.recipe import Recipe

STATIC = {"target": "x86-vnni", "placement": "static", "recover": ("none",)}


def test_each_node_gets_its_scheme(tmp_path: Path) -> None:
    recipe = Recipe(mix=("Conv_4=w8", "Gather=w8"), **STATIC)
    report, proto = made("byte_classifier", recipe, tmp_path)
    ops = Counter(n.op_type for n in proto.graph.node)
    reasons = {d.node: d.reason for d in report.decisions if d.quantized}
    assert reasons["Conv_2"] == "integer kernel"
    assert reasons["Conv_4"] == "8-bit weights, a scale for each channel"
    assert reasons["Gather_0"] == "8-bit weights, a scale for each channel, unpacked when the model is loaded"
    assert ops["QuantizeLinear"] > 0
    assert report.accuracy is not None
    assert report.accuracy.comparison.fidelity.sqnr_db > 15
    assert any(note.startswith("mixed in: ") for note in report.notes)
    assert report.verification.census is not None
    assert report.verification.census.integer_kernels > 0
    assert not report.verification.census.unfused


def test_half_precision_around_integers(tmp_path: Path) -> None:
    recipe = Recipe(scheme="fp16", mix=("Conv=int8",), **STATIC)
    report, proto = made("resnet", recipe, tmp_path)
    assert types_of(proto, "DequantizeLinear", 0) >= {"INT8"}
    assert types_of(proto, "Gemm", 1) == {"FLOAT16"} or "FLOAT16" in types_of(proto, "Cast", 0)
    assert report.accuracy is not None
    assert report.accuracy.comparison.fidelity.sqnr_db > 25
    # whichever scheme is called the model's own, the model is the same
    other = Recipe(mix=("*=fp16", "Conv=int8"), **STATIC)
    assert made("resnet", other, tmp_path)[1] == proto


def test_bodies_are_left_to_the_scheme_that_is_mixed_in(tmp_path: Path) -> None:
    report, _ = made("if_branches", Recipe(mix=("then_*=w8", "else_*=w8"), **STATIC), tmp_path)
    assert any("control-flow bodies" in note for note in report.notes)


def test_a_pattern_that_selects_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no such node"):
        made("resnet", Recipe(mix=("Gem=w8",)), tmp_path)

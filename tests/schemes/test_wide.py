"""Static schemes with 16-bit activations, through the pipeline."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import chain
from networks.all import NETWORKS
from networks.contract import measured
from schemes.runs import made, types_of

from qconvert.errors import RecipeError
from qconvert.recipe.recipe import Recipe


@pytest.mark.parametrize(("scheme", "weights", "least_db"), [("a16w8", "INT8", 35.0), ("a16w4", "INT4", 10.0)])
def test_codes_and_report(scheme: str, weights: str, least_db: float, tmp_path: Path) -> None:
    recipe = Recipe(scheme=scheme, target="x86-vnni", recover=("none",))
    report, proto = made("resnet", recipe, tmp_path)
    assert types_of(proto, "QuantizeLinear", 2) == {"UINT16"}
    assert types_of(proto, "DequantizeLinear", 0) == {weights, "INT32"}
    assert {o.domain: o.version for o in proto.opset_import}[""] == 21
    assert report.accuracy is not None
    assert report.accuracy.comparison.fidelity.sqnr_db > least_db
    # this machine computes it in float, which is no failure, and the report says so
    assert report.verification.census is None
    assert any("no kernels for uint16" in note for note in report.notes)
    assert any("computed in float" in d.reason for d in report.decisions)


def test_more_accurate_than_8_bits(tmp_path: Path) -> None:
    net, db = NETWORKS["yolo"](), {}
    for scheme in ("int8", "a16w8"):
        blob = chain.convert(net, Recipe(scheme=scheme, target="qnn", placement="all"), tmp_path).blob
        db[scheme] = min(value for outputs in measured(net, blob) for value in outputs.values())
    assert db["a16w8"] > db["int8"] + 5  # what is left is the rounding of weights


def test_tables_stay_whole_bytes(tmp_path: Path) -> None:
    recipe = Recipe(scheme="a16w4", target="x86-vnni", recover=("none",))
    _, proto = made("decoder_tied", recipe, tmp_path)
    assert types_of(proto, "Gather", 0) >= {"INT8"}
    held = [t.data_type for t in proto.graph.initializer]
    assert held.count(onnx.TensorProto.FLOAT) > 0
    assert max(np.prod(t.dims) for t in proto.graph.initializer if t.data_type == onnx.TensorProto.FLOAT) < 512


def test_qoperator_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="one form"):
        made("resnet", Recipe(scheme="a16w8", format="qoperator"), tmp_path)

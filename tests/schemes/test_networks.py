"""Every network under every scheme: it loads with and without optimization, keeps its interface and its accuracy."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from networks.all import NETWORKS
from networks.contract import measured

from qconvert.errors import ModelError
from qconvert.graph.model import load
from qconvert.graph.prepare.canonical import Prepared, prepare
from qconvert.recipe.recipe import Recipe
from qconvert.schemes.application import apply, least_opset
from qconvert.schemes.scheme import check_combination

pytestmark = pytest.mark.slow

# least SQNR in dB; 4 bits are too few for some of these random nets
SCHEMES = {
    "dynamic": (Recipe(scheme="dynamic"), 20.0),
    "w8": (Recipe(scheme="w8"), 25.0),
    "w4": (Recipe(scheme="w4"), 7.0),
    "fp16": (Recipe(scheme="fp16"), 40.0),
}


def _valid(proto: onnx.ModelProto) -> bool:
    try:
        onnx.checker.check_model(proto)
    except onnx.checker.ValidationError:
        return False
    return True


@pytest.mark.parametrize("name", NETWORKS)
def test_network(name: str, tmp_path: Path) -> None:
    net = NETWORKS[name]()
    path = tmp_path / "model.onnx"
    path.write_bytes(net.proto.SerializeToString())
    known: dict[int, Prepared] = {}
    for scheme, (recipe, least_db) in SCHEMES.items():
        check_combination(recipe)
        opset = least_opset(recipe)
        if opset not in known:
            known[opset] = prepare(load(path), net.feeds[0], min_opset=opset)
        try:
            converted = apply(known[opset], recipe, trials=net.feeds[:2])
        except ModelError as error:
            assert "nothing for" in error.message
            continue
        blob = converted.model.to_bytes()
        if _valid(net.proto):
            onnx.checker.check_model(blob)
        for outputs in measured(net, blob):
            for output, db in outputs.items():
                assert net.least_db is None or db >= min(least_db, net.least_db + 5), f"{scheme}: {output}: {db:.1f} dB"

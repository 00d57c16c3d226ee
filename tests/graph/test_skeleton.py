"""Reading a model without its weights: the same model, whatever the file looks like, and no weights in memory."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks.all import NETWORKS
from networks.branches import mixed, voice
from onnx import numpy_helper

from qconvert.errors import ModelError
from qconvert.graph.model import load
from qconvert.graph.skeleton import NotProtobuf, skeleton

SAMPLES = sorted((Path(__file__).parents[2] / "sample_models").glob("*.onnx"))


def embedded(data: bytes, file: Path) -> onnx.ModelProto:
    """The skeleton with the weights put back by onnx's own loader."""
    proto = onnx.ModelProto.FromString(data)
    onnx.load_external_data_for_model(proto, str(file.parent))
    for node in onnx.external_data_helper._get_all_tensors(proto):
        node.ClearField("external_data")
        node.ClearField("data_location")
    return proto


def tensors(proto: onnx.ModelProto) -> list[np.ndarray]:
    return [numpy_helper.to_array(t) for t in onnx.external_data_helper._get_all_tensors(proto)]


@pytest.mark.parametrize("path", SAMPLES, ids=lambda p: p.stem)
def test_a_sample_model_comes_back_whole(path: Path) -> None:
    data = skeleton(path)
    assert len(data) < path.stat().st_size / 3
    mine, original = embedded(data, path), onnx.load(path)
    assert all(np.array_equal(a, b) for a, b in zip(tensors(mine), tensors(original), strict=True))
    assert mine.graph.node == original.graph.node


@pytest.mark.parametrize("net", [mixed, voice], ids=["mixed", "voice"])
def test_weights_in_bodies_stay_on_disk_too(net: object, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(net().proto.SerializeToString())  # type: ignore[operator]
    inner = [
        t
        for t in onnx.external_data_helper._get_all_tensors(onnx.ModelProto.FromString(skeleton(path)))
        if t.data_location == onnx.TensorProto.EXTERNAL
    ]
    large = [a for a in tensors(onnx.load(path)) if a.nbytes >= 1024]
    assert len(inner) == len(large) > 0


@pytest.mark.parametrize("name", sorted(NETWORKS)[::4])
def test_any_network_reads_the_same(name: str, tmp_path: Path) -> None:
    proto = NETWORKS[name]().proto
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    model = onnx.load_from_string(load(path).to_bytes())
    by_name = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    for tensor in proto.graph.initializer:
        assert np.array_equal(by_name[tensor.name], numpy_helper.to_array(tensor), equal_nan=tensor.data_type == 1)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_refused_or_read(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    whole = SAMPLES[0].read_bytes()
    cut = data.draw(st.integers(1, len(whole) - 1))
    flipped = bytearray(whole[:cut] if data.draw(st.booleans()) else whole)
    for at in data.draw(st.lists(st.integers(0, min(len(flipped), 4000) - 1), max_size=4)):
        flipped[at] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.mktemp("damaged") / "model.onnx"
    path.write_bytes(bytes(flipped))
    try:
        load(path)
    except ModelError as error:
        assert str(path) in error.message or "tensor" in error.message


@pytest.mark.parametrize(
    "data",
    [b"\x0a\x80\x80", b"\x3a\xff\xff\xff\xff\x0f", b"\x0b\x00", b"\xff" * 30, b"\x0d\x01"],
    ids=["cut number", "cut graph", "group", "no end", "cut fixed"],
)
def test_what_is_no_message_is_said_to_be_none(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(NotProtobuf):
        skeleton(path)
    with pytest.raises(ModelError, match="not an ONNX model"):
        load(path)


def test_weights_of_a_plain_file_are_not_in_memory() -> None:
    model = load(SAMPLES[0])
    assert model.weight_bytes(in_memory=True) < model.weight_bytes() / 20


@pytest.mark.parametrize("link", [os.symlink, os.link], ids=["symbolic", "hard"])
def test_a_model_behind_a_link_is_read(link: object, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "blob").write_bytes(SAMPLES[0].read_bytes())
    link(tmp_path / "real" / "blob", tmp_path / "model.onnx")  # type: ignore[operator]
    assert load(tmp_path / "model.onnx").to_bytes() == load(SAMPLES[0]).to_bytes()


def test_a_link_to_a_model_with_data_beside_the_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    ir.save(ir.load(SAMPLES[0]), tmp_path / "real" / "blob.onnx", external_data="weights.bin")
    (tmp_path / "weights.bin").write_bytes((tmp_path / "real" / "weights.bin").read_bytes())
    (tmp_path / "model.onnx").symlink_to(tmp_path / "real" / "blob.onnx")
    assert load(tmp_path / "model.onnx").weight_bytes() == load(SAMPLES[0]).weight_bytes()

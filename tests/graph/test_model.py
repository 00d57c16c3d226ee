"""Reading and writing files: damaged ones, unsafe or wrong external data, large ones."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import chain
from networks.all import NETWORKS
from networks.builder import Builder, Network
from networks.contract import breaches, measured
from onnx import TensorProto, external_data_helper

from qconvert.errors import ModelError, OutputError
from qconvert.graph import model as model_module
from qconvert.graph.model import load, save
from qconvert.graph.prepare.canonical import prepare
from qconvert.graph.signature import session_of


def net() -> Network:
    b = Builder()
    x = b.relu(b.conv(b.input("x", [1, 3, 8, 8]), 3, 8))
    b.output(b.head(b.conv(x, 8, 8), 8), [1, 10])
    return Network(proto=b.model(), feeds=b.feeds(), quantized=("Conv",))


def externalise(folder: Path, location: str = "weights.bin", proto: onnx.ModelProto | None = None) -> Path:
    """Write the model with every weight in ``location`` below ``folder``."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto or net().proto)
    (folder / location).parent.mkdir(parents=True, exist_ok=True)
    external_data_helper.convert_model_to_external_data(
        copy, location=location, size_threshold=0, convert_attribute=True
    )
    onnx.save_model(copy, folder / "model.onnx")
    return folder / "model.onnx"


def redirect(path: Path, **entries: str) -> None:
    """Change entries of the first external weight's description."""
    proto = onnx.load_model(path, load_external_data=False)
    tensor = next(t for t in proto.graph.initializer if t.data_location == TensorProto.EXTERNAL)
    kept = {e.key: e.value for e in tensor.external_data} | entries
    del tensor.external_data[:]
    for key, value in kept.items():
        tensor.external_data.add(key=key, value=value)
    path.write_bytes(proto.SerializeToString())


@pytest.mark.parametrize("location", ["weights.bin", "data/deep/weights.bin", "poids é.bin"])
def test_external_data(location: str, tmp_path: Path) -> None:
    path = externalise(tmp_path, location)
    plain = net()
    result = chain.convert_file(path, plain.feeds, chain.RECIPES["default"])
    assert not breaches(plain, result)
    assert min(measured(plain, result.blob)[0].values()) > 20
    assert not any(t.data_location == TensorProto.EXTERNAL for t in result.proto.graph.initializer)


def test_external_data_in_bodies_and_constants(tmp_path: Path) -> None:
    for name in ("if_branches", "shared_weights"):
        plain = NETWORKS[name]()
        path = externalise(tmp_path, proto=plain.proto)
        result = chain.convert_file(path, plain.feeds, chain.RECIPES["default"])
        assert min(measured(plain, result.blob)[0].values()) > 20


def test_quantized_model_is_independent_of_the_data_file(tmp_path: Path) -> None:
    path = externalise(tmp_path)
    prepared = prepare(load(path), net().feeds[0])
    blob = prepared.model.to_bytes()
    (tmp_path / "weights.bin").unlink()
    onnx.checker.check_model(blob)


def _absolute(path: Path) -> None:
    redirect(path, location=str(path.parent / "weights.bin"))


def _climbing(path: Path) -> None:
    redirect(path, location=f"../{path.parent.name}/weights.bin")


def _climbing_inside(path: Path) -> None:
    (path.parent / "sub").mkdir()
    redirect(path, location="sub/../weights.bin")


def _windows(path: Path) -> None:
    redirect(path, location="..\\weights.bin")


def _empty(path: Path) -> None:
    redirect(path, location="")


def _symbolic(path: Path) -> None:
    data = path.parent / "weights.bin"
    data.rename(path.parent / "elsewhere.bin")
    data.symlink_to(path.parent / "elsewhere.bin")


def _symbolic_folder(path: Path) -> None:
    real = path.parent / "real"
    real.mkdir()
    (path.parent / "weights.bin").rename(real / "weights.bin")
    (path.parent / "link").symlink_to(real)
    redirect(path, location="link/weights.bin")


def _dangling(path: Path) -> None:
    (path.parent / "weights.bin").unlink()
    (path.parent / "weights.bin").symlink_to("/nonexistent")


def _hard(path: Path) -> None:
    os.link(path.parent / "weights.bin", path.parent / "other.bin")


def _folder(path: Path) -> None:
    (path.parent / "weights.bin").unlink()
    (path.parent / "weights.bin").mkdir()


def _pipe(path: Path) -> None:
    (path.parent / "weights.bin").unlink()
    os.mkfifo(path.parent / "weights.bin")


def _missing(path: Path) -> None:
    (path.parent / "weights.bin").unlink()


def _truncated(path: Path) -> None:
    os.truncate(path.parent / "weights.bin", 100)


def _far_offset(path: Path) -> None:
    redirect(path, offset="1000000000")


def _negative_offset(path: Path) -> None:
    redirect(path, offset="-4")


def _short(path: Path) -> None:
    redirect(path, length="8")


def _long(path: Path) -> None:
    redirect(path, length=str(1 << 60))


def _words(path: Path) -> None:
    redirect(path, length="many")


def _huge_shape(path: Path) -> None:
    proto = onnx.load_model(path, load_external_data=False)
    tensor = next(t for t in proto.graph.initializer if t.data_location == TensorProto.EXTERNAL)
    tensor.dims[0] = 1 << 50
    path.write_bytes(proto.SerializeToString())


def _negative_shape(path: Path) -> None:
    proto = onnx.load_model(path, load_external_data=False)
    proto.graph.initializer[0].dims[0] = -8
    path.write_bytes(proto.SerializeToString())


UNSAFE = [
    _absolute,
    _climbing,
    _climbing_inside,
    _windows,
    _empty,
    _symbolic,
    _symbolic_folder,
    _dangling,
    _hard,
    _folder,
    _pipe,
]
WRONG = [_missing, _truncated, _far_offset, _negative_offset, _short, _long, _words, _huge_shape, _negative_shape]


@pytest.mark.parametrize("spoil", UNSAFE + WRONG, ids=lambda f: f.__name__.strip("_"))
def test_bad_external_data(spoil: Callable[[Path], None], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    path = externalise(folder)
    spoil(path)
    with pytest.raises(ModelError) as caught:
        load(path)
    assert str(path) in caught.value.message or "dimension" in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("where", ["body", "constant", "function", "sparse"])
def test_bad_external_data_anywhere(where: str, tmp_path: Path) -> None:
    """Not only initializers of the main graph hold tensors."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[8, 8], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="/etc/passwd")
    b = Builder()
    x = b.input("x", [2, 8])
    functions = []
    domains = {}
    if where == "body":
        inner = [Builder(prefix=p) for p in "ab"]
        for c in inner:
            c.initializers.append(tensor)
            c.output(c.node("MatMul", x, "w"))
        b.node("If", b.input("flag", [], 9), out="y", then_branch=inner[0].graph("a"), else_branch=inner[1].graph("b"))
    elif where == "constant":
        b.node("MatMul", x, b.node("Constant", value=tensor), out="y")
    elif where == "function":
        c = Builder(prefix="f")
        c.node("MatMul", "x", c.node("Constant", value=tensor), out="y")
        functions = [onnx.helper.make_function("local", "F", ["x"], ["y"], c.nodes, [onnx.helper.make_opsetid("", 17)])]
        domains = {"local": 1}
        b.node("F", x, domain="local", out="y")
    else:
        sparse = onnx.SparseTensorProto(dims=[8, 8])
        tensor.dims[:] = [3]
        sparse.values.CopyFrom(tensor)
        sparse.indices.CopyFrom(onnx.numpy_helper.from_array(np.arange(3), "i"))
        b.node("MatMul", x, b.node("Constant", sparse_value=sparse), out="y")
    b.output("y", [2, 8])
    path = tmp_path / "model.onnx"
    path.write_bytes(b.model(functions=functions, domains=domains).SerializeToString())
    with pytest.raises(ModelError, match="outside the model's folder"):
        load(path)


@pytest.mark.parametrize(
    "content", [b"", b"not a model", b"\x08\x08", b"PK\x03\x04" + b"\0" * 64], ids=["empty", "text", "header", "zip"]
)
def test_no_model(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        load(path)
    assert caught.value.hint


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_truncated_model(share: float, tmp_path: Path) -> None:
    blob = net().proto.SerializeToString()
    path = tmp_path / "model.onnx"
    path.write_bytes(blob[: int(len(blob) * share)])
    with pytest.raises(ModelError):
        load(path)


@pytest.mark.parametrize("name", [b"Conv", b"logits", b"const_1", b"Relu_4"])
def test_name_that_is_no_text(name: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(net().proto.SerializeToString().replace(name, b"\xff" * len(name)))
    with pytest.raises(ModelError, match="damaged"):
        load(path)


def test_sparse_tensors(tmp_path: Path) -> None:
    b = Builder()
    dense = onnx.numpy_helper.from_array(np.ones(3, np.float32), "v")
    places = onnx.numpy_helper.from_array(np.arange(3), "i")
    sparse = onnx.helper.make_sparse_tensor(dense, places, [8, 8])
    b.node("MatMul", b.input("x", [2, 8]), b.node("Constant", sparse_value=sparse), out="y")
    b.output("y", [2, 8])
    path = tmp_path / "model.onnx"
    path.write_bytes(b.model().SerializeToString())
    with pytest.raises(ModelError, match="sparse"):
        load(path)


def test_missing_model_and_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        load(tmp_path / "model.onnx")
    with pytest.raises(ModelError, match="is a folder"):
        load(tmp_path)


def test_raw_data_that_does_not_fit_its_shape(tmp_path: Path) -> None:
    proto = net().proto
    proto.graph.initializer[0].dims[0] += 1
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError):
        prepare(load(path), net().feeds[0])


def test_save_and_load(tmp_path: Path) -> None:
    path = externalise(tmp_path)
    out = tmp_path / "out.onnx"
    save(load(path), out)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.onnx", "out.onnx", "weights.bin"]
    feed = net().feeds[0]
    a, b = (session_of(load(p)).run(feed) for p in (path, out))
    assert np.array_equal(a[0], b[0])
    with pytest.raises(OutputError):
        save(load(path), tmp_path / "no such folder" / "out.onnx")


def test_large_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same net handled as one beyond 2 GB is: never in one protobuf message."""
    monkeypatch.setattr(model_module, "PROTO_LIMIT", 1000)
    monkeypatch.setattr("qconvert.graph.signature.PROTO_LIMIT", 1000)
    plain = net()
    path = externalise(tmp_path)
    prepared = prepare(load(path), plain.feeds[0])
    out = tmp_path / "out.onnx"
    save(prepared.model, out)
    assert (tmp_path / "out.onnx.data").exists()
    assert {p.name for p in tmp_path.iterdir()} == {"model.onnx", "weights.bin", "out.onnx", "out.onnx.data"}
    a, b = (session_of(load(p)).run(plain.feeds[0]) for p in (path, out))
    assert np.allclose(a[0], b[0], atol=1e-5)


def test_saving_over_the_data_that_is_being_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = externalise(tmp_path, "model.onnx.data")
    expected = session_of(load(path)).run(net().feeds[0])
    monkeypatch.setattr(model_module, "PROTO_LIMIT", 1000)
    save(load(path), path)
    monkeypatch.undo()
    assert np.array_equal(session_of(load(path)).run(net().feeds[0])[0], expected[0])

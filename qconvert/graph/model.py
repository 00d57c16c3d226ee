"""Reading and writing models.

A file is never trusted: external data may not leave the model's folder, and declared sizes are compared with
what is there before anything is allocated (CVE-2022-25882, CVE-2024-27318, CVE-2025-51480, CVE-2026-27489,
CVE-2026-34445).
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from qconvert.errors import ModelError, OutputError

# A protobuf message cannot exceed 2 GiB; stay clear of it.
PROTO_LIMIT = 1_800_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model in memory, with the file it came from.

    Attributes:
        ir: the onnx-ir model (only ``graph`` and ``emit`` look inside).
        path: the file it was read from, None when made in memory.
    """

    ir: ir.Model
    path: Path | None = None

    def clone(self) -> Model:
        """An independent copy; weights are shared, not copied."""
        return Model(ir=self.ir.clone(), path=self.path)

    @property
    def opset(self) -> int:
        """Version of the default operator set."""
        return int(self.ir.opset_imports.get("", 0))

    def to_bytes(self) -> bytes:
        """The serialised ModelProto, weights included.

        Raises:
            ModelError: it would exceed the limit of a protobuf message.
        """
        too_large = ModelError("the model is over 2 GB and cannot be held in one protobuf message")
        if self.weight_bytes() > PROTO_LIMIT:
            raise too_large
        proto = ir.to_proto(self.ir)
        if self.path is not None:
            _embed_external_data(proto, self.path.parent)
        if proto.ByteSize() > PROTO_LIMIT:
            raise too_large
        return bytes(proto.SerializeToString(deterministic=True))

    def weight_bytes(self) -> int:
        """Bytes of all initializers, those of control-flow bodies included."""
        values = [v for graph in self.ir.graphs() for v in graph.initializers.values()]
        return sum(v.const_value.nbytes for v in values if v.const_value is not None)


def load(path: Path) -> Model:
    """Read an ONNX model; external weights stay on disk until they are used.

    Raises:
        ModelError: no such file, not ONNX, truncated, or unsafe or missing external data.
    """
    if not path.exists():
        raise ModelError(f"{path}: no such file", hint="give the path of an .onnx file")
    if path.is_dir():
        raise ModelError(f"{path} is a folder", hint="give the path of the .onnx file inside it")
    if path.stat().st_size == 0:
        raise ModelError(f"{path} is empty", hint="the export or download was probably interrupted; make it anew")
    not_onnx = ModelError(
        f"{path} is not an ONNX model, or is damaged or truncated",
        hint="export or download it again; `python -m onnx.checker` style checks must accept it",
    )
    try:
        proto = onnx.load_model(str(path), load_external_data=False)
    except (DecodeError, ValueError, OSError) as error:
        raise not_onnx from error
    if not proto.HasField("graph") or proto.ir_version <= 0:
        raise not_onnx
    if not all(isinstance(text, str) for text in _names(proto)):
        raise not_onnx  # protobuf hands out bytes where a damaged name is no UTF-8
    if not proto.graph.node:
        raise ModelError(f"{path} holds a graph without any node", hint="there is nothing to quantize")
    _check_external_data(proto, path)
    if any(True for _ in _sparse(proto)):
        raise ModelError(f"{path} holds sparse tensors, which qconvert cannot read", hint="export dense weights")
    try:
        model = ir.from_proto(proto)
    except Exception as error:  # onnx-ir raises many kinds on inconsistent protos
        raise ModelError(f"{path} is not a valid ONNX model: {error}", hint="check it with onnx.checker") from error
    for graph in (model.graph, *(f.graph for f in model.functions.values())):
        ir.external_data.set_base_dir(graph, path.parent)
    return Model(ir=model, path=path)


def _check_external_data(proto: onnx.ModelProto, path: Path) -> None:
    base = path.parent.resolve()
    for tensor in _tensors(proto):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        entry = {e.key: e.value for e in tensor.external_data}
        location = entry.get("location", "")
        where = f"{path}: external data of {tensor.name!r}"
        unsafe = "external data must be a plain file in or below the model's folder"
        if not location or Path(location).is_absolute() or ".." in Path(location).parts or "\\" in location:
            raise ModelError(f"{where} points to {location!r}, outside the model's folder", hint=unsafe)
        target = path.parent / location
        if not target.exists() and not target.is_symlink():
            raise ModelError(f"{where} is missing: {target}", hint="copy the data file beside the model")
        steps = [path.parent / Path(*Path(location).parts[: i + 1]) for i in range(len(Path(location).parts))]
        if any(p.is_symlink() for p in steps) or not target.resolve().is_relative_to(base):
            raise ModelError(f"{where} goes through a symbolic link: {location!r}", hint=unsafe)
        if not target.is_file() or target.stat().st_nlink > 1:
            raise ModelError(f"{where} is not a plain file, or a hard link: {location!r}", hint=unsafe)
        try:
            offset, length = int(entry.get("offset", "0")), int(entry.get("length", "-1"))
        except ValueError as error:
            raise ModelError(f"{where} has an offset or length that is no number", hint="export it again") from error
        need = tensor_bytes(tensor)
        length = need if length < 0 else length
        if offset < 0 or length < need or offset + length > target.stat().st_size:
            raise ModelError(
                f"{where}: {location!r} has {target.stat().st_size} bytes, too few for {need} bytes at offset {offset}",
                hint="the data file is truncated or belongs to another model",
            )


def tensor_bytes(tensor: onnx.TensorProto) -> int:
    """Bytes that the tensor's declared type and shape take.

    Raises:
        ModelError: a negative dimension or an unknown type.
    """
    if any(d < 0 for d in tensor.dims):
        raise ModelError(f"tensor {tensor.name!r} has a negative dimension", hint="the model is damaged")
    count = 1
    for d in tensor.dims:
        count *= d
    try:
        bits = ir.DataType(tensor.data_type).bitwidth
    except (ValueError, TypeError) as error:
        raise ModelError(f"tensor {tensor.name!r} has an unknown type {tensor.data_type}") from error
    return (count * bits + 7) // 8


def _nodes(proto: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Every node: of the main graph, of control-flow bodies and of functions."""
    waiting = [*proto.graph.node, *(n for f in proto.functions for n in f.node)]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += [n for body in _bodies(node) for n in body.node]


def _names(proto: onnx.ModelProto) -> Iterator[str]:
    nodes = list(_nodes(proto))
    for node in nodes:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output, *(a.name for a in node.attribute))
    for graph in (proto.graph, *(body for node in nodes for body in _bodies(node))):
        yield from (v.name for v in (*graph.input, *graph.output, *graph.value_info, *graph.initializer))


def _bodies(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    return [g for a in node.attribute for g in ([a.g] if a.HasField("g") else []) + list(a.graphs)]


def _sparse(proto: onnx.ModelProto) -> Iterator[onnx.SparseTensorProto]:
    yield from proto.graph.sparse_initializer
    for node in _nodes(proto):
        for attribute in node.attribute:
            yield from [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
            yield from attribute.sparse_tensors
        for body in _bodies(node):
            yield from body.sparse_initializer


def _tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor that the file holds or points to."""
    yield from proto.graph.initializer
    for node in _nodes(proto):
        for attribute in node.attribute:
            yield from [attribute.t] if attribute.HasField("t") else []
            yield from attribute.tensors
        for body in _bodies(node):
            yield from body.initializer
    for sparse in _sparse(proto):
        yield from (sparse.values, sparse.indices)


def _embed_external_data(proto: onnx.ModelProto, folder: Path) -> None:
    """Put the data of external tensors, checked when the model was read, into the message."""
    for tensor in _tensors(proto):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        entry = {e.key: e.value for e in tensor.external_data}
        with (folder / entry["location"]).open("rb") as file:
            file.seek(int(entry.get("offset", "0")))
            tensor.raw_data = file.read(tensor_bytes(tensor))
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")


def save(model: Model, path: Path) -> None:
    """Write ``model`` to ``path``, whole or not at all; weights of a large model go to ``<name>.data`` beside it.

    Raises:
        OutputError: the place cannot be written.
    """
    try:
        scratch = Path(tempfile.mkdtemp(prefix=".qconvert-", dir=path.parent))
    except OSError as error:
        raise OutputError(f"cannot write to {path.parent}: {error.strerror}", hint="choose another --output") from error
    try:
        external = f"{path.name}.data" if model.weight_bytes() > PROTO_LIMIT else None
        if external is None:
            (scratch / path.name).write_bytes(model.to_bytes())
        else:
            ir.save(model.ir, scratch / path.name, external_data=external)
            (scratch / external).replace(path.parent / external)
        (scratch / path.name).replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}", hint="choose another --output") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)

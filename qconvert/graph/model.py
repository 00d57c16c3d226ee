"""Reading and writing models.

A file is never trusted: external data may not leave the model's folder, and declared sizes are compared with
what is there before anything is allocated (CVE-2022-25882, CVE-2024-27318, CVE-2025-51480, CVE-2026-27489,
CVE-2026-34445).
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx_ir import TensorProtocol as Tensor

from qconvert.errors import ModelError, OutputError
from qconvert.graph.edit import bodies_of
from qconvert.graph.external import write_external
from qconvert.graph.lent import lendable, reference
from qconvert.graph.skeleton import skeleton
from qconvert.graph.soundness import (
    check_proto,
    check_shapes,
    names,
    refers_elsewhere,
    sparse_tensors,
    tensor_bytes,
    tensors,
)
from qconvert.progress import Progress

# A protobuf message cannot exceed 2 GiB; stay clear of it.
PROTO_LIMIT = 1_800_000_000

_RANDOM = frozenset("Bernoulli Multinomial RandomNormal RandomNormalLike RandomUniform RandomUniformLike".split())


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model in memory, with the file it came from.

    Attributes:
        ir: the onnx-ir model (only ``graph`` and ``emit`` look inside).
        path: the file it was read from, None when made in memory.
        folder: what the places of its external tensors are relative to; weights that stay in the model's own file are
            external tensors of that file.
    """

    ir: ir.Model
    path: Path | None = None
    folder: Path | None = None

    def clone(self) -> Model:
        """An independent copy; weights are shared, not copied."""
        return replace(self, ir=self.ir.clone())

    def release(self) -> None:
        """Unmap the weights that are still on disk; they are mapped again when somebody asks for them."""
        for tensor in self.constants():
            unmap(tensor)

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
        proto = ir.to_proto(_with_own_data(self.ir, self.folder))
        if self.folder is not None:
            _embed_external_data(proto, self.folder)
        if proto.ByteSize() > PROTO_LIMIT:
            raise too_large
        return bytes(proto.SerializeToString(deterministic=True))

    def to_skeleton(self) -> tuple[bytes, dict[str, NDArray[np.generic]]]:
        """The serialised ModelProto without large weights, and those of them that are in memory, by name.

        Weights that are on disk are references relative to :attr:`folder`.
        """
        copy = self.ir.clone()
        inputs = {v.name for v in copy.graph.inputs}
        lent: dict[str, NDArray[np.generic]] = {}
        for name, value in copy.graph.initializers.items():
            # ONNX Runtime drops what nothing reads before it looks for what is lent (1.32)
            values = lendable(value.const_value) if name not in inputs and value.uses() else None
            if values is not None and value.const_value is not None:
                lent[name] = values
                value.const_value = reference(value.const_value)
        return bytes(ir.to_proto(copy).SerializeToString(deterministic=True)), lent

    def weight_bytes(self, *, in_memory: bool = False) -> int:
        """Bytes of all initializers, those of control-flow bodies included; or only of those that are not on disk."""
        return sum(t.nbytes for t in self.constants() if not (in_memory and isinstance(t, ir.ExternalTensor)))

    def is_random(self) -> bool:
        """Whether it holds operators that draw random numbers, so that one run differs from the next."""
        return any(n.op_type in _RANDOM for n in ir.traversal.RecursiveGraphIterator(self.ir.graph))

    def constants(self) -> Iterator[Tensor]:
        """Every initializer, those of control-flow bodies included."""
        for graph in self.ir.graphs():
            for value in graph.initializers.values():
                if value.const_value is not None:
                    yield value.const_value


def unmap(tensor: object) -> None:
    """Let go of a tensor's file, if it is on disk and nothing holds a view of it."""
    if isinstance(tensor, ir.ExternalTensor):
        with contextlib.suppress(BufferError):
            tensor.release()


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
        hint="export or download it again; if it comes from Git, `git lfs pull` may fetch the file itself",
    )
    folder = path.resolve().parent
    try:
        # onnx-ir and ONNX Runtime refuse external data that is a hard link, which a model's own file may well be
        own = path.resolve() if path.stat().st_nlink == 1 else None
        proto = onnx.ModelProto.FromString(skeleton(own) if own is not None else path.read_bytes())
        if own is not None and folder != path.parent.resolve() and refers_elsewhere(proto, own.name):
            # a link to a model with data files: these lie beside the link
            own, proto = None, onnx.ModelProto.FromString(path.read_bytes())
        if own is None:
            folder = path.parent
    except (DecodeError, ValueError, OSError, RecursionError) as error:
        raise not_onnx from error
    if not proto.HasField("graph") or proto.ir_version <= 0:
        raise not_onnx
    if not all(isinstance(text, str) for text in names(proto)):
        raise not_onnx  # protobuf hands out bytes where a damaged name is no UTF-8
    if not proto.graph.node:
        raise ModelError(f"{path} holds a graph without any node", hint="there is nothing to quantize")
    check_proto(proto, path, own)
    if any(True for _ in sparse_tensors(proto)):
        raise ModelError(f"{path} holds sparse tensors, which qconvert cannot read", hint="export dense weights")
    check_shapes(proto, path)
    try:
        model = ir.from_proto(proto)
        if not _in_order(model.graph):
            model.graph.sort()
    except Exception as error:  # onnx-ir raises many kinds on inconsistent protos
        raise ModelError(f"{path} is not a valid ONNX model: {error}", hint="check it with onnx.checker") from error
    for graph in (model.graph, *(f.graph for f in model.functions.values())):
        ir.external_data.set_base_dir(graph, folder)
    return Model(ir=model, path=path, folder=folder)


def _in_order(graph: ir.Graph) -> bool:
    """Whether every node comes after those that it reads, as ONNX demands; ONNX Runtime does not, and its own converter
    to float16 writes models that are not."""
    seen: set[ir.Node] = set()
    for node in graph:
        inside = [n for body in bodies_of(node) for n in body.all_nodes()]
        read = [value for n in (node, *inside) for value in n.inputs]
        made = (value.producer() for value in read if value is not None and value.graph is graph)
        if any(producer is not None and producer not in seen for producer in made):
            return False
        seen.add(node)
    return True


def _with_own_data(model: ir.Model, folder: Path | None) -> ir.Model:
    """``model``, or a copy in which tensors on disk elsewhere than in ``folder`` are in memory: a message has room for
    one folder only."""
    elsewhere = [t for t in _external(model) if folder is None or Path(t.base_dir) != folder]
    if not elsewhere:
        return model
    copy = model.clone()
    for graph in copy.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if isinstance(tensor, ir.ExternalTensor) and (folder is None or Path(tensor.base_dir) != folder):
                value.const_value = ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=tensor.name)
    return copy


def _external(model: ir.Model) -> Iterator[ir.ExternalTensor]:
    for graph in model.graphs():
        for value in graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                yield value.const_value


def _embed_external_data(proto: onnx.ModelProto, folder: Path) -> None:
    """Put the data of external tensors, checked when the model was read, into the message."""
    for tensor in tensors(proto):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        entry = {e.key: e.value for e in tensor.external_data}
        with (folder / entry["location"]).open("rb") as file:
            file.seek(int(entry.get("offset", "0")))
            tensor.raw_data = file.read(tensor_bytes(tensor))
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")


@contextlib.contextmanager
def _to_the_end() -> Iterator[None]:
    """Signals that would interrupt wait until it is done: files that belong together take their places together."""
    if threading.current_thread() is not threading.main_thread():  # handlers run, and are set, in the main thread only
        yield
        return
    waiting: list[int] = []
    before = {n: signal.signal(n, lambda number, _: waiting.append(number)) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler if handler is not None else signal.SIG_DFL)
        for number in waiting:
            signal.raise_signal(number)


def save(model: Model, path: Path, *, shard: int = 0, progress: Progress | None = None) -> None:
    """Write ``model`` to ``path``, whole or not at all; weights of a large model go to ``<name>.data`` beside it.

    Args:
        model: what to write.
        path: where to.
        shard: most bytes of a data file, of which there may be several then; 0: no limit, and a data file only where
            the model exceeds a protobuf message.
        progress: told of the weights that go to data files.

    Raises:
        OutputError: the place cannot be written.
    """
    try:
        scratch = Path(tempfile.mkdtemp(prefix=".qconvert-", dir=path.parent))
    except OSError as error:
        raise OutputError(f"cannot write to {path.parent}: {error.strerror}", hint="choose another --output") from error
    try:
        if shard or model.weight_bytes() > PROTO_LIMIT:
            files = write_external(model.ir, scratch, path.name, shard=shard, progress=progress)
            with _to_the_end():
                for file in files:
                    file.replace(path.parent / file.name)
        else:
            (scratch / path.name).write_bytes(model.to_bytes())
            (scratch / path.name).replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}", hint="choose another --output") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)

"""Models beyond the size of a protobuf message: weights in data files beside the model, written one at a time.

    model.onnx         the graph, with places of weights
    model.onnx.data    the weights; with a limit model.onnx.data, model.onnx.data-1, ...

A weight starts at a multiple of 4096 bytes, so that it can be mapped into memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import BinaryIO

import onnx_ir as ir

from qconvert.progress import Progress, Silent

# Smaller tensors stay in the model's file.
_LEAST = 1024
_ALIGN = 4096


def write_external(
    model: ir.Model, folder: Path, name: str, *, shard: int = 0, progress: Progress | None = None
) -> tuple[Path, ...]:
    """Write ``model`` into ``folder`` as ``name`` and data files; the files, the model's last.

    Args:
        model: left as it is.
        folder, name: where to, and what the model's file is called.
        shard: most bytes of a data file, 0 for no limit; a weight is never split.
        progress: told of every weight.

    Raises:
        OSError: a file cannot be written.
    """
    copy = model.clone()
    files: list[Path] = []
    with ExitStack() as stack:
        file: BinaryIO | None = None
        at = 0
        values = list(_apart(copy))
        total = sum(map(_bytes, values))
        for value in (progress or Silent()).track(values, label="write", total=total, size=_bytes):
            tensor = value.const_value
            if tensor is None:
                continue
            start = -(-at // _ALIGN) * _ALIGN
            if file is None or (shard and at and start + tensor.nbytes > shard):
                files.append(folder / (f"{name}.data-{len(files)}" if files else f"{name}.data"))
                file, start = stack.enter_context(files[-1].open("wb")), 0
            file.truncate(start)
            file.seek(start)
            _write(tensor, file)
            at = start + tensor.nbytes
            value.const_value = ir.ExternalTensor(
                files[-1].name,
                start,
                tensor.nbytes,
                tensor.dtype,
                shape=ir.Shape(tensor.shape.numpy()),
                name=value.name or "",
                base_dir=folder,
            )
    target = folder / name
    target.write_bytes(ir.to_proto(copy).SerializeToString(deterministic=True))
    return (*files, target)


def _apart(model: ir.Model) -> Iterator[ir.Value]:
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is None or tensor.dtype == ir.DataType.STRING:
                continue
            # what is in a file already must not stay in that one, however small it is
            if tensor.nbytes >= _LEAST or isinstance(tensor, ir.ExternalTensor):
                yield value


def _bytes(value: ir.Value) -> int:
    return value.const_value.nbytes if value.const_value is not None else 0


def _write(tensor: ir.TensorProtocol, file: BinaryIO) -> None:
    if isinstance(tensor, ir.ExternalTensor):
        with Path(tensor.path).open("rb") as source:
            source.seek(tensor.offset or 0)
            left = tensor.nbytes
            while left:
                part = source.read(min(left, 1 << 24))
                if not part:
                    raise OSError(5, "a data file ended too early")
                file.write(part)
                left -= len(part)
        with suppress(BufferError):
            tensor.release()
    else:
        file.write(tensor.tobytes())

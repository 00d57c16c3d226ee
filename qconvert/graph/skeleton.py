"""The part of an ONNX file that is not weights: reading a model without reading its weights.

A model file is one protobuf message; weights are byte fields deep inside it (``graph.initializer.raw_data``). This
module walks over the wire format of such a file, mapped into memory, and gives back the same message in which every
large ``raw_data`` has become a reference: external data of the file itself, at the place where the bytes are. Nothing
of the weights is touched, so a model costs memory only where its weights are used, and ONNX Runtime maps them, too.

Wire format: a message is a sequence of (field number << 3 | type, value); type 0 is a varint, 1 eight bytes, 2 a length
and that many bytes, 5 four bytes. Source: protobuf.dev/programming-guides/encoding; field numbers from onnx.proto.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Below this size a reference takes as much as what it stands for.
_LEAST = 1024

# Message -> {field: the message in it}, as far as there are tensors in it.
_WITHIN = {
    "model": {7: "graph", 25: "function"},
    "function": {7: "node"},
    "graph": {1: "node", 5: "tensor"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph"},
}
_RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION = 9, 13, 14
_BYTES = 2
_FIXED = {1: 8, 5: 4}


class NotProtobuf(ValueError):
    """The bytes are no message, or a damaged one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Field:
    """One field: its number and type, where it starts, and where its content is."""

    number: int
    kind: int
    start: int
    content: int
    end: int


def skeleton(path: Path) -> bytes:
    """The message in the file at ``path``, its large tensors replaced by references to the file by its own name.

    Raises:
        NotProtobuf: the file is not a sound message.
        OSError: it cannot be read.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return _rewritten(data, 0, len(data), "model", path.name.encode())


def _rewritten(data: mmap.mmap, start: int, end: int, kind: str, name: bytes) -> bytes:
    if kind == "tensor":
        return _tensor(data, start, end, name)
    parts = []
    for f in _fields(data, start, end):
        inner = _WITHIN[kind].get(f.number) if f.kind == _BYTES and f.end - f.content >= _LEAST else None
        if inner is None:
            parts.append(data[f.start : f.end])
        else:
            parts.append(_message(f.number, _rewritten(data, f.content, f.end, inner, name)))
    return b"".join(parts)


def _tensor(data: mmap.mmap, start: int, end: int, name: bytes) -> bytes:
    """A TensorProto without its raw_data, if that is large."""
    parts = []
    raw: _Field | None = None
    for f in _fields(data, start, end):
        if f.number == _RAW_DATA and f.kind == _BYTES and f.end - f.content >= _LEAST:
            raw = f
        else:
            parts.append(data[f.start : f.end])
    if raw is not None:
        place = {b"location": name, b"offset": b"%d" % raw.content, b"length": b"%d" % (raw.end - raw.content)}
        parts += [_message(_EXTERNAL_DATA, _message(1, k) + _message(2, v)) for k, v in place.items()]
        parts.append(_varint(_DATA_LOCATION << 3) + b"\x01")
    return b"".join(parts)


def _message(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | _BYTES) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _fields(data: mmap.mmap, at: int, end: int) -> Iterator[_Field]:
    while at < end:
        start = at
        tag, at = _read(data, at, end)
        kind = tag & 7
        if kind == 0:
            content = at
            _, at = _read(data, at, end)
        elif kind == _BYTES:
            size, content = _read(data, at, end)
            at = content + size
        elif kind in _FIXED:
            content, at = at, at + _FIXED[kind]
        else:
            raise NotProtobuf(f"field type {kind} at byte {start}")
        if at > end:
            raise NotProtobuf(f"the field at byte {start} is truncated")
        yield _Field(number=tag >> 3, kind=kind, start=start, content=content, end=at)


def _read(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    """(the varint at ``at``, where it ends)."""
    value = shift = 0
    while at < end and shift < 64:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise NotProtobuf(f"no number at byte {at}")

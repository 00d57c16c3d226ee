"""What is checked of a model's file before anything is made of it.

Bytes of a tensor = ceil(bits of its type * product of its dims / 8). A file that declares more than it holds, or points
to data outside its folder, is refused here, so that nothing behind this module allocates, maps or reads on its word.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx
import onnx_ir as ir

from qconvert.errors import ModelError
from qconvert.graph.loops import check_loops

# Fields of TensorProto that hold elements one by one.
_TYPED = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")
_STRING = onnx.TensorProto.STRING

# A value of a sample beyond this many bytes is no use of a CPU: the attention of an image model over 16,000 patches, or
# logits of 8,000 words, come to 1 to 4 GB. Shapes are known where inputs have fixed sizes, and from constants.
_LARGEST_VALUE = 1 << 32
# Nodes that calls of functions come to; ONNX Runtime writes each out. A dozen functions that call the next one twice,
# and so on, are small in the file and have no end here.
_MOST_NODES = 1_000_000
# Functions within functions.
_MOST_CALLS = 100
# A message beyond this holds weights, and shape inference would copy them.
_INFERABLE = 1 << 26


def check_proto(proto: onnx.ModelProto, path: Path, own: Path | None) -> None:
    """Check that names are there, and that tensors hold what they declare.

    Args:
        proto: the message in ``path``.
        path: the model's file.
        own: the same, resolved, where tensors are references into it; else None.

    Raises:
        ModelError: what is wrong, and where.
    """
    damaged = f"{path} is damaged"
    again = "export or download it again"
    if not all(v.name for v in (*proto.graph.input, *proto.graph.output, *proto.graph.initializer)):
        raise ModelError(f"{damaged}: an input, an output or a constant has no name", hint=again)
    if not proto.graph.output:
        raise ModelError(f"{damaged}: it has no output", hint=again)
    if not all(node.op_type for node in nodes(proto)):
        raise ModelError(f"{damaged}: a node has no operator", hint=again)
    try:
        _check_values(proto.graph, frozenset())
        for function in proto.functions:
            _check_nodes(function.node, set(function.input), frozenset(), function.output)
        _check_calls(proto)
    except ModelError as error:
        raise ModelError(f"{damaged}: {error.message}", hint=again) from error
    try:
        check_loops(proto)
    except ModelError as error:
        raise ModelError(f"{path}: {error.message}", hint=error.hint) from error
    check_external_data(proto, path, own)
    for tensor in tensors(proto):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            try:
                _check_own_data(tensor)
            except ModelError as error:
                raise ModelError(f"{damaged}: {error.message}", hint=again) from error


def check_shapes(proto: onnx.ModelProto, path: Path) -> None:
    """Check that no value is larger than any model needs, as far as its shape follows from the file.

    ONNX Runtime would allocate it, and fill it with zeros, when it loads the model or runs it first.

    Raises:
        ModelError: one is.
    """
    if proto.ByteSize() > _INFERABLE:
        return
    try:
        inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph
    except Exception:  # onnx raises many kinds; whoever runs the model says what is wrong with it
        return
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        kind = value.type.tensor_type
        sizes = [d.dim_value if d.HasField("dim_value") else 1 for d in kind.shape.dim]
        count = math.prod(max(1, size) for size in sizes)
        if count > _LARGEST_VALUE // _bytes_of(kind.elem_type):
            shape = ", ".join(str(d.dim_value) if d.HasField("dim_value") else "?" for d in kind.shape.dim)
            raise ModelError(
                f"{path}: the value {value.name!r} has shape [{shape}], which is over {_LARGEST_VALUE >> 30} GiB",
                hint="the model is damaged, or was exported for sizes that no CPU runs: export it for smaller ones",
            )


def _bytes_of(kind: int) -> int:
    """Bytes of an element; 1 where the type is unknown, or smaller."""
    try:
        return max(1, ir.DataType(kind).bitwidth // 8)
    except (ValueError, TypeError):
        return 1


def _check_calls(proto: onnx.ModelProto) -> None:
    """Check that functions end: none calls itself, and all calls written out are of a size that can be held.

    Raises:
        ModelError: they do not.
    """
    bodies_of = {(f.domain, f.name): f.node for f in proto.functions}
    sizes: dict[tuple[str, str], int] = {}
    waiting: list[tuple[str, str]] = []

    def size(found: Iterable[onnx.NodeProto]) -> int:
        total = 0
        for node in found:
            callee = (node.domain, node.op_type)
            inner = [n for body in bodies(node) for n in body.node]
            total += (called(callee) if callee in bodies_of else 1) + size(inner)
        return total

    def called(name: tuple[str, str]) -> int:
        if name in waiting or len(waiting) > _MOST_CALLS:
            raise ModelError(f"the function {name[1]!r} calls itself, or calls lie {_MOST_CALLS} deep")
        if name not in sizes:
            waiting.append(name)
            sizes[name] = size(bodies_of[name])
            waiting.pop()
        return sizes[name]

    for name in bodies_of:
        called(name)
    if size(proto.graph.node) > _MOST_NODES:
        raise ModelError(f"calls of functions come to over {_MOST_NODES:,} nodes")


def _check_values(graph: onnx.GraphProto, outer: frozenset[str]) -> None:
    """Check that everything that is read in ``graph`` is made somewhere, once; ``outer``: what the graphs around make.

    The order of nodes is not looked at: ONNX Runtime sorts them.

    Raises:
        ModelError: a value is made twice, or by nothing.
    """
    given = {v.name for v in (*graph.input, *graph.initializer)}
    given |= {s.values.name for s in graph.sparse_initializer}
    _check_nodes(graph.node, given, outer, [v.name for v in graph.output])


def _check_nodes(
    found: Iterable[onnx.NodeProto], given: set[str], outer: frozenset[str], results: Iterable[str]
) -> None:
    known = set(given)
    for node in found:
        for name in node.output:
            if name and name in known:
                raise ModelError(f"{name!r} is made twice, by node {node.name!r} ({node.op_type}) too")
            known.add(name)
    scope = outer | known | {""}
    for node in found:
        for name in node.input:
            if name not in scope:
                raise ModelError(f"node {node.name!r} ({node.op_type}) reads {name!r}, which nothing makes")
        for body in bodies(node):
            _check_values(body, scope)
    for name in results:
        if name not in scope:
            raise ModelError(f"{name!r} is an output, and nothing makes it")


def _check_own_data(tensor: onnx.TensorProto) -> None:
    """Check that ``tensor`` holds as many elements as its type and shape declare.

    Raises:
        ModelError: it does not.
    """
    elements = _elements(tensor)
    held = sum(len(getattr(tensor, field)) for field in _TYPED)
    if tensor.data_type == _STRING:
        if held != elements:
            raise ModelError(f"tensor {tensor.name!r} declares {elements:,} texts and holds {held:,}")
        return
    need = tensor_bytes(tensor)
    if tensor.HasField("raw_data"):
        if len(tensor.raw_data) != need:
            raise ModelError(f"tensor {tensor.name!r} declares {need:,} bytes and holds {len(tensor.raw_data):,}")
    # a complex number is two entries; types below 8 bits are packed, some to the byte and some to the element
    elif not min(need, elements) <= held <= 2 * elements:
        raise ModelError(f"tensor {tensor.name!r} declares {elements:,} elements and holds {held:,}")


def refers_elsewhere(proto: onnx.ModelProto, own: str) -> bool:
    """Whether a tensor's data are in another file than the model's ``own``."""
    external = (t for t in tensors(proto) if t.data_location == onnx.TensorProto.EXTERNAL)
    return any(e.key == "location" and e.value != own for t in external for e in t.external_data)


def check_external_data(proto: onnx.ModelProto, path: Path, own: Path | None) -> None:
    """Check that every tensor's data are where they may be, and complete; ``own``: the model's file, if mapped."""
    base = path.parent.resolve()
    for tensor in tensors(proto):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        entry = {e.key: e.value for e in tensor.external_data}
        location = entry.get("location", "")
        if own is not None and location == own.name:
            _check_size(tensor, entry, own, f"{path}: tensor {tensor.name!r}")
            continue
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
        _check_size(tensor, entry, target, where)


def _check_size(tensor: onnx.TensorProto, entry: dict[str, str], target: Path, where: str) -> None:
    """Check that the part of ``target`` that ``entry`` names holds the data of ``tensor``."""
    try:
        offset, length = int(entry.get("offset", "0")), int(entry.get("length", "-1"))
    except ValueError as error:
        raise ModelError(f"{where} has an offset or length that is no number", hint="export it again") from error
    need, size = tensor_bytes(tensor), target.stat().st_size
    length = need if length < 0 else length
    if offset < 0 or length < need or offset + length > size:
        raise ModelError(
            f"{where}: {target.name!r} has {size} bytes, too few for {need} bytes at offset {offset}",
            hint="the data file is truncated or belongs to another model",
        )


def tensor_bytes(tensor: onnx.TensorProto) -> int:
    """Bytes that the tensor's declared type and shape take.

    Raises:
        ModelError: a negative dimension or an unknown type.
    """
    count = _elements(tensor)
    try:
        bits = ir.DataType(tensor.data_type).bitwidth
    except (ValueError, TypeError) as error:
        raise ModelError(f"tensor {tensor.name!r} has an unknown type {tensor.data_type}") from error
    return (count * bits + 7) // 8


def _elements(tensor: onnx.TensorProto) -> int:
    if any(d < 0 for d in tensor.dims):
        raise ModelError(f"tensor {tensor.name!r} has a negative dimension", hint="the model is damaged")
    count = 1
    for d in tensor.dims:
        count *= d
    return count


def nodes(proto: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Every node: of the main graph, of control-flow bodies and of functions."""
    waiting = [*proto.graph.node, *(n for f in proto.functions for n in f.node)]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += [n for body in bodies(node) for n in body.node]


def names(proto: onnx.ModelProto) -> Iterator[str]:
    all_nodes = list(nodes(proto))
    for node in all_nodes:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output, *(a.name for a in node.attribute))
    for graph in (proto.graph, *(body for node in all_nodes for body in bodies(node))):
        yield from (v.name for v in (*graph.input, *graph.output, *graph.value_info, *graph.initializer))


def bodies(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    return [g for a in node.attribute for g in ([a.g] if a.HasField("g") else []) + list(a.graphs)]


def sparse_tensors(proto: onnx.ModelProto) -> Iterator[onnx.SparseTensorProto]:
    yield from proto.graph.sparse_initializer
    for node in nodes(proto):
        for attribute in node.attribute:
            yield from [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
            yield from attribute.sparse_tensors
        for body in bodies(node):
            yield from body.sparse_initializer


def tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor that the file holds or points to."""
    yield from proto.graph.initializer
    for node in nodes(proto):
        for attribute in node.attribute:
            yield from [attribute.t] if attribute.HasField("t") else []
            yield from attribute.tensors
        for body in bodies(node):
            yield from body.initializer
    for sparse in sparse_tensors(proto):
        yield from (sparse.values, sparse.indices)

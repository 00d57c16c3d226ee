"""Where the bytes of a model are: by the type of its constants, and the rest."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from qconvert.graph.edit import bodies_of
from qconvert.graph.model import Model


def file_bytes(path: Path, model: Model) -> int:
    """Bytes of the file and of the external data files that ``model`` (read from it) refers to."""
    files = {
        Path(v.const_value.path)
        for v in model.ir.graph.initializers.values()
        if isinstance(v.const_value, ir.ExternalTensor)
    }
    return sum(f.stat().st_size for f in {path.resolve(), *(f.resolve() for f in files)} if f.exists())


def size_by_kind(model: Model, total: int) -> dict[str, int]:
    """Bytes by kind: "float32 constants", "int8 constants", ..., and "graph" for structure and names.

    Args:
        model: any model.
        total: bytes of its file or files.
    """
    kinds: dict[str, int] = {}
    for graph in (model.ir.graph, *(g for n in model.ir.graph.all_nodes() for g in bodies_of(n))):
        for value in graph.initializers.values():
            _count(kinds, value.const_value)
    for node in model.ir.graph.all_nodes():
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.TENSOR:
                _count(kinds, attribute.value)
    kinds["graph"] = max(0, total - sum(kinds.values()))
    return dict(sorted(kinds.items(), key=lambda item: -item[1]))


def constants_of(model: Model) -> dict[str, int]:
    """Bytes of every initializer by name, those of control-flow bodies included."""
    graphs = (model.ir.graph, *(g for n in model.ir.graph.all_nodes() for g in bodies_of(n)))
    held = (value for graph in graphs for value in graph.initializers.values() if value.const_value is not None)
    return {value.name or "": int(value.const_value.nbytes) for value in held if value.const_value is not None}


def constants_by_type(model: Model) -> dict[str, str]:
    """The type of every constant by name: initializers and what Constant nodes make, those of bodies included."""
    graphs = (model.ir.graph, *(g for n in model.ir.graph.all_nodes() for g in bodies_of(n)))
    found = {
        value.name or "": str(value.const_value.dtype.name)
        for graph in graphs
        for value in graph.initializers.values()
        if value.const_value is not None
    }
    for node in model.ir.graph.all_nodes():
        tensor = node.attributes.get("value") if node.op_type == "Constant" else None
        if tensor is not None and tensor.type == ir.AttributeType.TENSOR:
            found[node.outputs[0].name or ""] = str(tensor.as_tensor().dtype.name)
    return found


def parameters(model: Model) -> int:
    """Number of elements in float constants."""
    count = 0
    for graph in (model.ir.graph, *(g for n in model.ir.graph.all_nodes() for g in bodies_of(n))):
        for value in graph.initializers.values():
            if value.const_value is not None and value.const_value.dtype.is_floating_point():
                count += int(value.const_value.size)
    for node in model.ir.graph.all_nodes():
        for attribute in node.attributes.values():
            tensor = attribute.value
            if attribute.type == ir.AttributeType.TENSOR and tensor.dtype.is_floating_point():
                count += int(tensor.size)
    return count


def _count(kinds: dict[str, int], tensor: ir.TensorProtocol | None) -> None:
    if tensor is None:
        return
    name = {"FLOAT": "float32", "DOUBLE": "float64"}.get(tensor.dtype.name, tensor.dtype.name.lower())
    kinds[f"{name} constants"] = kinds.get(f"{name} constants", 0) + int(tensor.nbytes)

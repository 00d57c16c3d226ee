"""The interface of a model and the loading of in-memory models into ONNX Runtime."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

import onnx_ir as ir

from qconvert.graph.model import PROTO_LIMIT, Model
from qconvert.graph.session import IOSpec, Session, open_session


def session_of(
    model: Model,
    *,
    threads: int = 0,
    optimize: bool = True,
    layouts: bool = True,
    int8: bool | None = None,
    lean: bool = False,
    integers: bool = True,
    outputs: Iterable[str] | None = None,
    optimized_path: Path | None = None,
    profile_prefix: Path | None = None,
) -> Session:
    """Load an in-memory model; ``outputs`` replaces its outputs by other values of the main graph.

    Values without a known type may be outputs too: ONNX Runtime infers the type itself.
    """
    if outputs is not None:
        model = with_outputs(model, outputs)
    if model.weight_bytes(in_memory=True) <= PROTO_LIMIT:
        data, lent = model.to_skeleton()
        return open_session(
            data,
            folder=model.folder,
            lent=lent,
            threads=threads,
            optimize=optimize,
            layouts=layouts,
            int8=int8,
            lean=lean,
            integers=integers,
            optimized_path=optimized_path,
            profile_prefix=profile_prefix,
            origin=model.path,
        )
    with tempfile.TemporaryDirectory(prefix="qconvert-") as folder:
        path = Path(folder) / "model.onnx"
        ir.save(model.ir.clone(), path, external_data="model.data")
        return open_session(
            path,
            threads=threads,
            optimize=optimize,
            layouts=layouts,
            int8=int8,
            lean=lean,
            integers=integers,
            optimized_path=optimized_path,
            profile_prefix=profile_prefix,
            origin=model.path,
        )


def declared_inputs(model: Model) -> tuple[IOSpec, ...]:
    """The model's inputs as the file declares them, without loading it into ONNX Runtime."""
    found = []
    for value in model.ir.graph.inputs:
        if value.const_value is not None:
            continue
        kind = value.type.dtype.name.lower() if isinstance(value.type, ir.TensorType) else "unknown"
        dtype = {"float": "float32", "double": "float64", "string": "str"}.get(kind, kind)
        shape = tuple(d if isinstance(d, int) else d.value for d in value.shape or ())
        found.append(IOSpec(name=value.name or "", dtype=dtype, shape=shape))
    return tuple(found)


def with_outputs(model: Model, outputs: Iterable[str]) -> Model:
    """A copy of ``model`` whose outputs are the named values of the main graph."""
    copy = model.clone()
    graph = copy.ir.graph
    values = {v.name: v for v in graph.inputs}
    values.update({v.name: v for node in graph for v in node.outputs})
    graph.outputs[:] = [values[name] for name in outputs]
    return copy

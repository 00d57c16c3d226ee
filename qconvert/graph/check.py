"""What must hold of every model that is written."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx
import onnx_ir as ir

from qconvert.graph.model import PROTO_LIMIT, Model
from qconvert.graph.session import IOSpec, Session


def check(model: Model) -> str:
    """ONNX's checker on ``model``: "" when it has no complaint, else its first line."""
    try:
        if model.weight_bytes() <= PROTO_LIMIT:
            onnx.checker.check_model(model.to_bytes())
        else:
            with tempfile.TemporaryDirectory(prefix="qconvert-") as folder:
                path = Path(folder) / "model.onnx"
                ir.save(model.ir.clone(), path, external_data="model.data")
                onnx.checker.check_model(str(path))
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        return str(error).strip().splitlines()[0]
    return ""


def check_file(path: Path) -> str:
    """ONNX's checker on the model at ``path``, whose weights are not read; as :func:`check`."""
    try:
        onnx.checker.check_model(str(path))
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        return str(error).strip().splitlines()[0]
    return ""


def interface_differences(reference: Session, other: Session) -> tuple[str, ...]:
    """Differences between the inputs and outputs of two models, one sentence each."""
    found: list[str] = []
    for kind, before, after in (
        ("input", reference.inputs, other.inputs),
        ("output", reference.outputs, other.outputs),
    ):
        if [s.name for s in before] != [s.name for s in after]:
            found.append(f"{kind}s are {[s.name for s in after]}, the original has {[s.name for s in before]}")
            continue
        found += [difference for a, b in zip(before, after, strict=True) if (difference := _difference(kind, a, b))]
    return tuple(found)


def _difference(kind: str, a: IOSpec, b: IOSpec) -> str:
    if a.dtype != b.dtype:
        return f"{kind} {a.name} is {b.dtype}, in the original {a.dtype}"
    # ONNX Runtime may infer more or fewer symbolic dimensions; sizes that both know must agree
    fixed = [(x, y) for x, y in zip(a.shape, b.shape, strict=False) if isinstance(x, int) and isinstance(y, int)]
    if (a.shape and b.shape and len(a.shape) != len(b.shape)) or any(x != y for x, y in fixed):
        return f"{kind} {a.name} has shape {list(b.shape)}, in the original {list(a.shape)}"
    return ""

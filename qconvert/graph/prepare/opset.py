"""Raise the default operator set when the quantized form needs a newer one."""

from __future__ import annotations

import onnx_ir as ir
import onnxscript.version_converter

from qconvert.errors import ModelError


def raise_opset(model: ir.Model, least: int, notes: list[str]) -> None:
    """Bring ``model`` to opset ``least`` if it is older, in place; onnxscript's converter, ONNX's own below opset 18.

    Raises:
        ModelError: the converters cannot do it.
    """
    now = model.opset_imports.get("", 0)
    if now >= least or now == 0:
        return
    try:
        onnxscript.version_converter.convert_version(model, least, fallback=True)
    except Exception as error:  # ONNX's converter raises RuntimeError and more
        raise ModelError(f"the opset cannot be raised from {now} to {least}: {str(error)[:200]}") from error
    if model.opset_imports.get("", 0) < least:
        raise ModelError(f"the opset could not be raised from {now} to {least}")
    notes.append(f"opset raised from {now} to {model.opset_imports['']}")

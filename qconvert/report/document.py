"""Results as JSON documents; ``schema/quantize.json``, ``schema/compare.json`` and so on describe them.

A document is the image of the result's dataclass: the same names, the same nesting, after the version of the schemas
and the command that made it. Three rules:

- JSON knows no infinity and no NaN, so a number that is not finite is null. A null ``sqnr_db`` means: no error at all
  if ``max_abs_error`` is 0 (no output differs); not a number if ``numeric`` is false; otherwise nothing in common.
- ``times_ms``, every single run of a latency measurement, and the histograms of tensors are left out.
- Tuples and arrays are lists.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path

import numpy as np

from qconvert.errors import InternalError
from qconvert.report.model import SCHEMA_VERSION
from qconvert.report.result import Result, command_of

LEFT_OUT = frozenset({"times_ms", "histogram"})


def to_document(result: Result) -> dict[str, object]:
    """``result`` as plain data that ``json.dumps(..., allow_nan=False)`` takes; the schema's version comes first."""
    body = {f.name: to_plain(getattr(result, f.name)) for f in fields(result)}
    return {"schema_version": SCHEMA_VERSION, "command": command_of(result), **body}


def to_plain(value: object) -> object:
    """Dataclasses, mappings, sequences, paths, numpy and Python scalars as dicts, lists, strings, numbers and null.

    Raises:
        InternalError: something else is among them.
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, np.ndarray | np.generic):
        return to_plain(value.tolist())
    if isinstance(value, Path):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in fields(value) if f.name not in LEFT_OUT}
    if isinstance(value, Mapping):
        return {str(k): to_plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(v) for v in value]
    if isinstance(value, set | frozenset):
        return [to_plain(v) for v in sorted(value)]
    raise InternalError(f"a report cannot hold a {type(value).__name__}")

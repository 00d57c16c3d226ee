"""The report as a JSON document; ``schema.json`` beside this file describes it.

The document is the image of :class:`~qconvert.report.model.Report`: the same names, the same nesting. Three rules:

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
from qconvert.report.model import Report

LEFT_OUT = frozenset({"times_ms", "histogram"})


def to_document(report: Report) -> dict[str, object]:
    """``report`` as plain data that ``json.dumps(..., allow_nan=False)`` takes; the schema's version comes first."""
    body = {f.name: to_plain(getattr(report, f.name)) for f in fields(report)}
    return {"schema_version": body.pop("schema_version"), **body}


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

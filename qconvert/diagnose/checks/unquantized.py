"""Models that are not quantized at all."""

from __future__ import annotations

from collections.abc import Iterator

from qconvert.diagnose.finding import CHECKS, Check, Finding, Severity, Subject


def _unquantized(subject: Subject) -> Iterator[Finding]:
    if not subject.quantized_ops:
        yield Finding(
            check="unquantized",
            severity=Severity.WARNING,
            what="the model is not quantized: it holds no integer operator and no QuantizeLinear",
            nodes=(),
            cost=f"{subject.constant_bytes:,} bytes of constants, of which weights would take a quarter",
            cure=f"qconvert quantize {subject.path} --calib DATA",
            bytes=subject.constant_bytes * 3 // 4,
        )


CHECKS.add("unquantized", Check(title="models that are not quantized", run=_unquantized, float_models=True))

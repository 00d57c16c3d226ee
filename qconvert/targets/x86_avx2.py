"""ONNX Runtime's CPU provider on x86 without VNNI (AVX2, and AVX-512 before Cascade Lake).

The scheme is that of x86 with VNNI, but two products are added in 16 bits there, which saturates. Weights are made such
that no sum can: only the channels that could are changed. What runs as integers, and what it costs, is taken over from
x86 with VNNI; nothing was timed on such a processor.
"""

from __future__ import annotations

from dataclasses import replace

from qconvert.targets.target import register
from qconvert.targets.x86_vnni import X86_VNNI

X86_AVX2 = register(
    replace(
        X86_VNNI,
        name="x86-avx2",
        title="ONNX Runtime on x86 without VNNI",
        purpose="older servers and PCs, and any processor that is not known",
        boundary="taken over from x86 with VNNI [1]",
        saturates=True,
        # which products are added in 16 bits depends on where weights stand, and folding moves them
        convolutions=replace(X86_VNNI.convolutions, folds=()) if X86_VNNI.convolutions is not None else None,
        # weights of the dynamic form are not made smaller, so its sums could saturate
        capabilities={
            **X86_VNNI.capabilities,
            **{op: replace(X86_VNNI.capabilities[op], forms=()) for op in ("Conv", "LSTM")},
        },
    )
)

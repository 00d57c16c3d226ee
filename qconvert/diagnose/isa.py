"""Which integer instructions a processor has: what ONNX Runtime's kernels differ by."""

from __future__ import annotations

import platform
from enum import Enum

from qconvert.machine import X86, this_processor


class Isa(Enum):
    """What integer kernels run on.

    VNNI: x86 whose products of bytes are added in 32 bits.
    AVX2: x86 that adds them in 16 bits, with saturation.
    OTHER: not x86; nothing is known of it here.
    """

    VNNI = "vnni"
    AVX2 = "avx2"
    OTHER = "other"

    @property
    def title(self) -> str:
        """For people."""
        return {Isa.VNNI: "x86 with VNNI", Isa.AVX2: "x86 without VNNI", Isa.OTHER: platform.machine()}[self]


def this_machine() -> Isa:
    """The instructions of the processor that runs this; an x86 that does not tell is taken for one without VNNI."""
    processor = this_processor()
    if processor.architecture != X86:
        return Isa.OTHER
    return Isa.VNNI if processor.vnni else Isa.AVX2

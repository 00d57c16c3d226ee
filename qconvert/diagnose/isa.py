"""Which integer instructions a processor has: what ONNX Runtime's kernels differ by."""

from __future__ import annotations

import platform
import re
from enum import Enum
from pathlib import Path


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
    if platform.machine().lower() not in ("x86_64", "amd64", "x86", "i386", "i686"):
        return Isa.OTHER
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return Isa.AVX2
    return Isa.VNNI if re.search(r"\bavx(512)?_vnni\b", flags) else Isa.AVX2

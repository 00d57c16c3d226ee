"""The processor that runs this: its architecture and the integer instructions that kernels differ by."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
from dataclasses import dataclass

X86, ARM = "x86_64", "aarch64"
_SPELLINGS = {X86: ("x86_64", "amd64", "x86", "i386", "i686"), ARM: ("aarch64", "arm64")}
# as archspec names the features of AVX-VNNI and AVX512-VNNI, without underscores, which macOS does not write
_VNNI = frozenset({"avxvnni", "avx512vnni"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Processor:
    """A processor.

    Attributes:
        name: for people ("AMD EPYC 9454P").
        architecture: "x86_64" or "aarch64", whatever the system calls these; others by the system's own word.
        vnni: whether it has products of bytes that are added in 32 bits (AVX-VNNI or AVX512-VNNI).
    """

    name: str
    architecture: str
    vnni: bool

    def __str__(self) -> str:
        if self.architecture != X86:
            return f"{self.name} ({self.architecture})"
        return f"{self.name} ({self.architecture}, {'with' if self.vnni else 'without'} VNNI)"


def cores() -> int:
    """How many cores this process may use, as far as the system tells."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@functools.cache
def this_processor() -> Processor:
    """The processor that runs this; one that does not tell what it has is taken to have nothing."""
    machine = platform.machine().lower()
    architecture = next((name for name, words in _SPELLINGS.items() if machine in words), machine or "unknown")
    # docs/decisions/0015 says why archspec, and why not what its public host() returns
    from archspec.cpu import brand_string
    from archspec.cpu.detect import detected_info

    features: set[str] = set()
    name = ""
    # what a system lets a process see of its processor differs, and so does how looking fails
    with contextlib.suppress(Exception):
        found = detected_info()
        features = {feature.replace("_", "").lower() for feature in found.features}
        name = found.vendor
    with contextlib.suppress(Exception):
        name = brand_string() or name
    return Processor(
        name=name or "unnamed processor", architecture=architecture, vnni=architecture == X86 and bool(_VNNI & features)
    )

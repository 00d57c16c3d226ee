"""``auto``: the target that this machine is."""

from __future__ import annotations

from dataclasses import dataclass

from qconvert.errors import RecipeError
from qconvert.machine import ARM, X86, Processor, this_processor
from qconvert.registry import suggest
from qconvert.targets.target import TARGETS, Target

AUTO = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Detected:
    """What this machine is.

    Attributes:
        target: name of its target.
        processor: what was found.
    """

    target: str
    processor: Processor


def target_for(processor: Processor) -> str:
    """Name of the target of ``processor``.

    The safe choice for one that is not known is ``x86-avx2``: any of ONNX Runtime's CPU kernels takes its scheme, and
    its weights cannot saturate on any.
    """
    if processor.architecture == X86 and processor.vnni:
        return "x86-vnni"
    # 32-bit ARM has no target of its own, but the same kernels
    if processor.architecture == ARM or processor.architecture.startswith("arm"):
        return "arm64"
    return "x86-avx2"


def detected() -> Detected:
    """The target of this machine."""
    processor = this_processor()
    return Detected(target=target_for(processor), processor=processor)


def target_of(name: str) -> Target:
    """The target called ``name``, this machine's for "auto".

    Raises:
        RecipeError: there is none of that name.
    """
    target = TARGETS.find(detected().target if name == AUTO else name)
    if target is None:
        raise RecipeError(f"unknown target {name!r}", hint=suggest(name, (AUTO, *TARGETS.names())))
    return target

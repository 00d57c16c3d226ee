"""Target: what a runtime on a processor runs as integers, and what that costs there.

Costs are nanoseconds for each unit of work on one thread; only their proportions matter. They weigh one placement
against another where nothing has been measured on the model itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from qconvert.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Capability:
    """One operator on one target.

    Attributes:
        integer: whether the runtime has an integer kernel for it that a quantized graph reaches.
        reason: why not, or a note; shown to people.
        float_result: the integer kernel can write a float result (MatMulIntegerToFloat), so no DequantizeLinear is
            paid.
        weights_only: there is no integer kernel, but holding the weights as integers and unpacking them at each run
            costs little beside the operator itself, and the file shrinks.
        on_codes: the runtime does not fuse Q/DQ around it, but runs the operator on integer tensors: emit it on the
            codes.
        float_ns, integer_ns: cost for each output element of the float and the integer kernel.
    """

    integer: bool
    reason: str = ""
    float_result: bool = False
    weights_only: bool = False
    on_codes: bool = False
    float_ns: float = 0.2
    integer_ns: float = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvolutionCosts:
    """What a convolution costs, by its shape.

    Kernels compute ``lane`` output channels together, so channels count up to the next multiple of it.

    Attributes:
        lane: output channels that are computed together.
        float_ps, integer_ps: picoseconds for each multiply-accumulate of a dense convolution.
        depthwise_float_ps, depthwise_integer_ps: likewise where every channel has its own filter.
        odd_depthwise: factor on the integer depthwise cost when the channels are no multiple of the lane.
        gather_ns: (most input channels, ns) in rising order: what gathering the inputs of one output pixel costs the
            integer kernel, for kernels larger than 1x1; few channels make short, slow copies.
        odd_ns: ns for each output pixel of a dense integer convolution whose output channels are no multiple of the
            lane.
    """

    lane: int
    float_ps: float
    integer_ps: float
    depthwise_float_ps: float
    depthwise_integer_ps: float
    odd_depthwise: float
    gather_ns: tuple[tuple[int, float], ...]
    odd_ns: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A runtime on a kind of processor.

    Attributes:
        name: "x86-vnni".
        title: for people.
        activations, weights: preferred integer types.
        symmetric_activations: whether activations should be symmetric.
        per_channel: whether weights should have a scale a channel.
        capabilities: by operator ("Conv", "com.microsoft:Gelu").
        quantize_ns, dequantize_ns: cost of a boundary for each element, layout change included.
        saturates: its kernels add two products of an unsigned and a signed byte in 16 bits, so weights must be kept
            small enough (numerics/saturation.py).
        fuses_int8: whether ONNX Runtime's CPU provider fuses pairs of int8 activations there wherever it fuses uint8;
            None where another runtime runs the model, and ONNX Runtime's fusions say nothing about it.
        convolutions: what convolutions cost by shape; None where nothing is known, and all run on integers.
        products: whether a MatMul of two activations should run on integers, and why (not).
    """

    name: str
    title: str
    activations: str
    weights: str
    symmetric_activations: bool
    per_channel: bool
    quantize_ns: float
    dequantize_ns: float
    products: Capability
    saturates: bool = False
    fuses_int8: bool | None = False
    convolutions: ConvolutionCosts | None = None
    capabilities: Mapping[str, Capability] = field(default_factory=dict)

    def capability(self, op: str) -> Capability:
        """What the target can do with operator ``op``."""
        return self.capabilities.get(
            op, Capability(integer=False, reason=f"no integer kernel for {op} on {self.title}")
        )


TARGETS: Registry[Target] = Registry("target")


def register(target: Target) -> Target:
    """Add a target to ``TARGETS``."""
    return TARGETS.add(target.name, target)

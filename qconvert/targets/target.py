"""Target: what a runtime on a processor runs as integers, and what that costs there.

Costs are nanoseconds for each unit of work on one thread; only their proportions matter. They weigh one placement
against another where nothing has been measured on the model itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

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
        one_scale: all that it reads and writes has to have one scale and zero point, where the operator's rule leaves
            that open.
        saturating_sum: it has no kernel of its own, but is written as an Add whose codes saturate
            (emit/saturating_sums.py).
        as_filter: its kernel is slow; it is written as a depthwise convolution (emit/averages.py), or stays float where
            it is none.
        rewritten: preparation writes it otherwise where it can: its kernel is slow (graph/prepare/prelu.py), it has
            none for integers (deconvolution.py), or as a product of activations it merges the Transposes in front of
            it, also those of the first dimension (attention.py).
        output_range: the range that the runtime demands of its result, whatever the data; None where it demands none.
        forms: other ways to write it that the runtime has (forms.py); taken where they are measured to be faster, or
            where a recipe names them.
        float_ns, integer_ns: cost for each output element of the float and the integer kernel.
    """

    integer: bool
    reason: str = ""
    float_result: bool = False
    weights_only: bool = False
    on_codes: bool = False
    one_scale: bool = False
    saturating_sum: bool = False
    as_filter: bool = False
    rewritten: bool = False
    output_range: tuple[float, float] | None = None
    forms: tuple[str, ...] = ()
    float_ns: float = 0.2
    integer_ns: float = 0.2

    def behind_pairs(self, reason: str, *, float_result: bool = False) -> Capability:
        """The same on integers, for a runtime that has kernels of its own and takes what stands behind Q/DQ pairs."""
        return replace(
            self,
            integer=True,
            reason=reason,
            float_result=float_result,
            on_codes=False,
            as_filter=False,
            rewritten=False,
            forms=(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelCosts:
    """What one kernel takes for a convolution.

    ns = call + pixels x (pixel + taps x tap + taps x channels in x gathered + channels out x written) + products x ps

    Attributes:
        call_ns, pixel_ns, tap_ns, gathered_ns, written_ns: as above; pixels are those of the result.
        product_ps: picoseconds for each multiply-accumulate.
    """

    call_ns: float
    product_ps: float
    pixel_ns: float = 0.0
    tap_ns: float = 0.0
    gathered_ns: float = 0.0
    written_ns: float = 0.0

    def ns(self, *, pixels: int, taps: int, channels_in: int, channels_out: int, products: int) -> float:
        """Nanoseconds; ``channels_in`` that each output channel reads, ``products`` in all."""
        each = self.tap_ns + channels_in * self.gathered_ns
        return (
            self.call_ns
            + pixels * (self.pixel_ns + taps * each + channels_out * self.written_ns)
            + products * self.product_ps / 1000
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvolutionCosts:
    """What a convolution takes, by its shape.

    Attributes:
        lane: output channels that dense kernels compute together, and all kernels in float: channels count up to the
            next multiple of it.
        dense_float, depthwise_float: the kernels in float.
        direct, gathered: the integer kernels of dense convolutions: ``direct`` where input channels are a multiple of
            ``direct_in`` and output channels at least ``direct_out``.
        depthwise: (a divisor of the channels, the integer kernel where every channel has its own filter), the first
            that fits.
        folds: how many pixels of a row may count as one with as many times the channels, so that ``direct`` runs them
            (plan/folding.py); none where the runtime has no such kernel, or it is not known.
        unfolded: a convolution as a product that quantizes what it reads as the model runs (emit/unfolded.py); None
            where that is not known.
    """

    lane: int
    dense_float: KernelCosts
    depthwise_float: KernelCosts
    direct: KernelCosts
    gathered: KernelCosts
    depthwise: tuple[tuple[int, KernelCosts], ...]
    direct_in: int
    direct_out: int
    folds: tuple[int, ...] = ()
    unfolded: KernelCosts | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A runtime on a kind of processor.

    Attributes:
        name: "x86-vnni".
        title: for people.
        purpose: what it is for, a sentence fragment.
        types: (activations, weights), the pairs of integer types that it runs; the first one is preferred.
        emulates: further pairs that it takes and computes in float between conversions: for trying out models that are
            meant for another runtime.
        symmetric_activations: whether activations should be symmetric.
        only_symmetric: it cannot run asymmetric ones.
        per_channel: whether weights should have a scale a channel.
        formats: the forms of quantized graph that it reads; the first one is preferred.
        host: the architecture on which ONNX Runtime's CPU provider is this runtime ("x86_64"), so that what it makes of
            the model can be seen there; "" for other runtimes.
        capabilities: by operator ("Conv", "com.microsoft:Gelu").
        others: why operators that ``capabilities`` does not name stay float.
        quantize_ns, dequantize_ns: cost of a boundary for each element, layout change included.
        boundary: that cost in words, and where it comes from.
        saturates: its kernels add two products of an unsigned and a signed byte in 16 bits, so weights must be kept
            small enough (numerics/saturation.py).
        float_bias: biases stay float: it adds them itself, in the scale that it accumulates in.
        residuals: of an Add behind a weighted operator the other operand is quantized, and nothing else.
        integer_only: it has no float arithmetic: every operator runs on integers, inputs and outputs are integers.
        fuses_int8: ONNX Runtime's CPU provider fuses pairs of int8 activations there wherever it fuses uint8.
        convolutions: what convolutions cost by shape; None where nothing is known, and all run on integers.
        products: whether a MatMul of two activations should run on integers, and why (not).
        sources: what the statements above and in ``capabilities`` rest on, numbered from 1 in their texts.
    """

    name: str
    title: str
    purpose: str
    types: tuple[tuple[str, str], ...]
    symmetric_activations: bool
    per_channel: bool
    formats: tuple[str, ...]
    quantize_ns: float
    dequantize_ns: float
    boundary: str
    products: Capability
    sources: tuple[str, ...]
    emulates: tuple[tuple[str, str], ...] = ()
    only_symmetric: bool = False
    host: str = ""
    saturates: bool = False
    float_bias: bool = False
    residuals: bool = False
    integer_only: bool = False
    fuses_int8: bool = False
    convolutions: ConvolutionCosts | None = None
    capabilities: Mapping[str, Capability] = field(default_factory=dict)
    others: str = ""

    @property
    def activations(self) -> str:
        """The preferred integer type of activations."""
        return self.types[0][0]

    @property
    def weights(self) -> str:
        """The preferred integer type of weights."""
        return self.types[0][1]

    @property
    def rewritten(self) -> frozenset[str]:
        """The operators that preparation writes otherwise, or what stands in front of them."""
        return frozenset(op for op, c in self.capabilities.items() if c.rewritten)

    @property
    def unpacks(self) -> bool:
        """Whether weights of operators that compute in float are stored as integers and unpacked before they run."""
        return any(c.weights_only for c in self.capabilities.values())

    def capability(self, op: str) -> Capability:
        """What the target can do with operator ``op``."""
        return self.capabilities.get(
            op, Capability(integer=False, reason=self.others or f"no integer kernel for {op} on {self.title}")
        )


# what ONNX Runtime's CPU provider reads and computes in float, for want of 16-bit kernels (measured with 1.32)
WIDE_TYPES = (("uint16", "int8"), ("int16", "int8"), ("uint16", "int4"), ("int16", "int4"))

TARGETS: Registry[Target] = Registry("target")


def register(target: Target) -> Target:
    """Add a target to ``TARGETS``."""
    return TARGETS.add(target.name, target)

"""A read-only picture of a canonical model, in plain Python, for the layers that decide.

Tensors are known by name (ONNX names are unique in a graph), nodes by name too (``prepare`` names every node).
Only the main graph is pictured; what control-flow bodies use of it shows as :attr:`TensorView.captured`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Dim = int | str | None
"""A dimension: its size, the name of a symbolic one, or None when unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorView:
    """A value of the graph.

    Attributes:
        name: its unique name.
        dtype: numpy-style type name ("float32", "int64", "string"), "" when unknown or not a tensor.
        shape: dimensions, None when the rank is unknown.
        producer: name of the node that makes it; None for inputs and constants.
        consumers: (node name, input port) pairs of the main graph, in graph order.
        is_input, is_output: part of the model's interface.
        is_constant: an initializer.
        captured: read by a control-flow body.
    """

    name: str
    dtype: str
    shape: tuple[Dim, ...] | None
    producer: str | None
    consumers: tuple[tuple[str, int], ...]
    is_input: bool = False
    is_output: bool = False
    is_constant: bool = False
    captured: bool = False

    @property
    def rank(self) -> int | None:
        """Number of dimensions, None when unknown."""
        return None if self.shape is None else len(self.shape)

    @property
    def is_float(self) -> bool:
        """Whether it holds float32 values, the only ones that are quantized."""
        return self.dtype == "float32"

    def elements(self) -> int:
        """Number of elements, counting each unknown dimension as 1."""
        return math.prod(d for d in self.shape or () if isinstance(d, int))


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeView:
    """An operation of the main graph. ``inputs`` holds None where an optional input is absent."""

    name: str
    op_type: str
    domain: str
    inputs: tuple[str | None, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, object] = field(default_factory=dict)
    has_bodies: bool = False

    def input(self, port: int) -> str | None:
        """The tensor at ``port``, None when absent."""
        return self.inputs[port] if port < len(self.inputs) else None

    def attr_int(self, name: str, default: int) -> int:
        """An integer attribute."""
        value = self.attributes.get(name, default)
        return int(value) if isinstance(value, (int, np.integer)) else default

    def attr_float(self, name: str, default: float) -> float:
        """A float attribute."""
        value = self.attributes.get(name, default)
        return float(value) if isinstance(value, (int, float)) else default

    def attr_ints(self, name: str, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """An attribute that is a list of integers."""
        value = self.attributes.get(name)
        return tuple(int(v) for v in value) if isinstance(value, (list, tuple)) else default

    @property
    def is_padded(self) -> bool:
        """Whether a window, of a convolution or a pool, reads zeros around its input."""
        return any(self.attr_ints("pads")) or self.attr_str("auto_pad", "NOTSET") not in ("NOTSET", "VALID")

    def attr_str(self, name: str, default: str) -> str:
        """A string attribute."""
        value = self.attributes.get(name, default)
        return value if isinstance(value, str) else default


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphView:
    """The main graph: nodes in topological order and tensors by name.

    Attributes:
        opset: version of the default domain.
        constant: gives the value of a constant tensor by name (read lazily).
        largest: gives the largest absolute value of a constant tensor by name: inf if it holds NaN or infinite values,
            NaN if it is empty.
        body_parameters: number of float parameters held inside control-flow bodies.
        inner: (place, name, operator type) of each node of these bodies, at any depth.
    """

    nodes: Mapping[str, NodeView]
    tensors: Mapping[str, TensorView]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    opset: int
    constant: Callable[[str], NDArray[np.generic]]
    largest: Callable[[str], float]
    body_parameters: int = 0
    inner: tuple[tuple[str, str, str], ...] = ()

    def producer(self, tensor: str) -> NodeView | None:
        """The node that makes ``tensor``."""
        t = self.tensors.get(tensor)
        return self.nodes[t.producer] if t is not None and t.producer is not None else None

    def consumers(self, tensor: str) -> tuple[tuple[NodeView, int], ...]:
        """The nodes that read ``tensor``, with the port each reads it at."""
        t = self.tensors.get(tensor)
        return tuple((self.nodes[n], p) for n, p in t.consumers) if t is not None else ()

    def is_constant(self, tensor: str | None) -> bool:
        """Whether ``tensor`` is there and constant."""
        return tensor is not None and tensor in self.tensors and self.tensors[tensor].is_constant

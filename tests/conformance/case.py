"""Case: a small model as data, and the inputs that it is calibrated and compared on.

    Case(name="relu", body="c = Conv(x, w)\\n y = Relu(c)", inputs={"x": (1, 3, 5, 5)}, constants={"w": (4, 3, 3, 3)})

``body`` is ONNX text, one node a line. A shape stands for random numbers of that shape; what is random depends on the
case's name alone.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from zlib import crc32

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper, parser

Shape = tuple[int, ...]
Array = NDArray[np.generic]


@dataclass(frozen=True, kw_only=True)
class Uniform:
    """A float input of ``shape`` with values between ``lo`` and ``hi``; the first ``dynamic`` sizes are left open."""

    shape: Shape
    lo: float = -2.0
    hi: float = 3.0
    dynamic: int = 0


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model, and what must come of it.

    Attributes:
        name: unique, readable.
        body: nodes as ONNX text, one a line, or a function from the opset to that text.
        inputs: by name; a shape stands for Uniform(shape), an array is fed as it is.
        constants: initializers by name; a shape stands for normal numbers, an array for itself.
        outputs: names of the model's outputs.
        stays_float: operators that no placement quantizes here, each because its rule objects.
        opsets: operator sets that the case exists in.
        simplify: whether the model is brought into canonical form, which replaces some operators by others.
        least_db: least signal-to-noise ratio against FP32.
    """

    name: str
    body: str | Callable[[int], str]
    inputs: Mapping[str, Shape | Uniform | Array] = field(default_factory=lambda: {"x": (1, 4, 6, 6)})
    constants: Mapping[str, Shape | Array | np.generic] = field(default_factory=dict)
    outputs: tuple[str, ...] = ("y",)
    stays_float: tuple[str, ...] = ()
    opsets: tuple[int, ...] = (13, 17, 21)
    simplify: bool = True
    least_db: float = 25.0

    def model(self, opset: int) -> onnx.ModelProto:
        """The FP32 model at ``opset``."""
        text = self.body if isinstance(self.body, str) else self.body(opset)
        nodes = [parser.parse_node(line.strip()) for line in text.splitlines() if line.strip()]
        graph = helper.make_graph(
            nodes,
            "case",
            [
                helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), self._declared(n, a.shape))
                for n, a in self.feed().items()
            ],
            [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in self.outputs],
            [numpy_helper.from_array(self._constant(n), n) for n in self.constants],
        )
        domains = sorted({n.domain for n in nodes} - {""})
        imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
        return helper.make_model(graph, opset_imports=imports, ir_version=8)

    def feed(self) -> dict[str, Array]:
        """The inputs."""
        return {n: self._input(n, v) for n, v in self.inputs.items()}

    def _declared(self, name: str, shape: Shape) -> tuple[int | str, ...]:
        given = self.inputs[name]
        dynamic = given.dynamic if isinstance(given, Uniform) else 0
        return (*"NABC"[:dynamic], *shape[dynamic:])

    def _input(self, name: str, value: Shape | Uniform | Array) -> Array:
        if isinstance(value, np.ndarray | np.generic):
            return np.asarray(value)
        given = value if isinstance(value, Uniform) else Uniform(shape=value)
        drawn = self._random(name).uniform(given.lo, given.hi, given.shape)
        return np.asarray(drawn, np.float32)

    def _constant(self, name: str) -> Array:
        value = self.constants[name]
        if not isinstance(value, tuple):
            return np.asarray(value)
        return np.asarray(self._random(name).normal(0.0, 0.5, value), np.float32)

    def _random(self, name: str) -> np.random.Generator:
        return np.random.default_rng(crc32(f"{self.name}/{name}".encode()))


def all_cases() -> tuple[Case, ...]:
    """Every case of every file in ``cases/``."""
    folder = importlib.import_module("conformance.cases")
    modules = [importlib.import_module(f"conformance.cases.{m.name}") for m in pkgutil.iter_modules(folder.__path__)]
    found = tuple(c for m in modules for c in m.CASES)
    if len({c.name for c in found}) < len(found):
        raise ValueError("two cases have the same name")
    return found

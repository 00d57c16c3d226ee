"""Integer storage of constants: weights, biases and tables. Equal constants under equal parameters are stored once."""

from __future__ import annotations

from dataclasses import dataclass, field

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qconvert.graph.build_view import transposed_constant
from qconvert.graph.edit import add_initializer
from qconvert.numerics.affine import quantize
from qconvert.numerics.spec import PerAxis, QParams, QuantSpec


@dataclass(slots=True, kw_only=True)
class Stored:
    """Codes, scale and zero point of one constant, as initializers."""

    codes: ir.Value
    scale: ir.Value
    zero_point: ir.Value


@dataclass(slots=True, kw_only=True)
class ConstantStore:
    """Adds integer constants to a graph."""

    graph: ir.Graph
    _seen: dict[tuple[str, bytes, bytes, int | None], Stored] = field(default_factory=dict)
    _zeros: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = field(default_factory=dict)

    def put(self, name: str, array: NDArray[np.generic], params: QParams) -> Stored:
        """Store ``array`` under ``params``, once: the same name and numbers give the same values again."""
        key = (name, params.scale.tobytes(), params.zero_point.tobytes(), params.spec.axis)
        if key not in self._seen:
            codes = _stored(quantize(np.asarray(array, np.float32), params), params)
            self._seen[key] = Stored(
                codes=add_initializer(self.graph, f"{name}_q", codes),
                scale=add_initializer(self.graph, f"{name}_s", params.scale),
                zero_point=self.zero_point(params),
            )
        return self._seen[key]

    def zero_point(self, params: QParams) -> ir.Value:
        """The zero point of ``params``; few different ones exist in a model, each is stored once."""
        zero = _stored(params.zero_point, params)
        key = (zero.dtype.name, zero.shape, zero.tobytes())
        if key not in self._zeros:
            values = np.unique(params.zero_point)
            parts = [
                params.spec.qtype.name if zero.dtype.kind == "V" else zero.dtype.str[1:],
                *(str(d) for d in zero.shape),
                *(str(v) for v in values[:1]),
            ]
            self._zeros[key] = add_initializer(self.graph, "_".join(["zp", *parts]).replace("-", "m"), zero)
        return self._zeros[key]

    def weight(
        self, value: ir.Value, params: QParams, array: NDArray[np.generic] | None = None
    ) -> tuple[ir.Value, ir.Value, ir.Value]:
        """(codes, scale, zero point) of a constant weight; one behind a Transpose is stored as its source and
        transposed as codes, so that a matrix shared with an embedding table is stored once.

        Args:
            value: the weight.
            params: how it is stored.
            array: what is stored in place of the weight's own numbers, of the same shape.
        """
        behind = transposed_constant(value) if value.const_value is None else None
        if behind is None:
            stored = self.put(value.name or "weight", _array(value) if array is None else array, params)
            return stored.codes, stored.scale, stored.zero_point
        source, perm = behind
        axis = params.spec.axis
        granularity = params.spec.granularity if axis is None else PerAxis(axis=perm[axis])
        spec = QuantSpec(
            qtype=params.spec.qtype,
            symmetric=params.spec.symmetric,
            granularity=granularity,
            narrow_range=params.spec.narrow_range,
        )
        moved = QParams(spec=spec, scale=params.scale, zero_point=params.zero_point)
        numbers = _array(source) if array is None else np.transpose(array, np.argsort(perm))
        stored = self.put(source.name or "weight", numbers, moved)
        transpose = ir.node(
            "Transpose", [stored.codes], attributes={"perm": list(perm)}, name=f"{value.name}_codes_Transpose"
        )
        transpose.outputs[0].name = f"{value.name}_q"
        transpose.outputs[0].type = stored.codes.type
        producer = value.producer()
        if producer is not None:
            self.graph.insert_before(producer, transpose)
        return transpose.outputs[0], stored.scale, stored.zero_point


def _stored(codes: NDArray[np.generic], params: QParams) -> NDArray[np.generic]:
    """``codes`` in the type that ONNX stores them in, which numpy alone has not got for 4 bits."""
    return codes.astype(ml_dtypes.int4) if params.spec.qtype.bits == 4 else codes


def _array(value: ir.Value) -> NDArray[np.generic]:
    if value.const_value is None:
        raise KeyError(value.name)
    return value.const_value.numpy()


def constant_array(value: ir.Value) -> NDArray[np.generic]:
    """The value of a constant, also of one behind a Transpose."""
    behind = transposed_constant(value) if value.const_value is None else None
    return _array(value) if behind is None else np.transpose(_array(behind[0]), behind[1])

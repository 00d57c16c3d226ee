"""A model that computes in float16 or bfloat16, made one that computes in float32.

    x (float16) -> Conv(w float16) -> y (float16)     ->     x -> Cast -> Conv(w float32) -> y_fp32 -> Cast -> y

ONNX Runtime's CPU provider has hardly a kernel for 16-bit floats: it casts to float32 and back around every operator.
So float32 throughout is what it computes, without the rounding in between. Every constant, attribute and body follows;
only inputs and outputs keep their types, behind one Cast each. Casts that join the two types in a mixed model vanish.

What float16 cannot hold, float32 can: -65504 and -inf in masks mean the same there. A model that reads and makes 16-bit
floats in Casts alone does not compute in them: it stores weights so, or rounds on purpose, and stays as it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import ml_dtypes  # noqa: F401  (numpy's bfloat16, which constants may be in)
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qconvert.graph.edit import take_over, unused, values_of
from qconvert.graph.infer import infer_types
from qconvert.graph.model import Model, unmap

HALVES = {ir.DataType.FLOAT16: "float16", ir.DataType.BFLOAT16: "bfloat16"}
"""The types that are widened, by the names that people read."""

# Attributes that hold a data type, of whatever operator.
_TYPED = ("to", "dtype", "output_dtype", "output_datatype", "softmax_precision")
# The factors of Gelu, its approximations and hard swish. By their values ONNX Runtime and the planner know these
# functions where exporters have taken them apart, and rounded to 16 bits they would not.
_FACTORS = (math.sqrt(2), math.sqrt(0.5), math.sqrt(2 / math.pi), 0.044715, 1.702, 1 / 6)

# Operators that change or pass on a type, and compute nothing.
_NO_WORK = frozenset({"Cast", "Constant", "Identity"})


def half_constants(model: Model) -> str:
    """The 16-bit float type that constants of ``model`` are stored in; "" if there are none."""
    return next((HALVES[t.dtype] for t in _constants(model.ir) if t.dtype in HALVES), "")


def widened(source: Model, *, load: bool = True) -> tuple[Model, str] | None:
    """(a copy of ``source`` that computes in float32, what it computes in itself); None where that is float32 already.

    Args:
        source: any model; it is not changed.
        load: types may be found out by loading it, and weights are converted at once; else one by one, when read.
    """
    if not _holds_halves(source.ir):
        return None
    model = source.clone()
    infer_types(model, load=load)
    kind = _computes_in(model.ir)
    ports = (*model.ir.graph.inputs, *model.ir.graph.outputs)
    if not kind or any(_has_half(v.type) and not isinstance(v.type, ir.TensorType) for v in ports):
        return None
    _Widening(model.ir, lazy=not load).run()
    return model, kind


def _holds_halves(model: ir.Model) -> bool:
    ports = (*model.graph.inputs, *model.graph.outputs)
    if any(_has_half(v.type) for v in ports) or any(t.dtype in HALVES for t in _constants(model)):
        return True
    return any(_names_half(node, key) for node in _nodes(model) for key in _TYPED)


def _computes_in(model: ir.Model) -> str:
    """The 16-bit type that an operator of ``model`` reads or makes, other than to cast it; "" where there is none."""
    for node in _nodes(model):
        if node.op_type not in _NO_WORK:
            for value in (*node.inputs, *node.outputs):
                if value is not None and _has_half(value.type):
                    return HALVES[value.type.dtype] if value.type is not None else ""
    return ""


def _nodes(model: ir.Model) -> Iterator[ir.Node]:
    yield from model.graph.all_nodes()
    for function in model.functions.values():
        yield from function.all_nodes()


def _constants(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    for graph in model.graphs():
        yield from (v.const_value for v in graph.initializers.values() if v.const_value is not None)
    for node in _nodes(model):
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.TENSOR and attribute.value is not None:
                yield attribute.value


def _has_half(kind: ir.TypeProtocol | None) -> bool:
    return kind is not None and kind.dtype in HALVES


def _names_half(node: ir.Node, key: str) -> bool:
    attribute = node.attributes.get(key)
    return attribute is not None and attribute.type == ir.AttributeType.INT and attribute.value in HALVES


class _Widening:
    """The work on one model, in place."""

    def __init__(self, model: ir.Model, *, lazy: bool) -> None:
        self.model, self.lazy = model, lazy
        self.graphs = list(model.graphs())
        self.taken = {v.name for g in self.graphs for v in (*values_of(g), *g)}

    def run(self) -> None:
        main = self.model.graph
        inputs = [v for v in main.inputs if _has_half(v.type) and (v.uses() or v.is_graph_output())]
        outputs = {v: v.type for v in main.outputs if _has_half(v.type) and not v.is_graph_input()}
        kept = set(main.inputs)
        for node in _nodes(self.model):
            self._attributes(node)
        for graph in self.graphs:
            for value in values_of(graph):
                if value not in kept:
                    self._retype(value)
        for value in inputs:
            self._cast_input(value)
        narrow = {value: self._cast_output(value, kind) for value, kind in outputs.items()}
        main.outputs[:] = [narrow.get(v, v) for v in main.outputs]
        for graph in self.graphs:
            for node in list(graph):
                _drop_if_idle(node)

    def _attributes(self, node: ir.Node) -> None:
        for key in _TYPED:
            if _names_half(node, key):
                node.attributes[key] = ir.AttrInt64(key, int(ir.DataType.FLOAT))
        for key, attribute in list(node.attributes.items()):
            if attribute.type == ir.AttributeType.TENSOR and attribute.value.dtype in HALVES:
                node.attributes[key] = ir.AttrTensor(key, self._wide(attribute.value))
            elif attribute.type == ir.AttributeType.TYPE_PROTO and _has_half(attribute.value.type):
                told = ir.TypeAndShape(_wide_type(attribute.value.type), attribute.value.shape)
                node.attributes[key] = ir.Attr(key, ir.AttributeType.TYPE_PROTO, told)

    def _retype(self, value: ir.Value) -> None:
        value.type = _wide_type(value.type)
        if value.const_value is not None and value.const_value.dtype in HALVES:
            value.const_value = self._wide(value.const_value)
            value.type = ir.TensorType(ir.DataType.FLOAT)

    def _wide(self, tensor: ir.TensorProtocol) -> ir.TensorProtocol:
        def convert() -> ir.Tensor[np.ndarray]:
            array = _unrounded(tensor.numpy())
            unmap(tensor)
            return ir.Tensor(array, name=tensor.name)

        if not self.lazy:
            return convert()
        return ir.LazyTensor(convert, dtype=ir.DataType.FLOAT, shape=ir.Shape(tensor.shape.numpy()), name=tensor.name)

    def _cast_input(self, value: ir.Value) -> None:
        """What reads the input ``value`` reads it as float32."""
        uses = list(value.uses())
        cast = self._cast(value, ir.DataType.FLOAT, f"{value.name}_fp32")
        for use in uses:
            use.node.replace_input_with(use.idx, cast.outputs[0])
        for graph in self.graphs:
            if graph is not self.model.graph:
                for i, output in enumerate(graph.outputs):
                    if output is value:
                        graph.outputs[i] = cast.outputs[0]
        if cast.outputs[0].uses() or cast.outputs[0].is_graph_output():
            first = next(iter(self.model.graph), None)
            if first is not None:
                self.model.graph.insert_before(first, cast)
        else:
            cast.replace_input_with(0, None)

    def _cast_output(self, value: ir.Value, kind: ir.TypeProtocol | None) -> ir.Value:
        """The output ``value`` in the type ``kind`` that it was declared with, and under its name."""
        name = value.name
        cast = self._cast(value, kind.dtype if kind is not None else ir.DataType.FLOAT16, name or "")
        value.name = self._fresh(f"{name}_fp32")
        cast.outputs[0].name = name
        self.model.graph.append(cast)
        return cast.outputs[0]

    def _cast(self, value: ir.Value, dtype: ir.DataType, name: str) -> ir.Node:
        cast = ir.node("Cast", [value], attributes={"to": int(dtype)}, name=self._fresh(f"{name}_Cast"))
        made = cast.outputs[0]
        made.name, made.type = self._fresh(name), ir.TensorType(dtype)
        made.shape = value.shape.copy() if value.shape is not None else None
        return cast

    def _fresh(self, name: str) -> str:
        unique = unused(name, self.taken)
        self.taken.add(unique)
        return unique


def _unrounded(half: NDArray[np.generic]) -> NDArray[np.float32]:
    """``half`` in float32; a single number that is one of the factors, rounded, is that factor again."""
    real = half.astype(np.float32)
    if half.size == 1:
        for factor in _FACTORS:
            if np.asarray(factor, half.dtype).item() == abs(real.item()):
                return np.copysign(np.full_like(real, factor), real)
    return real


def _wide_type(kind: ir.TypeProtocol | None) -> ir.TypeProtocol | None:
    """``kind`` with float32 in place of 16-bit floats; sequences and optionals of them, too."""
    if kind is None or not _has_half(kind):
        return kind
    if isinstance(kind, ir.SequenceType | ir.OptionalType):
        inner = _wide_type(kind.elem_type)
        return type(kind)(inner) if inner is not None else kind
    return ir.TensorType(ir.DataType.FLOAT)


def _drop_if_idle(cast: ir.Node) -> None:
    """Remove a Cast from float32 to float32, where its value can be read in front of it."""
    if cast.op_type != "Cast" or cast.attributes.get_int("to", 0) != ir.DataType.FLOAT:
        return
    before, after = cast.inputs[0], cast.outputs[0]
    if before is None or before.type is None or before.type.dtype != ir.DataType.FLOAT:
        return
    if after.is_graph_output():
        producer = before.producer()
        if producer is None or producer.graph is not cast.graph or before.is_graph_output():
            return
        take_over(before, after)
    else:
        ir.convenience.replace_all_uses_with(after, before)
    if cast.graph is not None:
        cast.graph.remove(cast, safe=True)

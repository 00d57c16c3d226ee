"""Multiplications and additions of constants go into the weighted operators beside them: they cost a pass over the
activations, and on integers a conversion on either side.

    Conv(x) * f, / f           ->  Conv with W f, b f               f one value or one a channel
    BatchNormalization(Conv)   ->  Conv with W f, b f + d           where onnxscript's rules have left it
    Conv(x) + d, - d           ->  Conv with b + d
    Squeeze(Conv(x)) + d       ->  Squeeze(Conv with b + d)         also through Slice and Transpose: one-dimensional
                                                                    convolutions as TensorFlow's models have them
    Conv(x * f)                ->  Conv with W f                    f one value
    Conv(x + d), unpadded      ->  Conv with b + sum W d            d one value
    Conv(x * f + d), padded    ->  Conv(x + d / f) with W f         f and d one value each

The same for ConvTranspose (first three), Gemm and MatMul, as far as they have a place for it. Values for each channel
do not go forward: without them the channels of an activation may differ in range, and one scale has to serve them all.
The last factor of a Gelu stays, because ONNX Runtime knows Gelu by it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qconvert.graph.edit import add_initializer, constant_of, is_padded, replace_by
from qconvert.graph.prepare.batchnorm import batchnorm_parameters

Vector = NDArray[np.float64]

_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Affine:
    """``node`` is x * factor + shift, in float64: as in the file, or values [C] along axis 1 (``by_channel``)."""

    node: ir.Node
    x: ir.Value
    factor: Vector
    shift: Vector
    by_channel: bool = False

    @property
    def uniform(self) -> bool:
        return self.factor.size == 1 and self.shift.size == 1 and not self.by_channel


def fold_affine(model: ir.Model) -> None:
    """Fold what can be folded, in place; the results keep their names."""
    for node in list(model.graph):
        if node.graph is model.graph and (affine := affine_of(node)) is not None:
            _into_producer(model.graph, affine)
    for node in list(model.graph):
        if node.graph is model.graph and (affine := affine_of(node)) is not None and affine.uniform:
            _into_consumers(model.graph, affine)


def affine_of(node: ir.Node) -> Affine | None:
    """What ``node`` does, if it multiplies by constants or adds some; None where it does anything else."""
    if node.domain in ("", "ai.onnx") and node.op_type == "BatchNormalization":
        return _normalization(node)
    if node.domain not in ("", "ai.onnx") or node.op_type not in ("Add", "Sub", "Mul", "Div") or len(node.inputs) != 2:
        return None
    for port in (1, 0) if node.op_type in ("Add", "Mul") else (1,):
        constant, x = constant_of(node.inputs[port]), node.inputs[1 - port]
        if constant is None or x is None or constant.dtype != np.float32 or constant_of(x) is not None:
            continue
        c = np.asarray(constant, np.float64)
        with np.errstate(divide="ignore"):
            factor = {"Mul": c, "Div": 1 / c}.get(node.op_type, np.ones(()))
        shift = {"Add": c, "Sub": -c}.get(node.op_type, np.zeros(()))
        if np.isfinite(c).all() and np.isfinite(factor).all() and (factor != 0).all():
            return Affine(node=node, x=x, factor=factor, shift=shift)
    return None


def _normalization(node: ir.Node) -> Affine | None:
    parameters = batchnorm_parameters(node)
    if parameters is None or node.inputs[0] is None:
        return None
    return Affine(node=node, x=node.inputs[0], factor=parameters[0], shift=parameters[1], by_channel=True)


def _into_producer(graph: ir.Graph, affine: Affine) -> None:
    found = _source(graph, affine.x)
    if found is None:
        return
    producer, channels, rank = found
    weight, bias = _own_constants(producer)
    if weight is None or bias is _COMPUTED:
        return
    axis, outputs = _outputs(producer, weight)
    factor, shift = (_by_channel(v, affine, channels, rank, outputs) for v in (affine.factor, affine.shift))
    if factor is None or shift is None or (shift.any() and producer.op_type == "MatMul"):
        return
    if (factor != 1).any():
        scale = factor
        if producer.op_type == "ConvTranspose" and outputs != weight.shape[1]:
            if factor.size > 1:
                return
        elif factor.size > 1:
            scale = factor.reshape([-1 if i == axis else 1 for i in range(weight.ndim)])
        _set_input(graph, producer, 1, np.asarray(weight, np.float64) * scale, "weight")
    before = np.zeros(outputs) if bias is None else np.asarray(bias, np.float64)
    if bias is not None or shift.any():
        _set_input(graph, producer, 2, np.broadcast_to(before * factor + shift, (outputs,)), "bias")
    replace_by(affine.x, affine.node)


def _into_consumers(graph: ir.Graph, affine: Affine) -> None:
    out = affine.node.outputs[0]
    uses = list(out.uses())
    if out.is_graph_output() or not uses or _ends_gelu(affine.x.producer()):
        return
    if len(uses) == 1 and affine.factor != 1 and (added := affine_of(uses[0].node)) is not None:
        if added.uniform and (added.factor == 1).all() and _takes(graph, added.node.outputs[0], factor=True):
            _set_constant(graph, added.node, added.shift / affine.factor)
            _scale_consumers(graph, added.node.outputs[0], affine.factor)
            _skip(graph, affine.node, affine.x)
        return
    if not _takes(graph, out, factor=bool(affine.factor != 1), shift=bool(affine.shift != 0)):
        return
    if affine.shift != 0:
        for use in uses:
            _shift_input(graph, use.node, affine.shift)
    _scale_consumers(graph, out, affine.factor)
    _skip(graph, affine.node, affine.x)


def _ends_gelu(product: ir.Node | None) -> bool:
    """Whether it is x * (1 + erf(...)) or x * (1 + tanh(...))."""
    if product is None or product.op_type != "Mul":
        return False
    sums = [v.producer() for v in product.inputs if v is not None]
    sources = [v.producer() for s in sums if s is not None and s.op_type == "Add" for v in s.inputs if v is not None]
    return any(s is not None and s.op_type in ("Erf", "Tanh") for s in sources)


def _takes(graph: ir.Graph, value: ir.Value, *, factor: bool = False, shift: bool = False) -> bool:
    """Whether every reader of ``value`` is a weighted operator that can take a factor or a shift of it."""
    uses = list(value.uses())
    if value.is_graph_output() or not uses:
        return False
    for use in uses:
        node = use.node
        if use.idx != 0 or node.graph is not graph or not _is_weighted(node) or node.op_type == "ConvTranspose":
            return False
        if node.op_type == "Gemm" and node.attributes.get_int("transA", 0) != 0:
            return False
        weight, bias = _own_constants(node)
        if weight is None or (shift and (bias is _COMPUTED or node.op_type == "MatMul" or is_padded(node))):
            return False
    return factor or shift


def _is_weighted(node: ir.Node) -> bool:
    if node.domain not in ("", "ai.onnx") or node.op_type not in _WEIGHTED:
        return False
    return node.attributes.get_float("alpha", 1.0) == 1.0 and node.attributes.get_float("beta", 1.0) == 1.0


_COMPUTED = np.zeros(0)


def _own_constants(node: ir.Node) -> tuple[NDArray[np.generic] | None, NDArray[np.generic] | None]:
    """(weight, None where it cannot be changed; bias [outputs], None where there is none, else ``_COMPUTED``)."""
    weight = constant_of(node.inputs[1])
    value = node.inputs[1]
    if weight is None or value is None or weight.dtype != np.float32 or len(value.uses()) != 1:
        return None, None
    if value.is_graph_output() or (node.op_type == "MatMul" and weight.ndim != 2):
        return None, None
    if len(node.inputs) < 3 or node.inputs[2] is None:
        return weight, None
    bias = constant_of(node.inputs[2])
    fits = bias is not None and bias.dtype == np.float32 and bias.shape == (_outputs(node, weight)[1],)
    return weight, bias if fits else _COMPUTED


def _outputs(node: ir.Node, weight: NDArray[np.generic]) -> tuple[int, int]:
    """(axis of the weight's output channels, how many channels the output has)."""
    if node.op_type == "Conv":
        return 0, weight.shape[0]
    if node.op_type == "ConvTranspose":
        return 1, weight.shape[1] * node.attributes.get_int("group", 1)
    axis = 0 if node.op_type == "Gemm" and node.attributes.get_int("transB", 0) != 0 else 1
    return axis, weight.shape[axis]


def _source(graph: ir.Graph, value: ir.Value) -> tuple[ir.Node, int, int] | None:
    """(the weighted operator that makes ``value``, the axis of its output channels there, the rank of ``value``), where
    nothing else reads what it makes. Between them axes may be moved, cut and left out, but for that of the channels."""
    if len(value.uses()) != 1 or value.is_graph_output():
        return None
    node = value.producer()
    if node is None or node.graph is not graph or node.domain not in ("", "ai.onnx"):
        return None
    if _is_weighted(node):
        weight = constant_of(node.inputs[1])
        if node.op_type in ("Conv", "ConvTranspose"):
            return (node, 1, weight.ndim) if weight is not None else None
        rank = len(value.shape) if value.shape is not None else 0
        return node, rank - 1, rank
    before = node.inputs[0] if node.op_type in ("Squeeze", "Slice", "Transpose") else None
    found = _source(graph, before) if before is not None else None
    if found is None:
        return None
    producer, axis, rank = found
    if node.op_type == "Transpose":
        perm = list(node.attributes.get_ints("perm", list(reversed(range(rank)))))
        return producer, perm.index(axis), rank
    port = 3 if node.op_type == "Slice" else 1
    axes = constant_of(node.inputs[port]) if len(node.inputs) > port else None
    if axes is None:
        return None
    others = [int(a) % rank for a in axes.reshape(-1)] if rank else [axis]
    if axis in others:
        return None
    if node.op_type == "Slice":
        return producer, axis, rank
    return producer, axis - sum(a < axis for a in others), rank - len(others)


def _by_channel(values: Vector, affine: Affine, axis: int, rank: int, outputs: int) -> Vector | None:
    """``values`` as [outputs] or [], None where they do not broadcast along ``axis`` of what it reads alone."""
    if affine.by_channel:
        return values if values.shape == (outputs,) and axis == 1 else None
    if values.ndim > rank:
        return None
    if values.size == 1:
        return values.reshape(())
    padded = (1,) * (rank - values.ndim) + values.shape
    if padded[axis] != outputs or values.size != outputs:
        return None
    return values.reshape(-1)


def _scale_consumers(graph: ir.Graph, value: ir.Value, factor: Vector) -> None:
    if factor == 1:
        return
    for use in list(value.uses()):
        weight = constant_of(use.node.inputs[1])
        if weight is not None:
            _set_input(graph, use.node, 1, np.asarray(weight, np.float64) * factor, "weight")


def _shift_input(graph: ir.Graph, node: ir.Node, shift: Vector) -> None:
    weight, bias = _own_constants(node)
    if weight is None:
        return
    axis, outputs = _outputs(node, weight)
    others = tuple(i for i in range(weight.ndim) if i != axis)
    total = np.asarray(weight, np.float64).sum(axis=others) * shift
    before = np.zeros(outputs) if bias is None else np.asarray(bias, np.float64)
    _set_input(graph, node, 2, before + total, "bias")


def _set_input(graph: ir.Graph, node: ir.Node, port: int, values: NDArray[np.floating], what: str) -> None:
    if len(node.inputs) <= port:
        node.resize_inputs(port + 1)
    array = np.ascontiguousarray(values, np.float32)
    node.replace_input_with(port, add_initializer(graph, f"{node.name}_{what}", array))


def _set_constant(graph: ir.Graph, node: ir.Node, shift: Vector) -> None:
    """Let the Add or Sub ``node`` add ``shift``."""
    port = 0 if constant_of(node.inputs[1]) is None else 1
    values = shift if node.op_type == "Add" else -shift
    array = np.asarray(values, np.float32).reshape(shift.shape)
    node.replace_input_with(port, add_initializer(graph, f"{node.name}_constant", array))


def _skip(graph: ir.Graph, node: ir.Node, x: ir.Value) -> None:
    """Let what reads ``node`` read ``x``."""
    ir.convenience.replace_all_uses_with(node.outputs[0], x)
    graph.remove(node, safe=True)

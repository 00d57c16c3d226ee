"""Models that come with QuantizeLinear and DequantizeLinear, from quantization-aware training or another tool.

    fold      weight (float) -> Q -> DQ          becomes   codes -> DQ        its scales, learned or not, are kept
              bias (float) of a layer on codes   becomes   int32 codes -> DQ, scale s_x * s_w
    remove    codes -> DQ -> weight              becomes   weight (float)
              x -> Q -> DQ -> y                  becomes   x -> Max -> Min -> y, at the ends of the codes' range
                                                   likewise where Transpose, Reshape, ... lie between Q and DQ

Rounding is that of the operators: half to even, then saturated (ONNX QuantizeLinear-21). The saturation of a pair is
part of the function: a Relu or Clip before it is often left out because the pair does its work.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qconvert.emit.additions import Additions
from qconvert.emit.folded import TO_FIRST, TO_LAST
from qconvert.emit.made_on_loading import computed
from qconvert.graph.edit import constant_of, take_over
from qconvert.graph.model import Model
from qconvert.graph.quantized import is_quantized_op
from qconvert.ops import OPS
from qconvert.ops.rule import Role, key

_INT32 = 2**31 - 1
_PAIR = ("QuantizeLinear", "DequantizeLinear")

# Operators that move values, or choose among them, whatever scale they have.
_MOVES = frozenset({"Transpose", "Reshape", "Slice", "Pad", "Squeeze", "Unsqueeze", "Flatten", "MaxPool", "Max"})

Array = NDArray[np.generic]
_Number = TypeVar("_Number", bound=np.generic)


@dataclass(frozen=True, slots=True, kw_only=True)
class Folded:
    """A model whose constants are stored as integers.

    Attributes:
        model: a copy.
        weights, biases: how many became integers.
    """

    model: Model
    weights: int
    biases: int


def foreign_ops(model: Model) -> tuple[str, ...]:
    """Quantized operators other than QuantizeLinear and DequantizeLinear, sorted."""
    nodes = ir.traversal.RecursiveGraphIterator(model.ir.graph)
    return tuple(sorted({n.op_type for n in nodes if is_quantized_op(n.op_type) and n.op_type not in _PAIR}))


def fold(model: Model) -> Folded:
    """Store fake-quantized constants as integers."""
    copy = model.clone()
    additions = Additions(model=copy.ir)
    weights = sum(_fold_weight(n, additions) for n in _nodes(copy, "QuantizeLinear"))
    biases = sum(_fold_bias(n, additions) for n in list(copy.ir.graph))
    return Folded(model=copy, weights=weights, biases=biases)


def absorb_relus(model: Model) -> Model:
    """A copy in which a Relu is left out whose result is quantized with 0 as the least value: codes saturate there."""
    copy = model.clone()
    for node in _nodes(copy, "QuantizeLinear"):
        relu = node.inputs[0].producer() if node.inputs[0] is not None else None
        zero = constant_of(node.inputs[2]) if len(node.inputs) > 2 else np.zeros((), np.uint8)
        if relu is None or relu.op_type != "Relu" or zero is None or relu.graph is None:
            continue
        source = relu.inputs[0]
        alone = len(relu.outputs[0].uses()) == 1 and not relu.outputs[0].is_graph_output()
        if source is None or not alone or len(source.uses()) != 1 or source.is_graph_output():
            continue
        if zero.dtype in (np.uint8, np.int8) and np.all(zero == (0 if zero.dtype == np.uint8 else -128)):
            node.replace_input_with(0, source)
            relu.graph.remove(relu, safe=True)
    return copy


def remove(model: Model) -> Model:
    """The float model: constants dequantized, of pairs on activations only the saturation left."""
    copy = model.clone()
    additions = Additions(model=copy.ir)
    for node in _nodes(copy, "QuantizeLinear"):
        _fold_weight(node, additions)
    _compute_constants(copy, additions)
    _turn_pools(copy, additions)
    _move_in_float(copy, additions)
    for node in _nodes(copy, "DequantizeLinear"):
        codes, graph = node.inputs[0], node.graph
        if codes is None or not isinstance(graph, ir.Graph):
            continue
        array = constant_of(codes)
        producer = codes.producer()
        if array is not None:
            real = _dequantized(array, node)
            if real is None:
                continue
            new = additions.constant(graph, f"{codes.name}_float", real)
        elif producer is not None and producer.op_type == "QuantizeLinear" and producer.inputs[0] is not None:
            new = _saturated(producer.inputs[0], producer, node, graph, additions)
        else:
            continue
        _replace(node, new, graph)
    for node in _nodes(copy, "Shape"):  # of codes, which are as many as the values
        quantizer = node.inputs[0].producer() if node.inputs[0] is not None else None
        if quantizer is not None and quantizer.op_type == "QuantizeLinear":
            node.replace_input_with(0, quantizer.inputs[0])
    return copy


def _compute_constants(model: Model, additions: Additions) -> None:
    """Compute filters, scales and biases that are made of others when a model is loaded."""
    for node in list(ir.traversal.RecursiveGraphIterator(model.ir.graph)):
        array, graph = computed(node), node.graph
        if array is not None and isinstance(graph, ir.Graph):
            _replace(node, additions.constant(graph, f"{node.outputs[0].name}_computed", array), graph)


def _turn_pools(model: Model, additions: Additions) -> None:
    """Transpose -> NhwcMaxPool -> Transpose, which is for codes only, becomes MaxPool."""
    for node in _nodes(model, "NhwcMaxPool"):
        before = node.inputs[0].producer() if node.inputs[0] is not None else None
        readers = [u.node for u in node.outputs[0].uses()]
        graph = node.graph
        ends = [before, *readers]
        turned = [n.attributes.get_ints("perm", ()) for n in ends if n is not None and n.op_type == "Transpose"]
        if before is None or turned != [TO_LAST, TO_FIRST] or len(readers) != 1 or not isinstance(graph, ir.Graph):
            continue
        attributes = {name: a.value for name, a in node.attributes.items()}
        pooled = additions.node(node, "MaxPool", [before.inputs[0]], attributes, name=node.name or "MaxPool")
        _replace(readers[0], pooled, graph)
        graph.remove(node, safe=True)


def _move_in_float(model: Model, additions: Additions) -> None:
    """DequantizeLinear goes in front of what moves codes, or compares them: M(codes) -> DQ becomes DQ(codes) -> M."""
    moved = True
    while moved:
        moved = False
        for node in [n for n in ir.traversal.RecursiveGraphIterator(model.ir.graph) if n.op_type in _MOVES]:
            out, sources = node.outputs[0], list(node.inputs if node.op_type == "Max" else node.inputs[:1])
            readers = [u.node for u in out.uses() if u.node.op_type != "Shape"]
            pairs = [n for n in readers if n.op_type == "DequantizeLinear"]
            if not pairs or len(pairs) < len(readers) or out.is_graph_output():
                continue
            numbers = [tuple(constant_of(v) for v in p.inputs[1:]) for p in pairs]
            scalar = all(n is not None and n.size == 1 for each in numbers for n in each)
            constant = all(s is None or constant_of(s) is not None for s in sources)
            if constant or not scalar or len({str(n) for n in numbers}) > 1:
                continue
            if node.op_type == "Pad" and not _pads_with_zero(node, numbers[0]):
                continue
            for port, source in enumerate(sources):
                real = additions.node(node, "DequantizeLinear", [source, *pairs[0].inputs[1:]], name=f"{node.name}_DQ")
                node.replace_input_with(port, real)
            if node.op_type == "Pad" and len(node.inputs) > 2:
                node.replace_input_with(2, None)
            out.type = ir.TensorType(ir.DataType.FLOAT)
            for pair in pairs:
                graph = pair.graph
                if isinstance(graph, ir.Graph):
                    _replace(pair, out, graph)
            moved = True


def _pads_with_zero(node: ir.Node, numbers: tuple[Array | None, ...]) -> bool:
    """Whether what ``node`` pads with stands for 0."""
    value = constant_of(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else None
    zero = numbers[1] if len(numbers) > 1 else None
    return int(value.reshape(()) if value is not None else 0) == int(zero.reshape(()) if zero is not None else 0)


def _saturated(source: ir.Value, quantize: ir.Node, node: ir.Node, graph: ir.Graph, additions: Additions) -> ir.Value:
    """``source`` kept to the range of ``quantize``'s codes; as it is where that range is computed or a channel's."""
    scale = constant_of(quantize.inputs[1])
    zero = constant_of(quantize.inputs[2]) if len(quantize.inputs) > 2 else np.zeros((), np.uint8)
    if scale is None or zero is None or scale.size != 1 or zero.size != 1:
        return source
    limits = np.iinfo(np.dtype(zero.dtype).name)
    ends = [(bound - int(zero.reshape(()))) * float(scale.reshape(())) for bound in (limits.min, limits.max)]
    name = f"{source.name}_range"
    low, high = (
        additions.constant(graph, f"{name}_{end}", np.asarray(value, np.float32))
        for end, value in zip(("low", "high"), ends, strict=True)
    )
    # Clip takes tensors from opset 11 on; this is the same in any
    raised = additions.node(node, "Max", [source, low], {}, name=f"{name}_Max")
    return additions.node(node, "Min", [raised, high], {}, name=f"{name}_Min")


def _replace(node: ir.Node, new: ir.Value, graph: ir.Graph) -> None:
    """Let the readers of ``node`` read ``new``; an output of the graph keeps its name behind an Identity."""
    old = node.outputs[0]
    if old.is_graph_output():
        made = ir.node("Identity", [new], name=f"{node.name}_Identity")
        graph.insert_before(node, made)
        take_over(made.outputs[0], old)
    else:
        ir.convenience.replace_all_uses_with(old, new)
    graph.remove(node, safe=True)


def _nodes(model: Model, op_type: str) -> list[ir.Node]:
    return [n for n in ir.traversal.RecursiveGraphIterator(model.ir.graph) if n.op_type == op_type]


def _fold_weight(node: ir.Node, additions: Additions) -> bool:
    """Compute a QuantizeLinear of a constant; whether it was one."""
    source, graph = node.inputs[0], node.graph
    array = constant_of(source)
    grid = _grid(node, array)
    if array is None or grid is None or source is None or not isinstance(graph, ir.Graph):
        return False
    scale, zero, dtype = grid
    info = ir.DataType.from_numpy(dtype)
    if not info.is_integer() or info.bitwidth < 8:
        return False
    limits = np.iinfo(dtype)
    codes = np.clip(np.rint(array.astype(np.float32) / scale) + zero, limits.min, limits.max).astype(dtype)
    stored = additions.constant(graph, f"{source.name}_q", codes)
    _replace(node, stored, graph)
    return True


def _dequantized(codes: Array, node: ir.Node) -> NDArray[np.float32] | None:
    grid = _grid(node, codes)
    if grid is None:
        return None
    scale, zero, _ = grid
    return np.asarray((codes.astype(np.float64) - zero) * scale, np.float32)


def _grid(node: ir.Node, array: Array | None) -> tuple[NDArray[np.float64], NDArray[np.int64], np.dtype[Any]] | None:
    """(scale, zero point, type of the codes) of a Q or DQ, shaped to broadcast over ``array``; None if computed."""
    scale = constant_of(node.inputs[1])
    given = node.inputs[2] if len(node.inputs) > 2 else None
    zero = constant_of(given)
    if array is None or scale is None or (given is not None and zero is None):
        return None
    dtype = zero.dtype if zero is not None else np.dtype(np.uint8)
    if zero is None:
        zero = np.zeros(scale.shape, np.uint8)
    axis, block = node.attributes.get_int("axis", 1), node.attributes.get_int("block_size", 0)

    def spread(values: NDArray[_Number]) -> NDArray[_Number]:
        if values.ndim == 0 or values.size == 1:
            return values.reshape(())
        if block:
            return np.repeat(values, block, axis=axis).take(range(array.shape[axis]), axis=axis)
        shape = [1] * array.ndim
        shape[axis] = -1
        return values.reshape(shape)

    return spread(scale.astype(np.float64)), spread(zero.astype(np.int64)), dtype


def _fold_bias(node: ir.Node, additions: Additions) -> bool:
    """Store the bias of a layer whose input and weight are codes as int32; whether that was done."""
    rule = OPS.find(key(node.domain, node.op_type))
    port = next((i for i in range(len(node.inputs)) if rule is not None and rule.role(i) is Role.BIAS), None)
    if port is None or node.inputs[port] is None or not isinstance(node.graph, ir.Graph):
        return False
    real = _bias(node.inputs[port])
    scales = _scale(node.inputs[0]), _scale(node.inputs[1])
    if real is None or scales[0] is None or scales[1] is None or scales[0].size != 1 or scales[1].ndim > 1:
        return False
    scale = np.asarray(scales[0].reshape(()) * scales[1], np.float32)
    codes = np.rint(real.astype(np.float64) / scale.astype(np.float64))
    if not np.isfinite(codes).all() or np.abs(codes).max(initial=0) > _INT32:
        return False
    name = f"{node.name}_bias"
    stored = additions.constant(node.graph, f"{name}_q", codes.astype(np.int32))
    steps = additions.constant(node.graph, f"{name}_s", scale)
    inputs, attributes = [stored, steps], {"axis": 0} if scale.ndim else {}
    node.replace_input_with(
        port, additions.node(node, "DequantizeLinear", inputs, attributes, name=f"{name}_DequantizeLinear")
    )
    return True


def _bias(value: ir.Value | None) -> Array | None:
    """A constant bias in float, whether it is float or codes of another scale; None for one that is int32 already."""
    array = constant_of(value)
    if array is not None:
        return array if array.ndim == 1 and array.dtype == np.float32 else None
    node = value.producer() if value is not None else None
    if node is None or node.op_type != "DequantizeLinear":
        return None
    codes = constant_of(node.inputs[0])
    if codes is None or codes.dtype == np.int32 or codes.ndim != 1:
        return None
    return _dequantized(codes, node)


def _scale(value: ir.Value | None) -> NDArray[np.float64] | None:
    node = value.producer() if value is not None else None
    scale = constant_of(node.inputs[1]) if node is not None and node.op_type == "DequantizeLinear" else None
    return scale.astype(np.float64) if scale is not None else None

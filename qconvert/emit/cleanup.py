"""The last pass over an emitted model: nothing unused stays, names are unique, and ONNX Runtime's fusions are kept."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import NameFixPass

from qconvert import __version__
from qconvert.emit.keep_float import copy_result, keep_float
from qconvert.graph.edit import add_initializer, constant_of, remove_unused
from qconvert.graph.model import Model


def clean(model: Model, source: Model) -> Model:
    """Tidy ``model`` in place and give it the metadata of the model it was made from."""
    _shape_biases(model.ir.graph)
    _drop_trivial_dilations(model.ir.graph)
    keep_float(model.ir.graph)
    _part_from_clamps(model.ir.graph)
    remove_unused(model.ir)
    NameFixPass()(model.ir)
    model.ir.graph.sort()
    for graph in model.ir.graphs():
        _drop_inferred_types(graph)
        _drop_traces(graph)
    target, origin = model.ir, source.ir
    target.producer_name, target.producer_version = "qconvert", __version__
    target.doc_string, target.domain, target.model_version = origin.doc_string, origin.domain, origin.model_version
    target.metadata_props.update(origin.metadata_props)
    target.graph.name = origin.graph.name
    return model


def drop_types_of_constants(model: Model) -> None:
    """Forget the declared types of initializers, in place: their data say the same."""
    for graph in model.ir.graphs():
        for value in graph.initializers.values():
            if not value.is_graph_input() and not value.is_graph_output():
                value.type, value.shape = None, None


def _drop_inferred_types(graph: ir.Graph) -> None:
    """Forget the types of intermediate values.

    Every runtime infers them, and in a small model they are a tenth of the file.
    """
    for node in graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.type, value.shape = None, None


def _drop_traces(graph: ir.Graph) -> None:
    """Forget where in a program each node came from: PyTorch's exporter notes stack traces, a fifth of a small file."""
    for node in graph:
        for noted in (node.metadata_props, *(value.metadata_props for value in node.outputs)):
            for name in [n for n in noted if n.startswith("pkg.torch.") or n == "namespace"]:
                del noted[name]


def _shape_biases(graph: ir.Graph) -> None:
    """A bias [N] added to an integer MatMul's float result becomes [1, N] or [1, 1, N].

    ONNX Runtime turns MatMul + Add of a [N] bias into Gemm, and a Gemm with float bias and float result has no integer
    form: the weights would be dequantized at every run (1.8 times the FP32 time). The extra dimensions keep that
    fusion off.
    """
    for node in graph:
        if node.op_type != "MatMul" or len(node.outputs[0].uses()) != 1:
            continue
        dq = node.inputs[1].producer() if node.inputs[1] is not None else None
        rank = len(node.outputs[0].shape) if node.outputs[0].shape is not None else 0
        add = next(iter(node.outputs[0].uses())).node
        if dq is None or dq.op_type != "DequantizeLinear" or add.op_type != "Add" or rank < 2:
            continue
        if any(not isinstance(d, int) for d in node.outputs[0].shape or ()):
            continue  # the fusion needs static shapes
        for port, value in enumerate(add.inputs):
            bias = constant_of(value)
            if value is not None and bias is not None and bias.ndim == 1:
                add.replace_input_with(
                    port, add_initializer(graph, f"{value.name}_row", bias.reshape(*[1] * (rank - 1), -1))
                )


def _part_from_clamps(graph: ir.Graph) -> None:
    """A Relu or Clip behind an integer Gemm, or a product of stored weights, reads a copy of the result, if no
    QuantizeLinear can take its place.

    ONNX Runtime takes product and clamp for one unit, finds that this has no QuantizeLinear of its own, and leaves it
    in float, the weights unpacked at every run. A Sum of one operand parts them for the price of one copy. It makes a
    Gemm of a MatMul and an Add before it looks for units.
    """
    for node in list(graph):
        if node.op_type == "Gemm" and _is_dequantized(node.inputs[0]):
            result = node.outputs[0]
        elif node.op_type in ("MatMul", "Gemm") and _is_dequantized(node.inputs[1]):
            result = _with_bias(node)
        else:
            continue
        readers = [use.node for use in result.uses()]
        if len(readers) != 1:
            continue
        (clamp,) = readers
        saturates = any(_saturates_at_zero(use.node) for use in clamp.outputs[0].uses())
        if clamp.op_type in ("Relu", "Clip") and not saturates:
            copy_result(graph, result, clamp)


def _is_dequantized(value: ir.Value | None) -> bool:
    producer = value.producer() if value is not None else None
    return producer is not None and producer.op_type == "DequantizeLinear"


def _with_bias(product: ir.Node) -> ir.Value:
    """The result of ``product``, that of the Add behind a MatMul if nothing else reads it."""
    value = product.outputs[0]
    uses = list(value.uses())
    if product.op_type == "MatMul" and len(uses) == 1 and uses[0].node.op_type == "Add" and not value.is_graph_output():
        return uses[0].node.outputs[0]
    return value


def _saturates_at_zero(node: ir.Node) -> bool:
    """Whether ``node`` is a QuantizeLinear whose least code stands for 0."""
    if node.op_type != "QuantizeLinear":
        return False
    zero = constant_of(node.inputs[2]) if len(node.inputs) > 2 else np.zeros((), np.uint8)
    return zero is not None and bool(np.all(zero == np.iinfo(zero.dtype.name).min))


def _drop_trivial_dilations(graph: ir.Graph) -> None:
    """AveragePool's dilations of 1 say nothing, but ONNX Runtime's fused form rejects the attribute."""
    for node in graph:
        dilations = node.attributes.get_ints("dilations", [])
        if node.op_type == "AveragePool" and "dilations" in node.attributes and all(d == 1 for d in dilations):
            node.attributes.pop("dilations")

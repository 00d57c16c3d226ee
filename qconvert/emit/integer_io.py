"""Integers at the model's ends: the QuantizeLinear behind each input and the DequantizeLinear before each output go.

    x float -> Q -> codes -> ...          becomes        x int8 -> ...
    ... -> codes -> DQ -> y float         becomes        ... -> y int8

Names and shapes stay. What the codes mean is in the metadata, one property a port: "qconvert:input:x" ->
{"dtype": "int8", "scale": 0.02, "zero_point": -3}; real = scale * (code - zero_point).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace

import onnx_ir as ir
from onnx_ir.passes.common import NameFixPass

from qconvert.errors import InternalError
from qconvert.graph.edit import constant_of
from qconvert.graph.model import Model


@dataclass(frozen=True, slots=True, kw_only=True)
class IntegerPort:
    """An input or output that is integers.

    Attributes:
        side: "input" or "output".
        name: its name.
        dtype: integer type.
        scale, zero_point: real = scale * (code - zero_point).
    """

    side: str
    name: str
    dtype: str
    scale: float
    zero_point: int


def with_integer_io(model: Model) -> tuple[Model, tuple[IntegerPort, ...]]:
    """(a copy of ``model`` whose float inputs and outputs are integers as far as pairs stand at them, these ports)."""
    copy = model.clone()
    graph = copy.ir.graph
    inputs = [port for value in graph.inputs if (port := _input(graph, value)) is not None]
    # an input may be an output, too, and a value an output twice
    passed_on = {v.name for v in graph.outputs if v.is_graph_input()}
    found = (*inputs, *(replace(port, side="output") for port in inputs if port.name in passed_on))
    outputs = [_output(graph, value) for value in {id(v): v for v in graph.outputs}.values()]
    found += tuple(port for port in outputs if port is not None)
    NameFixPass()(copy.ir)
    for port in found:
        numbers = {k: v for k, v in asdict(port).items() if k not in ("side", "name")}
        copy.ir.metadata_props[f"qconvert:{port.side}:{port.name}"] = json.dumps(numbers)
    return copy, found


def _input(graph: ir.Graph, value: ir.Value) -> IntegerPort | None:
    nodes = [use.node for use in value.uses() if use.node.op_type == "QuantizeLinear" and use.idx == 0]
    if len(nodes) != 1 or value.dtype != ir.DataType.FLOAT:
        return None
    (q,) = nodes
    port, kind = _port("input", value.name or "", q)
    codes = q.outputs[0]
    # what else reads the input takes its shape only: no operator is float
    ir.convenience.replace_all_uses_with(codes, value, replace_graph_outputs=True)
    value.type = ir.TensorType(kind)
    graph.remove(q, safe=True)
    return port


def _output(graph: ir.Graph, value: ir.Value) -> IntegerPort | None:
    dq = value.producer()
    codes = dq.inputs[0] if dq is not None and dq.op_type == "DequantizeLinear" else None
    if dq is None or codes is None:
        return None
    name = value.name or ""
    port, kind = _port("output", name, dq)
    if codes.producer() is None or codes.is_graph_output():  # a value has one name, and this one has it already
        copy = ir.node("Identity", [codes], name=f"{name}_Identity")
        graph.insert_after(dq, [copy])
        codes = copy.outputs[0]
    value.name, codes.name = f"{name}_float", name
    codes.type, codes.shape = ir.TensorType(kind), value.shape
    for i, output in enumerate(graph.outputs):
        if output is value:
            graph.outputs[i] = codes
    if not value.uses():
        graph.remove(dq, safe=True)
    return port


def _port(side: str, name: str, pair: ir.Node) -> tuple[IntegerPort, ir.DataType]:
    """What the scale and zero point of a Q or DQ node say."""
    scale, zero = constant_of(pair.inputs[1]), constant_of(pair.inputs[2])
    if scale is None or zero is None:
        raise InternalError(f"the scale and zero point at {name} are no constants")
    port = IntegerPort(side=side, name=name, dtype=zero.dtype.name, scale=float(scale), zero_point=int(zero))
    return port, ir.DataType.from_numpy(zero.dtype)

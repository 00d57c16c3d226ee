"""QDQ emission: the plan written into the graph as QuantizeLinear/DequantizeLinear pairs.

    producer -> T -> QuantizeLinear -> codes -> DequantizeLinear -> T' -> readers

What ONNX Runtime needs to fuse it, each a measured fact (``targets/x86_vnni.py`` names the version):

- one QuantizeLinear a tensor, and every reader of an integer operator's result behind it, float readers and graph
  outputs too;
- weights as integer constants behind DequantizeLinear with a zero point (a Gemm without one is not fused);
- int32 biases with exactly scale s_x * s_w (Gemm does not check it and would compute something else);
- constant operands of Add, Mul and Concat in the activation's type.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qconvert.emit.saturating_sums import write_saturating_sums
from qconvert.emit.weights import ConstantStore, constant_array
from qconvert.errors import InternalError
from qconvert.forms import DYNAMIC
from qconvert.graph.edit import add_initializer, give_way, take_over, values_of
from qconvert.graph.model import Model
from qconvert.numerics.affine import weight_params
from qconvert.numerics.bias import quantize_bias
from qconvert.numerics.saturation import shrink
from qconvert.numerics.spec import QParams
from qconvert.ops import OPS
from qconvert.ops.rule import key
from qconvert.plan.model import NodePlan, QuantPlan, WeightPlan
from qconvert.targets.target import Target

_DATA_TYPES = {name: ir.DataType[name.upper()] for name in ("int4", "uint8", "int8", "uint16", "int16")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Emitted:
    """A quantized model and what emission had to do that is worth telling."""

    model: Model
    notes: tuple[str, ...]


def emit_qdq(model: Model, plan: QuantPlan, target: Target) -> Emitted:
    """Write ``plan`` into a copy of ``model``.

    Args:
        model: the canonical FP32 model that the plan was made for.
        plan: solved, every group with parameters.
        target: says which operators take integer tensors directly.
    """
    copy = model.clone()
    emitter = _Emitter(graph=copy.ir.graph, plan=plan, target=target, params=plan.params_of())
    graphs = (copy.ir.graph, *copy.ir.graph.subgraphs())
    nodes, values = list(copy.ir.graph), [v for g in graphs for v in values_of(g)]
    emitter.run()
    give_way(copy.ir.graph, nodes, values)
    write_saturating_sums(copy, plan, target)
    return Emitted(model=copy, notes=tuple(emitter.notes))


@dataclass(slots=True, kw_only=True)
class _Emitter:
    graph: ir.Graph
    plan: QuantPlan
    target: Target
    params: Mapping[str, QParams]
    notes: list[str] = field(default_factory=list)
    scales: dict[int, ir.Value] = field(default_factory=dict)
    made: dict[str, int] = field(default_factory=dict)
    shrunk: int = 0
    unpacked: dict[str, ir.Value] = field(default_factory=dict)

    def run(self) -> None:
        nodes = {n.name or "": n for n in self.graph}
        store = ConstantStore(graph=self.graph)
        taken = [p for p in self.plan.nodes.values() if p.decision.taken]
        for p in taken:
            if p.absorbed_into is not None:
                self._absorb(nodes[p.node])
        repaired = 0
        for p in taken:
            if p.table is not None:
                self._table(nodes[p.node], p, store)
            for weight in (p.weight, p.second):
                if weight is not None:
                    repaired += self._weight(nodes[p.node], p, weight, store)
        integer = {p.node for p in taken if p.absorbed_into is None and p.activations}
        integer_outputs = {v.name for n in integer for v in nodes[n].outputs}
        reads = {(p.node, port) for p in taken for port in p.activations}
        values = self._values()  # only now: a table's rows have passed their name on
        for name in self.params:
            value = values[name]
            if value.const_value is not None:
                self._constant_operand(value, reads, store)
            else:
                self._activation(value, reads, store, everyone=name in integer_outputs)
        for p in taken:
            self._on_codes(nodes[p.node], p)
        if self.shrunk:
            self.notes.append(
                f"{self.shrunk} channels could saturate on {self.target.title}; their weights were made smaller"
            )
        if repaired:
            self.notes.append(
                f"{repaired} channels have a bias too large for int32 at scale s_x * s_w; "
                "their weight scale was enlarged"
            )

    def _values(self) -> dict[str, ir.Value]:
        values = {v.name or "": v for v in self.graph.inputs}
        values.update({v.name or "": v for v in self.graph.initializers.values()})
        values.update({v.name or "": v for n in self.graph for v in n.outputs})
        return values

    def _absorb(self, clamp: ir.Node) -> None:
        source = clamp.inputs[0]
        if source is None:
            raise InternalError(f"clamp {clamp.name} has no input")
        take_over(source, clamp.outputs[0])
        self.graph.remove(clamp, safe=True)

    def _weight(self, node: ir.Node, plan: NodePlan, weight: WeightPlan, store: ConstantStore) -> int:
        """Store ``weight`` and bias of ``node`` as integers; returns the number of channels repaired for their bias."""
        value = node.inputs[weight.port]
        source = node.inputs[plan.activations[0]] if plan.activations else None
        dynamic = plan.form == DYNAMIC
        if value is None:
            raise InternalError(f"{node.name} lost an input that the plan names")
        array: NDArray[np.float32] = np.asarray(constant_array(value), np.float32)
        params = weight.params or weight_params(array, weight.spec)
        repaired = 0
        bias = node.inputs[plan.bias] if plan.bias is not None and not self.target.float_bias else None
        if bias is not None and plan.bias is not None and source is not None:
            input_scale = float(self.params[source.name or ""].scale)
            numbers = np.asarray(constant_array(bias), np.float32)
            quantized = quantize_bias(numbers, input_scale, params)
            params, repaired = quantized.weight, quantized.repaired
            array, params = self._unsaturated(node, source, array, params)
            quantized = quantize_bias(numbers, input_scale, params)  # scales have only grown: no second repair
            codes = add_initializer(self.graph, f"{node.name}_b_q", quantized.codes)
            scale = add_initializer(self.graph, f"{node.name}_b_s", quantized.scale)
            axis = 0 if quantized.scale.ndim else None
            node.replace_input_with(plan.bias, self._dequantize(node, codes, scale, None, axis, f"{node.name}_b"))
        elif source is not None or dynamic:
            array, params = self._unsaturated(node, source, array, params)
        stored, scale, zero = store.weight(value, params, array)
        if source is None and not dynamic:
            node.replace_input_with(weight.port, self._unpacked(node, value, stored, params, array.ndim))
            return repaired
        node.replace_input_with(
            weight.port,
            self._dequantize(node, stored, scale, zero, params.spec.axis, f"{node.name}_w"),
        )
        return repaired

    def _unpacked(self, before: ir.Node, weight: ir.Value, codes: ir.Value, params: QParams, rank: int) -> ir.Value:
        """``weight`` as Mul(Cast(codes), scale), which ONNX Runtime computes once, when it loads the model.

        A DequantizeLinear it would keep, for integer kernels to fuse, and run every time.
        """
        name = weight.name or "weight"
        key = codes.name or name
        if key in self.unpacked:
            return self.unpacked[key]
        axis = params.spec.axis
        shape = tuple(-1 if i == axis else 1 for i in range(rank)) if axis is not None else ()
        scale = add_initializer(self.graph, f"{name}_unpack_s", params.scale.reshape(shape))
        cast = ir.node("Cast", [codes], attributes={"to": int(ir.DataType.FLOAT)}, name=f"{name}_Cast")
        cast.outputs[0].name = f"{name}_cast"
        nodes = self._centred(cast, params, name)
        mul = ir.node("Mul", [nodes[-1].outputs[0], scale], name=f"{name}_Mul")
        mul.outputs[0].name = f"{name}_unpacked"
        self.graph.insert_before(before, [*nodes, mul])
        self.unpacked[key] = mul.outputs[0]
        return mul.outputs[0]

    def _unsaturated(
        self, node: ir.Node, source: ir.Value | None, array: NDArray[np.float32], params: QParams
    ) -> tuple[NDArray[np.float32], QParams]:
        """Weight and parameters with which no sum of products saturates, where the target's kernels could.

        ``source`` is None for an input that gets unsigned codes as the model runs.
        """
        rule = OPS.find(key(node.domain, node.op_type))
        activation = self.params[source.name or ""].spec.qtype if source is not None else None
        mixed = params.spec.qtype.signed and (activation is None or (not activation.signed and activation.bits == 8))
        if not (self.target.saturates and mixed) or rule is None or rule.weight_order is None:
            return array, params
        integers = {a.name: a.as_int() for a in node.attributes.values() if a.type == ir.AttributeType.INT}
        order = rule.weight_order(array.shape, integers)
        if order is None:
            return array, params
        shrunk = shrink(array, params, order)
        self.shrunk += shrunk.channels
        return shrunk.weight, shrunk.params

    def _table(self, node: ir.Node, plan: NodePlan, store: ConstantStore) -> None:
        """Gather(table, i) -> Gather(codes, i) * Gather(scale [V, 1], i): only the picked rows are dequantized."""
        if plan.table is None:
            return
        value = node.inputs[plan.table.port]
        indices, out = node.inputs[1], node.outputs[0]
        if value is None or indices is None:
            raise InternalError(f"{node.name} lost an input that the plan names")
        params = weight_params(np.asarray(constant_array(value), np.float32), plan.table.spec)
        codes, scale, zero = store.weight(value, params)
        node.replace_input_with(plan.table.port, codes)
        name = out.name or node.name or "table"
        if plan.table.spec.axis is None:
            rows = ir.node("DequantizeLinear", [out, scale, zero], name=f"{name}_DQ")
            self.graph.insert_after(node, [rows])
            last = rows
        else:
            column = add_initializer(self.graph, f"{value.name}_row_scale", params.scale.reshape(-1, 1))
            cast = ir.node("Cast", [out], attributes={"to": int(ir.DataType.FLOAT)}, name=f"{name}_Cast")
            middle = self._centred(cast, params, name)
            pick = ir.node("Gather", [column, indices], attributes={"axis": 0}, name=f"{name}_scale_Gather")
            last = ir.node("Mul", [middle[-1].outputs[0], pick.outputs[0]], name=f"{name}_Mul")
            cast.outputs[0].name, pick.outputs[0].name = f"{name}_cast", f"{name}_row_scale"
            self.graph.insert_after(node, [*middle, pick, last])
        new = last.outputs[0]
        first_reader = last if plan.table.spec.axis is None else cast
        self._move_readers(out, new, keep=first_reader)
        out.name, new.name = f"{name}_codes", name
        new.type, new.shape = ir.TensorType(ir.DataType.FLOAT), out.shape
        out.type = ir.TensorType(_DATA_TYPES[params.spec.qtype.name])

    def _centred(self, cast: ir.Node, params: QParams, name: str) -> list[ir.Node]:
        """``cast``, and behind it what takes the zero point off the codes where that is not 0 (unsigned tables)."""
        zero = np.unique(params.zero_point)
        if not zero.any():
            return [cast]
        if zero.size > 1:
            raise InternalError(f"{name} is unpacked from codes with different zero points")
        offset = add_initializer(self.graph, f"{name}_zero_point", np.asarray(zero[0], np.float32))
        centred = ir.node("Sub", [cast.outputs[0], offset], name=f"{name}_Sub")
        centred.outputs[0].name = f"{name}_centred"
        return [cast, centred]

    def _constant_operand(self, value: ir.Value, reads: set[tuple[str, int]], store: ConstantStore) -> None:
        params = self.params[value.name or ""]
        stored = store.put(value.name or "constant", constant_array(value), params)
        for use in list(value.uses()):
            if (use.node.name, use.idx) in reads:
                new = self._dequantize(
                    use.node, stored.codes, stored.scale, stored.zero_point, None, f"{use.node.name}_{use.idx}"
                )
                use.node.replace_input_with(use.idx, new)

    def _activation(
        self, value: ir.Value, reads: set[tuple[str, int]], store: ConstantStore, *, everyone: bool
    ) -> None:
        """Q and DQ behind ``value``; ``everyone``: float readers and graph outputs read the dequantized value too."""
        name = value.name or ""
        params = self.params[name]
        if id(params) not in self.scales:  # the members of a group have one set of parameters
            self.scales[id(params)] = add_initializer(self.graph, f"{name}_s", params.scale)
        scale = self.scales[id(params)]
        zero = store.zero_point(params)
        q = ir.node("QuantizeLinear", [value, scale, zero], name=self._next("Q"))
        dq = ir.node("DequantizeLinear", [q.outputs[0], scale, zero], name=self._next("DQ"))
        q.outputs[0].name, dq.outputs[0].name = f"{name}_q", f"{name}_dq"
        q.outputs[0].type = ir.TensorType(_DATA_TYPES[params.spec.qtype.name])
        dq.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
        q.outputs[0].shape = dq.outputs[0].shape = value.shape
        producer = value.producer()
        if producer is None:
            first = next(iter(self.graph))
            self.graph.insert_before(first, [q, dq])
        else:
            self.graph.insert_after(producer, [q, dq])
        if everyone:
            self._move_readers(value, dq.outputs[0], keep=q)
            if dq.outputs[0].is_graph_output():
                value.name, dq.outputs[0].name = f"{name}_float", name
            return
        for use in list(value.uses()):
            if (use.node.name, use.idx) in reads:
                use.node.replace_input_with(use.idx, dq.outputs[0])

    def _on_codes(self, node: ir.Node, plan: NodePlan) -> None:
        """Let an operator that the runtime does not fuse read and write codes: DQ -> node -> Q becomes node."""
        name = key(node.domain, node.op_type)
        if not self.target.capability(name).on_codes or plan.table is not None or not plan.decision.taken:
            return
        rule = OPS.find(name)
        readers = [u.node for u in node.outputs[0].uses()]
        if len(readers) != 1 or rule is None or rule.lowering is None:
            return
        tokens = rule.lowering.inputs.split()
        pairs = {p: v.producer() for p, v in enumerate(node.inputs[: len(tokens)]) if v and tokens[p][0] == "x"}
        q, dq = readers[0], pairs.get(0)
        if dq is None or q.op_type != "QuantizeLinear" or q.outputs[0].dtype in (ir.DataType.UINT16, ir.DataType.INT16):
            return  # codes of 16 bits few operators of ONNX Runtime take
        if any(pair is None or pair.op_type != "DequantizeLinear" for pair in pairs.values()):
            return
        if len({id(pair.inputs[1]) for pair in (*pairs.values(), q) if pair is not None}) > 1 and len(pairs) > 1:
            return  # what is compared has to have one scale
        for port, pair in pairs.items():
            node.replace_input_with(port, pair.inputs[0] if pair is not None else None)
        for port, token in enumerate(tokens):
            if token == "z0":
                node.resize_inputs(max(len(node.inputs), port + 1))
                node.replace_input_with(port, dq.inputs[2])
        codes, value = q.outputs[0], node.outputs[0]
        codes_name, codes_type = codes.name, codes.type
        ir.convenience.replace_all_uses_with(codes, value)
        codes.name = f"{codes_name}_replaced"
        value.name, value.type = codes_name, codes_type
        self.graph.remove(q, safe=True)

    def _dequantize(
        self, before: ir.Node, codes: ir.Value, scale: ir.Value, zero: ir.Value | None, axis: int | None, name: str
    ) -> ir.Value:
        inputs = [codes, scale] if zero is None else [codes, scale, zero]
        dq = ir.node(
            "DequantizeLinear",
            inputs,
            attributes=None if axis is None else {"axis": axis},
            name=self._next("DQ"),
        )
        out = dq.outputs[0]
        out.name, out.type, out.shape = f"{name}_dq", ir.TensorType(ir.DataType.FLOAT), codes.shape
        self.graph.insert_before(before, dq)
        return out

    def _next(self, kind: str) -> str:
        """A short node name: hundreds of nodes are added, and what they work on shows in their values' names."""
        self.made[kind] = self.made.get(kind, 0) + 1
        return f"{kind}{self.made[kind]}"

    def _move_readers(self, old: ir.Value, new: ir.Value, *, keep: ir.Node) -> None:
        """Let every reader of ``old`` but ``keep`` read ``new``, graph outputs included."""
        for use in list(old.uses()):
            if use.node is not keep:
                use.node.replace_input_with(use.idx, new)
        for i, output in enumerate(self.graph.outputs):
            if output is old:
                self.graph.outputs[i] = new

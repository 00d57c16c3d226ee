"""Half precision: float16 arithmetic in the main graph, 16-bit storage elsewhere.

A value has one type, that of the node that makes it; a reader that needs the other one reads behind a Cast, one for
each value and direction. What may be float16 is read off ONNX's schemas: an input whose type parameter admits float16,
and the outputs that share the parameter.

Weights of control-flow bodies, and all weights in bfloat16, for which ONNX Runtime's CPU provider has no kernels, are
stored in 16 bits behind a Cast to float32, which ONNX Runtime folds when it loads the model. Sources: onnx.defs; IEEE
754 binary16: largest value 65504, smallest 6e-8.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from qconvert.emit.additions import Additions
from qconvert.emit.decoded_weights import DECODING
from qconvert.emit.signs import never_negative
from qconvert.emit.sites import LEAST_WEIGHT
from qconvert.graph.edit import bodies_of
from qconvert.graph.model import unmap
from qconvert.graph.quantized import is_quantized_op
from qconvert.progress import Progress, Silent
from qconvert.rounding.sums import in_type

MAX_HALF = 65504.0
_TYPES = {"fp16": (ir.DataType.FLOAT16, np.float16), "bf16": (ir.DataType.BFLOAT16, ml_dtypes.bfloat16)}
# constants of so few numbers are parameters (an epsilon, a mask value), not weights
_FEW = 16
# Numbers that are rounded at once.
_PART = 1 << 20


OpNode = ir.Node
"""What :attr:`HalfEmitter.blocked` is asked about."""


@dataclass(slots=True, kw_only=True)
class HalfEmitter:
    """Turns a model into half precision.

    Attributes:
        additions: where nodes and constants are added.
        blocked: why a node stays in float32, "" if it need not.
        progress: told of the constants, by their bytes.
        clipped, flushed: how many constants were beyond the largest float16 (and became it), or too small (and became
            0).
        count, zeros: numbers of all constants that were stored in 16 bits, and how many of them are 0 before and after.
        taken: names of nodes that compute in float16, or whose weights are stored in 16 bits.
        stored: those of the latter.
        reasons: why the others stay as they are.
    """

    additions: Additions
    blocked: Callable[[ir.Node], str]
    progress: Progress = field(default_factory=Silent)
    clipped: int = 0
    flushed: int = 0
    count: int = 0
    zeros: list[int] = field(default_factory=lambda: [0, 0])
    taken: set[str] = field(default_factory=set)
    stored: set[str] = field(default_factory=set)
    reasons: dict[str, str] = field(default_factory=dict)
    _casts: dict[tuple[ir.Value, ir.DataType], ir.Value] = field(default_factory=dict)
    _halves: dict[ir.Value, ir.Value] = field(default_factory=dict)

    def convert(self, graph: ir.Graph, *, keep_io: bool) -> None:
        """Let the nodes of the main graph compute in float16, and store what they and bodies read in 16 bits."""
        plans = {node: self._plan(node) for node in graph}
        half = {v for node, (_, made) in plans.items() for v in made}
        if not keep_io:
            half |= {v for v in graph.inputs if _is_float(v)}
        for node, (ports, made) in plans.items():
            if made or ports:
                self.taken.add(node.name or "")
            if node.op_type == "Cast" and made:
                node.attributes["to"] = ir.AttrInt64("to", int(ir.DataType.FLOAT16))
            if node.op_type == "ConstantOfShape" and made:
                given = node.attributes.get("value")
                old = np.zeros(1) if given is None else given.as_tensor().numpy()
                node.attributes["value"] = ir.AttrTensor("value", ir.Tensor(old.astype(np.float16)))
        originals = [*graph]
        total = sum(map(_constant_bytes, originals))
        for node in self.progress.track(originals, label="fp16", total=total, size=_constant_bytes):
            wanted = set(plans[node][0])
            for port, value in enumerate(node.inputs):
                if value is not None and _is_float(value):
                    self._connect(node, port, value, to_half=port in wanted, half=half)
        self._captured(graph, half)
        for value in half:
            value.type = ir.TensorType(ir.DataType.FLOAT16)
        self._outputs(graph, half, keep_io=keep_io)
        for holder in (graph, *graph.subgraphs()):
            self.store(holder, "fp16")

    def store(self, graph: ir.Graph, kind: str) -> None:
        """Store the float32 weights of ``graph`` in 16 bits, behind a Cast."""
        dtype, numpy_type = _TYPES[kind]
        values = [v for v in graph.initializers.values() if v.uses()]
        total = sum(map(_bytes, values))
        for value in self.progress.track(values, label=kind, total=total, size=_bytes) if total else values:
            tensor = value.const_value
            if tensor is None or not _is_float(value) or value.is_graph_input() or tensor.size < LEAST_WEIGHT:
                continue
            uses = [u for u in value.uses() if not self.blocked(u.node)]
            if not uses or value.is_graph_output() or len(uses) < len(list(value.uses())):
                continue
            first = next((n for n in graph), None)
            if first is None:
                continue
            stored = self._halves.get(value)  # what the main graph reads in float16, a body reads behind a Cast
            if stored is None:
                array = self._halved(value, numpy_type)
                stored = self.additions.constant(graph, f"{value.name}_{kind}", array, dtype)
            real = self.additions.node(
                first, "Cast", [stored], {"to": int(ir.DataType.FLOAT)}, name=f"{value.name}_Cast"
            )
            real.type, real.shape = value.type, value.shape
            for use in uses:
                use.node.replace_input_with(use.idx, real)
                self.taken.add(use.node.name or "")
                self.stored.add(use.node.name or "")
            del graph.initializers[value.name or ""]

    def _plan(self, node: ir.Node) -> tuple[tuple[int, ...], tuple[ir.Value, ...]]:
        """(input ports, outputs) of ``node`` that become float16."""
        reason = self.blocked(node) or _objection(node)
        schema = None if reason else _schema(node, self.additions.model.opset_imports)
        if schema is None:
            self.reasons[node.name or ""] = reason or "ONNX has no schema that says whether it takes float16"
            return (), ()
        if node.op_type in ("Cast", "ConstantOfShape"):
            made = tuple(v for v in node.outputs if _is_float(v))
            return (0,) if node.op_type == "Cast" and node.inputs[0] and _is_float(node.inputs[0]) else (), made
        if any(v is not None and v.name and v.type is None for v in (*node.inputs, *node.outputs)):
            self.reasons[node.name or ""] = "the type of what it reads or makes is not known"
            return (), ()
        able = {c.type_param_str for c in schema.type_constraints if "tensor(float16)" in c.allowed_type_strs}
        ports, bound = [], set()
        for port, value in enumerate(node.inputs):
            kind = schema.inputs[min(port, len(schema.inputs) - 1)].type_str if schema.inputs else ""
            if value is not None and _is_float(value):
                if kind not in able:
                    self.reasons.setdefault(node.name or "", "it takes no float16")
                    continue
                ports.append(port)
                bound.add(kind)
        made = tuple(
            v
            for i, v in enumerate(node.outputs)
            if _is_float(v) and schema.outputs[min(i, len(schema.outputs) - 1)].type_str in bound
        )
        if ports and len(made) < sum(_is_float(v) for v in node.outputs):
            self.reasons[node.name or ""] = "its results have a type of their own"
            return (), ()
        if not ports:
            self.reasons.setdefault(node.name or "", "it computes no float32 values")
        return tuple(ports), made

    def _connect(self, node: ir.Node, port: int, value: ir.Value, *, to_half: bool, half: set[ir.Value]) -> None:
        constant = value.const_value is not None and not value.is_graph_input()
        if constant and to_half:
            node.replace_input_with(port, self._half_constant(value))
        elif not constant and to_half != (value in half):
            dtype = ir.DataType.FLOAT16 if to_half else ir.DataType.FLOAT
            node.replace_input_with(port, self._cast(value, dtype))

    def _half_constant(self, value: ir.Value) -> ir.Value:
        if value not in self._halves:
            if value.const_value is None or value.graph is None:
                return value
            array = self._halved(value, np.float16)
            self._halves[value] = self.additions.constant(value.graph, f"{value.name}_fp16", array)
        return self._halves[value]

    def _halved(self, value: ir.Value, dtype: type) -> NDArray[np.generic]:
        """The constant ``value`` in 16 bits; what float16 cannot hold becomes its largest value of that sign.

        Filters are rounded so that the sums of their errors stay small (:mod:`qconvert.rounding.sums`).
        """
        half = self._rounded(value, dtype)
        unmap(value.const_value)  # only now: no view of it is left
        return half

    def _rounded(self, value: ir.Value, dtype: type) -> NDArray[np.generic]:
        real = np.asarray(value.const_value.numpy() if value.const_value is not None else [], np.float32)
        filters = _filters(value)
        half: NDArray[np.generic]
        if filters and np.isfinite(real).all():
            axis = int(filters[0].op_type == "ConvTranspose")
            rows = np.moveaxis(self._within(real, dtype), axis, 0)
            across = not axis and all(never_negative(node.inputs[0]) for node in filters)
            taps = int(np.prod(real.shape[2:]))
            found = in_type(rows.reshape(rows.shape[0], -1), np.dtype(dtype), taps, across=across)
            half = np.ascontiguousarray(np.moveaxis(found.reshape(rows.shape), 0, axis))
            self._tell(rows, np.moveaxis(half, axis, 0))
        else:
            half = np.empty(real.shape, dtype)
            before, after = real.reshape(-1), half.reshape(-1)
            for start in range(0, real.size, _PART):
                part = self._within(before[start : start + _PART], dtype)
                after[start : start + _PART] = part
                self._tell(part, after[start : start + _PART])
        return half

    def _within(self, real: NDArray[np.float32], dtype: type) -> NDArray[np.float32]:
        """``real`` without what float16 cannot hold."""
        if dtype is not np.float16:
            return real
        finite = np.isfinite(real)
        beyond = int(np.count_nonzero(finite & (np.abs(real) > MAX_HALF)))
        self.clipped += beyond
        return np.where(finite, np.clip(real, -MAX_HALF, MAX_HALF), real) if beyond else real

    def _tell(self, real: NDArray[np.float32], half: NDArray[np.generic]) -> None:
        """Count what became 0."""
        self.flushed += int(np.count_nonzero((half == 0) & (real != 0)))
        self.count += real.size
        for i, array in enumerate((real, half)):
            self.zeros[i] += real.size - int(np.count_nonzero(array))

    def _cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """``value`` as ``dtype``, cast once, right behind what makes it."""
        if (value, dtype) not in self._casts:
            graph, producer = value.graph, value.producer()
            name = f"{value.name}_{'fp16' if dtype == ir.DataType.FLOAT16 else 'fp32'}"
            made = ir.node("Cast", [value], attributes={"to": int(dtype)}, name=self.additions.fresh(f"{name}_Cast"))
            made.outputs[0].name = self.additions.fresh(name)
            made.outputs[0].type, made.outputs[0].shape = ir.TensorType(dtype), value.shape
            if producer is not None and producer.graph is not None:
                producer.graph.insert_after(producer, made)
            elif isinstance(graph, ir.Graph):
                graph.insert_before(graph[0], made)
            self._casts[value, dtype] = made.outputs[0]
        return self._casts[value, dtype]

    def _captured(self, graph: ir.Graph, half: set[ir.Value]) -> None:
        """What bodies read of the main graph stays float32 for them."""
        for value in half:
            inner = [u for u in value.uses() if u.node.graph is not graph]
            for use in inner:
                use.node.replace_input_with(use.idx, self._cast(value, ir.DataType.FLOAT))
        for body in graph.subgraphs():
            for i, value in enumerate(body.outputs):
                if value in half:
                    body.outputs[i] = self._cast(value, ir.DataType.FLOAT)

    def _outputs(self, graph: ir.Graph, half: set[ir.Value], *, keep_io: bool) -> None:
        if not keep_io:
            return
        for i, value in enumerate(graph.outputs):
            if value not in half or value.is_graph_input():
                continue
            real = self._cast(value, ir.DataType.FLOAT)
            if real.is_graph_output():
                graph.outputs[i] = real
                continue
            name = value.name
            value.name, real.name = self.additions.fresh(f"{name}_fp16"), name
            graph.outputs[i] = real


def _filters(value: ir.Value) -> tuple[ir.Node, ...]:
    """The convolutions whose filters ``value`` is, if it is nothing else; none where it is."""
    uses = list(value.uses())
    own = [u.node for u in uses if u.node.op_type in ("Conv", "ConvTranspose") and u.idx == 1]
    return tuple(own) if len(own) == len(uses) else ()


def _bytes(value: ir.Value | None) -> int:
    """What has to be rounded of ``value``: the bytes of a float32 constant."""
    return value.const_value.nbytes if value is not None and value.const_value is not None and _is_float(value) else 0


def _constant_bytes(node: ir.Node) -> int:
    return sum(map(_bytes, node.inputs))


def _is_float(value: ir.Value) -> bool:
    return isinstance(value.type, ir.TensorType) and value.type.dtype == ir.DataType.FLOAT


def _objection(node: ir.Node) -> str:
    """Why ``node`` cannot compute in float16, "" if it may."""
    if bodies_of(node):
        return "control flow stays float32; weights inside are stored as float16"
    if is_quantized_op(node.op_type):
        return "it is quantized"
    if decodes(node):
        return "it decodes a weight"
    typed = [v.type for v in (*node.inputs, *node.outputs) if v is not None and v.type is not None]
    if "Sequence" in node.op_type or "Optional" in node.op_type or not all(isinstance(t, ir.TensorType) for t in typed):
        return "it reads or makes something else than tensors"
    for value in node.inputs:
        tensor = value.const_value if value is not None and _is_float(value) else None
        if tensor is not None and 0 < tensor.size <= _FEW:
            array = np.asarray(tensor.numpy(), np.float32)
            if np.any((np.clip(array, -MAX_HALF, MAX_HALF).astype(np.float16) == 0) & (array != 0)):
                return "float16 would make one of its constants 0"
    return ""


def decodes(node: ir.Node) -> bool:
    """Whether ``node`` decodes a weight of a scheme that is mixed in: it reads constants alone, at whatever remove."""
    if node.op_type not in DECODING:
        return False
    for value in node.inputs:
        if value is None or (value.const_value is not None and not value.is_graph_input()):
            continue
        producer = value.producer()
        if producer is None or not decodes(producer):
            return False
    return True


def _schema(node: ir.Node, imports: Mapping[str, int]) -> onnx.defs.OpSchema | None:
    domain = "" if node.domain == "ai.onnx" else node.domain
    version = imports.get(node.domain, imports.get("", 1))
    if not onnx.defs.has(node.op_type, version, domain):
        return None
    return onnx.defs.get_schema(node.op_type, version, domain)

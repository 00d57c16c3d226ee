"""What holds for every quantized model, whatever it was made from. A check returns its breaches, as sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import onnx
import onnxruntime as ort
from networks.builder import Network
from networks.chain import Result
from onnx import TensorProto, numpy_helper

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"


def breaches(net: Network, result: Result) -> list[str]:
    """All checks that need no run."""
    return [
        *_checker(net.proto, result.proto),
        *_interface(net.proto, result.proto),
        *_metadata(net.proto, result.proto),
        *_unused(result.proto.graph),
        *_float_copies(result, net.float_copies),
        *_redundant(result.proto.graph),
        *_names(net.proto, result),
    ]


def _checker(source: onnx.ModelProto, model: onnx.ModelProto) -> Iterator[str]:
    for full in (False, True):
        if not _complaint(source, full) and (complaint := _complaint(model, full)):
            yield f"the checker refuses it: {complaint}"


def _complaint(model: onnx.ModelProto, full: bool) -> str:
    try:
        onnx.checker.check_model(model, full_check=full)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        return str(error)[:300]
    return ""


def _interface(source: onnx.ModelProto, model: onnx.ModelProto) -> Iterator[str]:
    constants = {t.name for t in source.graph.initializer}
    before = [v for v in source.graph.input if v.name not in constants]
    for kind, a, b in (("inputs", before, model.graph.input), ("outputs", source.graph.output, model.graph.output)):
        if [v.name for v in a] != [v.name for v in b]:
            yield f"{kind} are {[v.name for v in b]}, were {[v.name for v in a]}"
            continue
        for x, y in zip(a, b, strict=True):
            if x.type != y.type and (
                x.type.tensor_type.HasField("shape") or x.type.tensor_type.elem_type != y.type.tensor_type.elem_type
            ):
                yield f"{kind[:-1]} {x.name} is {_short(y)}, was {_short(x)}"


def _short(value: onnx.ValueInfoProto) -> str:
    return " ".join(str(value.type).split())


def _metadata(source: onnx.ModelProto, model: onnx.ModelProto) -> Iterator[str]:
    kept = {p.key: p.value for p in model.metadata_props}
    for p in source.metadata_props:
        if kept.get(p.key) != p.value:
            yield f"metadata {p.key} was lost"
    for what in ("doc_string", "domain", "model_version"):
        if getattr(source, what) != getattr(model, what):
            yield f"{what} was lost"
    if source.graph.name != model.graph.name:
        yield "the graph's name was lost"


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for a in node.attribute:
            for body in ([a.g] if a.HasField("g") else []) + list(a.graphs):
                yield from _graphs(body)


def _unused(graph: onnx.GraphProto) -> Iterator[str]:
    read = {i for g in _graphs(graph) for n in g.node for i in n.input} | {
        o.name for g in _graphs(graph) for o in g.output
    }
    for g in _graphs(graph):
        for t in g.initializer:
            if t.name not in read:
                yield f"initializer {t.name} is unused"
    for node in graph.node:
        if not any(o in read for o in node.output):
            yield f"node {node.name} is unused"


def _float_copies(result: Result, allowed: tuple[str, ...]) -> Iterator[str]:
    """A weight that runs on integers may not be in the file as floats, under its name or another."""
    held = {
        t.name: numpy_helper.to_array(t)
        for g in _graphs(result.proto.graph)
        for t in g.initializer
        if t.data_type == TensorProto.FLOAT
    }
    prepared = {v.name: v.const_value for v in result.prepared.model.ir.graph.initializers.values()}
    for plan in result.plan.taken():
        stored = plan.weight or plan.table
        tensor = prepared.get(stored.tensor) if stored is not None else None
        if tensor is None or tensor.size < 2:
            continue
        if any(a in stored.tensor for a in allowed):
            continue
        flat = np.sort(tensor.numpy(), axis=None)
        for name, array in held.items():
            if array.size == flat.size and np.array_equal(np.sort(array, axis=None), flat):
                yield f"{plan.node}: its weight {stored.tensor} is still there as floats, {name}"


def _redundant(graph: onnx.GraphProto) -> Iterator[str]:
    makes = {o: n for n in graph.node for o in n.output}
    quantizers = Counter()
    for node in graph.node:
        if node.op_type not in (QUANTIZE, DEQUANTIZE):
            continue
        source = makes.get(node.input[0])
        if source is not None and {node.op_type, source.op_type} == {QUANTIZE, DEQUANTIZE} and node.op_type == QUANTIZE:
            yield f"{node.name} requantizes what {source.name} has just dequantized"
        if source is not None and node.op_type == source.op_type:
            yield f"{source.name} and {node.name} follow each other"
        if node.op_type == QUANTIZE:
            quantizers[tuple(node.input)] += 1
    for key, n in quantizers.items():
        if n > 1:
            yield f"{key[0]} is quantized {n} times with the same parameters"
    read = {i for g in _graphs(graph) for n in g.node for i in n.input} | {o.name for o in graph.output}
    for n in graph.node:
        if n.op_type == DEQUANTIZE and n.output[0] not in read:
            yield f"{n.name} has no reader"


# What an operator with a slow kernel is written as, under its name.
_WRITTEN = {"PRelu": "Add", "Max": "Add"}


def _names(source: onnx.ModelProto, result: Result) -> Iterator[str]:
    after = {n.name: n for n in result.proto.graph.node}
    if len(after) != len(result.proto.graph.node):
        yield "node names are not unique"
    stored = {p.weight.tensor for p in result.plan.taken() if p.weight is not None}
    for node in result.prepared.model.ir.graph:
        if node.outputs[0].name in stored:
            continue  # the Transpose of a tied weight: a weight, not an operation
        if not result.plan.nodes[node.name].decision.taken and (
            node.name not in after or after[node.name].op_type not in (node.op_type, _WRITTEN.get(node.op_type))
        ):
            yield f"untouched node {node.name} ({node.op_type}) lost its name"
    made = {o: n for n in result.proto.graph.node for o in n.output if o}
    times = Counter(n.name for n in source.graph.node)
    for n in source.graph.node:
        now = made.get(n.output[0]) if n.output else None
        if n.name and times[n.name] == 1 and now is not None and now.op_type == n.op_type and now.name != n.name:
            yield f"{n.name} ({n.op_type}) is now called {now.name}"


def sessions(blob: bytes) -> list[ort.InferenceSession]:
    """One with all optimizations, one with none."""
    made = []
    for level in (ort.GraphOptimizationLevel.ORT_ENABLE_ALL, ort.GraphOptimizationLevel.ORT_DISABLE_ALL):
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = level
        options.intra_op_num_threads = 1
        made.append(ort.InferenceSession(blob, options, providers=["CPUExecutionProvider"]))
    return made


def measured(net: Network, blob: bytes) -> list[dict[str, float]]:
    """SQNR in dB of every float output over all feeds, with optimizations and without."""
    plain = sessions(net.proto.SerializeToString())[0]
    wanted = [plain.run(None, f) for f in net.feeds]
    found = []
    for session in sessions(blob):
        assert [(i.name, i.type) for i in session.get_inputs()] == [(i.name, i.type) for i in plain.get_inputs()]
        signal: dict[str, float] = {}
        noise: dict[str, float] = {}
        for feed, reference in zip(net.feeds, wanted, strict=True):
            for spec, a, b in zip(plain.get_outputs(), reference, session.run(None, feed), strict=True):
                if not isinstance(a, np.ndarray) or not np.issubdtype(a.dtype, np.floating):
                    continue
                assert a.dtype == b.dtype and a.shape == b.shape, (
                    f"{spec.name}: {a.dtype}{a.shape} became {b.dtype}{b.shape}"
                )
                assert np.array_equal(np.isfinite(a), np.isfinite(b)), f"{spec.name} is not finite where it was"
                x, y = a.astype(np.float64), b.astype(np.float64)
                signal[spec.name] = signal.get(spec.name, 0.0) + float((x**2).sum())
                noise[spec.name] = noise.get(spec.name, 0.0) + float(((x - y) ** 2).sum())
        found.append(
            {k: np.inf if noise[k] == 0 else float(10 * np.log10(max(signal[k], 1e-30) / noise[k])) for k in signal}
        )
    return found

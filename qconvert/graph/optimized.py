"""The graph that ONNX Runtime makes of a model, and parts cut out of it."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from qconvert.graph.build_view import view_of
from qconvert.graph.edit import bodies_of
from qconvert.graph.model import Model, load
from qconvert.graph.session import open_session
from qconvert.graph.signature import session_of
from qconvert.graph.view import GraphView

# ONNX Runtime appends these to the names of nodes whose layout it changes.
_LAYOUT_SUFFIX = re.compile(r"(_token_\d+|_nchwc)$")


def origin(name: str) -> str:
    """The name that a node of the optimized graph had before its layout was changed."""
    return _LAYOUT_SUFFIX.sub("", name)


def optimized_model(path: Path, *, layouts: bool = True) -> Model:
    """The model at ``path`` as ONNX Runtime optimizes it, every node named, weights in memory.

    Args:
        path: any model.
        layouts: as it is run on this processor; without, no layout is changed, and the graph runs everywhere.

    Raises:
        ModelError: ONNX Runtime refuses the model.
    """
    with tempfile.TemporaryDirectory(prefix="qconvert-") as folder:
        saved = Path(folder) / "optimized.onnx"
        open_session(path, layouts=layouts, optimized_path=saved)
        model = load(saved)
        ir.external_data.load_to_model(model.ir)
    return named(Model(ir=model.ir))


def structure(path: Path) -> Model:
    """The graph in a file that ONNX Runtime saved, every node named; external data are not looked for.

    A model that was loaded from memory leaves such data with the file it came from, and nobody reads them.
    """
    return named(Model(ir=ir.from_proto(onnx.load_model(str(path), load_external_data=False))))


def renamed(model: Model, rename: Callable[[str], str]) -> Model:
    """``model`` with ``rename`` done to the name of every node of the main graph."""
    copy = model.clone()
    for node in copy.ir.graph:
        node.name = rename(node.name or "")
    return copy


def optimized_view(model: Model, *, int8: bool = False, layouts: bool = False) -> GraphView:
    """What ONNX Runtime's fusions make of ``model``, the same on every processor where no layout is changed.

    Constants of the result have names, but no values.

    Args:
        model: any model.
        int8: fuse pairs of int8 activations wherever it fuses uint8, as ONNX Runtime does on ARM and not on x86.
        layouts: change layouts, too, as on this processor.

    Raises:
        ModelError: ONNX Runtime refuses the model.
    """
    with tempfile.TemporaryDirectory(prefix="qconvert-") as folder:
        saved = Path(folder) / "optimized.onnx"
        session_of(model, layouts=layouts, int8=int8, optimized_path=saved)
        return view_of(structure(saved))


def named(model: Model) -> Model:
    """``model`` with a name of its own for every node of the main graph; those that have one keep it."""
    copy = model.clone()
    taken = {node.name for node in copy.ir.graph}
    seen: set[str] = set()
    for node in copy.ir.graph:
        if node.name and node.name not in seen:
            seen.add(node.name)
            continue
        made = next((v.name for v in node.outputs if v.name), "")
        base, n = f"{node.op_type} of {made}", 1
        name = base
        while name in taken or name in seen:
            n += 1
            name = f"{base} #{n}"
        node.name = name
        seen.add(name)
    return copy


def segment(model: Model, inputs: Mapping[str, np.dtype[np.generic]], outputs: Iterable[str]) -> Model | None:
    """The part of the main graph that makes ``outputs`` of ``inputs``; None when there is nothing to make.

    Args:
        model: every value named.
        inputs: values to start from, with their types; those that are not needed are left out of the result's inputs.
        outputs: values to make.
    """
    wanted = [name for name in dict.fromkeys(outputs) if name not in inputs]
    copy = model.clone()
    graph = copy.ir.graph
    values = {v.name: v for node in graph for v in node.outputs}
    values.update({v.name: v for v in (*graph.inputs, *graph.initializers.values())})
    needed: set[ir.Node] = set()
    starts: dict[str, ir.Value] = {}
    waiting = [values[name] for name in wanted]
    while waiting:
        value = waiting.pop()
        if value.name is not None and value.name in inputs:
            starts[value.name] = value
            continue
        node = value.producer()
        if node is None or node in needed:
            continue
        needed.add(node)
        waiting += [v for v in node.inputs if v is not None]
        waiting += [v for body in bodies_of(node) for v in _captured(body)]
    if not needed:
        return None
    graph.outputs[:] = [values[name] for name in wanted]
    for name, value in list(starts.items()):
        if value.producer() is not None:
            start = ir.Value(name=name, type=ir.TensorType(ir.DataType.from_numpy(inputs[name])), shape=value.shape)
            value.name = f"{name} (made elsewhere)"
            ir.convenience.replace_all_uses_with(value, start)
            starts[name] = start
    unneeded = [node for node in graph if node not in needed]
    for body in (b for node in unneeded for b in bodies_of(node)):
        for inner in body.all_nodes():
            for i in range(len(inner.inputs)):
                inner.replace_input_with(i, None)
    graph.remove(unneeded, safe=True)
    graph.inputs[:] = list(starts.values())
    for name in list(graph.initializers):
        if not graph.initializers[name].uses() and not graph.initializers[name].is_graph_output():
            del graph.initializers[name]
    return copy


def _captured(body: ir.Graph) -> list[ir.Value]:
    """Values that ``body`` reads from outside it; those of its own count too, and lead nowhere."""
    return [v for node in body.all_nodes() for v in node.inputs if v is not None]

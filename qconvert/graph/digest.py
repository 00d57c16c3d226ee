"""Digests that tell whether two models, or two graphs, are the same."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import onnx_ir as ir

from qconvert.graph.model import Model
from qconvert.graph.view import GraphView


def model_digest(model: Model) -> str:
    """SHA-256 of the model's file and, in the order of their names, of its data files; 64 hexadecimal digits."""
    if model.path is None:
        return hashlib.sha256(model.to_bytes()).hexdigest()
    own = model.path.resolve()
    external = {Path(t.path).resolve() for t in model.constants() if isinstance(t, ir.ExternalTensor)}
    digests = [_file_digest(path) for path in (own, *sorted(external - {own}))]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def digest_ahead(model: Model) -> Callable[[], str]:
    """Begin :func:`model_digest` in a thread of its own; what is returned waits for it, and raises what it raises."""
    found: Future[str] = Future()

    def work() -> None:
        try:
            found.set_result(model_digest(model))
        except BaseException as error:  # it belongs to whoever asks for the digest
            found.set_exception(error)

    threading.Thread(target=work, name="digest", daemon=True).start()
    return found.result


def graph_digest(view: GraphView) -> str:
    """SHA-256 of what a plan sees: nodes with their operators, inputs and outputs; 64 hexadecimal digits."""
    hashed = hashlib.sha256()
    for name, node in view.nodes.items():
        hashed.update(repr((name, node.domain, node.op_type, node.inputs, node.outputs)).encode())
    return hashed.hexdigest()


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""A model cut into consecutive parts, so that values can be observed without holding all of them at once.

    nodes in topological order     n1 n2 n3 | n4 n5 | n6 n7 n8        one session a part
    a part's inputs                what it reads that an earlier part, or the caller, has
    a part's outputs               what is observed in it, and what a later part reads

Each node runs once for a feed, as in one session, and weights belong to the parts that read them; at any time only the
observed values of one part, and what later parts need, are in memory. With a single part it is one plain session.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from qconvert.errors import ModelError
from qconvert.graph.bodies import captured
from qconvert.graph.edit import bodies_of
from qconvert.graph.lent import lendable, reference
from qconvert.graph.memory import free_large_arrays_at_once
from qconvert.graph.model import PROTO_LIMIT, Model
from qconvert.graph.session import Feed, IOSpec, Session, open_session
from qconvert.graph.signature import session_of


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """One part of the model.

    Attributes:
        session: computes ``outputs`` from ``reads``.
        observed: those of the outputs that are watched, first among them.
        kept: those of the outputs that later parts read.
        done_with: what no later part reads.
    """

    session: Session
    reads: tuple[str, ...]
    outputs: tuple[str, ...]
    observed: frozenset[str]
    kept: frozenset[str] = frozenset()
    done_with: tuple[str, ...] = ()

    def take(
        self, found: list[NDArray[np.generic]], known: dict[str, NDArray[np.generic]]
    ) -> Iterator[tuple[str, NDArray[np.generic]]]:
        """Empty ``found``, a run's outputs: hand over what is observed, and put into ``known`` what is kept."""
        found.reverse()
        for name in self.outputs:
            value = found.pop()
            if name in self.kept:
                known[name] = value
            if name in self.observed:
                yield name, value
            del value


class Observer:
    """Runs a model and hands over the values of some of its tensors.

    Args:
        model: a canonical model.
        watched: names of values that nodes of the main graph make.
        sizes: bytes of each watched value for one run; a missing one counts as nothing.
        budget: bytes of watched values that one part may make, if its first node does not make more already.
        threads: of ONNX Runtime, within an operator.
    """

    def __init__(
        self, model: Model, watched: Sequence[str], *, sizes: Mapping[str, int], budget: int, threads: int
    ) -> None:
        free_large_arrays_at_once()
        cuts = _cuts(model, set(watched), sizes, budget)
        # over 2 GB of constants in memory no part can be serialised on its own; one session goes through a file
        if len(cuts) > 1 and model.weight_bytes(in_memory=True) <= PROTO_LIMIT:
            try:
                self._parts = _parts(model, watched, cuts, threads)
                return
            except ModelError:
                pass  # a value of unknown type on a border, or a part that ONNX Runtime cannot load: run it as a whole
        session = session_of(model, outputs=watched, threads=threads, lean=True)
        reads = tuple(i.name for i in session.inputs)
        self._parts = (_Part(session=session, reads=reads, outputs=tuple(watched), observed=frozenset(watched)),)

    @property
    def parts(self) -> int:
        """How many parts the model was cut into."""
        return len(self._parts)

    @property
    def inputs(self) -> tuple[IOSpec, ...]:
        """What the first part reads: all of the model's inputs that matter, if it is the only one."""
        return self._parts[0].session.inputs

    def run(self, feed: Feed) -> Iterator[tuple[str, NDArray[np.generic]]]:
        """(name, value) of every watched tensor for one feed; a value is dropped when the next is asked for.

        Raises:
            ModelError: ONNX Runtime could not run the model on this feed.
        """
        for values in self.run_parts(feed):
            yield from values

    def run_parts(self, feed: Feed) -> Iterator[Iterator[tuple[str, NDArray[np.generic]]]]:
        """:meth:`run`, part by part: ONNX Runtime works when a part is asked for, which needs all values of the last.

        Raises:
            ModelError: ONNX Runtime could not run the model on this feed.
        """
        known: dict[str, NDArray[np.generic]] = dict(feed)
        for part in self._parts:
            found = part.session.run({n: known[n] for n in part.reads}, part.outputs)
            yield part.take(found, known)
            for name in part.done_with:
                del known[name]


def _cuts(model: Model, watched: set[str], sizes: Mapping[str, int], budget: int) -> list[list[ir.Node]]:
    """The nodes of the main graph in parts that make at most ``budget`` bytes of watched values each."""
    parts: list[list[ir.Node]] = [[]]
    held = 0
    left = len(watched)
    for node in model.ir.graph:
        seen = [v.name for v in node.outputs if v.name in watched]
        made = sum(sizes.get(name or "", 0) for name in seen)
        if parts[-1] and held and held + made > budget:
            parts.append([])
            held = 0
        parts[-1].append(node)
        held += made
        left -= len(seen)
        if left == 0:  # what comes after the last watched value need not run
            break
    return parts


def _parts(model: Model, watched: Sequence[str], cuts: list[list[ir.Node]], threads: int) -> tuple[_Part, ...]:
    """A session for each part.

    Raises:
        ModelError: a part cannot stand on its own.
    """
    values = {v.name: v for v in model.ir.graph.inputs}
    values.update({v.name: v for node in model.ir.graph for v in node.outputs})
    made = [{v.name for n in nodes for v in n.outputs if v.name} for nodes in cuts]
    reads = [[v for v in _read(nodes) if v.name not in m] for nodes, m in zip(cuts, made, strict=True)]
    needs = [[v.name or "" for v in read if v.name in values] for read in reads]
    parts = []
    present: set[str] = set()
    for i, nodes in enumerate(cuts):
        later = {name for names in needs[i + 1 :] for name in names}
        observed = tuple(name for name in watched if name in made[i])
        kept = frozenset(name for name in made[i] & later if name)
        outputs = (*observed, *sorted(kept.difference(observed)))
        constants = [v for v in reads[i] if v.name not in values]
        data, lent = _serialised(model, nodes, constants, [values[n] for n in needs[i]], [values[n] for n in outputs])
        present |= {*needs[i], *kept}
        parts.append(
            _Part(
                session=open_session(data, folder=model.folder, lent=lent, threads=threads, lean=True),
                reads=tuple(needs[i]),
                outputs=outputs,
                observed=frozenset(observed),
                kept=kept,
                done_with=tuple(sorted(present - later)),
            )
        )
        present &= later
    return tuple(parts)


def _read(nodes: Sequence[ir.Node]) -> list[ir.Value]:
    """The values that ``nodes``, or bodies within them, read; in order of first use."""
    found: dict[ir.Value, None] = {}
    for node in nodes:
        found.update(dict.fromkeys(v for v in node.inputs if v is not None and v.name))
        for body in bodies_of(node):
            found.update(dict.fromkeys(captured(body)))
    return list(found)


def _serialised(
    model: Model,
    nodes: Sequence[ir.Node],
    constants: Sequence[ir.Value],
    inputs: Sequence[ir.Value],
    outputs: Sequence[ir.Value],
) -> tuple[bytes, dict[str, NDArray[np.generic]]]:
    """A model of its own, ``nodes`` between ``inputs`` and ``outputs``, and weights that it only refers to.

    Raises:
        ModelError: the type of an input is not known, or a constant has no value.
    """
    if any(v.type is None for v in inputs) or any(v.const_value is None for v in constants):
        raise ModelError("a value on the border of a part has no known type")
    proto = onnx.ModelProto(ir_version=model.ir.ir_version)
    proto.graph.name = "part"
    for domain, version in model.ir.opset_imports.items():
        proto.opset_import.add(domain=domain, version=version)
    proto.functions.extend(ir.to_proto(f) for f in model.ir.functions.values())
    proto.graph.node.extend(ir.to_proto(n) for n in nodes)
    proto.graph.input.extend(ir.to_proto(v) for v in inputs)
    # ONNX Runtime infers the types of outputs itself
    proto.graph.output.extend(onnx.ValueInfoProto(name=v.name or "") for v in outputs)
    lent: dict[str, NDArray[np.generic]] = {}
    for value in constants:
        if value.const_value is None:
            continue
        name, held = value.name or "", lendable(value.const_value)
        if held is not None:
            lent[name] = held
        tensor = ir.to_proto(value.const_value if held is None else reference(value.const_value))
        tensor.name = name
        proto.graph.initializer.append(tensor)
    return bytes(proto.SerializeToString(deterministic=True)), lent

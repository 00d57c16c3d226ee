"""Where weights are: constants of two axes or more that an operator multiplies with, in every graph of a model.

Each is seen as a matrix of rows [N, K], a row for each output channel:

    MatMul      W [K, N]               rows W^T; behind a Transpose of W [N, K]: W
    Gemm        W [K, N]               rows W^T; with transB W
    Attention   W [K, 3 N]             rows W^T
    Conv        W [O, I/g, k, k]       rows [O, I/g k k]; ConvTranspose W [I, O/g, k, k]: rows [O/g, I k k]
    Gather      table [V, D]           rows are the table's
    LSTM, GRU, RNN   W [d, G, I], R    rows [d G, I]
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

import numpy as np
import onnx_ir as ir

from qconvert.graph.build_view import transposed_constant
from qconvert.graph.model import Model, unmap
from qconvert.numerics.blocks import Rows

# A smaller weight saves less than its scales and the nodes around it take.
LEAST_WEIGHT = 512
_RECURRENT = ("LSTM", "GRU", "RNN")


class Kind(Enum):
    """How a weight is used."""

    PRODUCT = "product"
    ATTENTION = "attention"
    CONVOLUTION = "convolution"
    TABLE = "table"
    RECURRENT = "recurrent"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Site:
    """One weight at one port of a node.

    Attributes:
        node, port: who reads it, and where.
        kind: how it is used.
        weight: the initializer, perhaps of another graph than the node's.
        axis: of the initializer: the output channels; rows of two axes (recurrent weights) name the second.
    """

    node: ir.Node
    port: int
    kind: Kind
    weight: ir.Value
    axis: int

    @property
    def name(self) -> str:
        """The node's name."""
        return self.node.name or ""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the initializer."""
        tensor = self.weight.const_value
        return tuple(tensor.shape.numpy()) if tensor is not None else ()

    @property
    def bytes(self) -> int:
        """Of the float weight."""
        return 4 * math.prod(self.shape)

    def rows(self) -> Rows:
        """The weight as [N, K]."""
        return np.ascontiguousarray(self.row_view())

    def row_view(self) -> Rows:
        """:meth:`rows` as a view of the tensor, which may be a mapped file, where its layout allows that."""
        tensor = self.weight.const_value
        array = np.asarray(tensor.numpy() if tensor is not None else [], np.float32)
        if self.kind is Kind.RECURRENT:
            return array.reshape(-1, array.shape[-1])
        return np.moveaxis(array, self.axis, 0).reshape(array.shape[self.axis], -1)

    def unmap(self) -> None:
        """Let go of the weight's file."""
        unmap(self.weight.const_value)

    @property
    def is_head(self) -> bool:
        """Whether it makes an output of the model, at most a bias and a change of shape in between."""
        value, steps = self.node.outputs[0], 0
        while not value.is_graph_output() and steps < 4:
            uses = list(value.uses())
            if len(uses) != 1 or uses[0].node.op_type not in ("Add", "Reshape", "Cast", "Identity", "Squeeze"):
                return False
            value, steps = uses[0].node.outputs[0], steps + 1
        return value.is_graph_output() and self.kind is Kind.PRODUCT


def find_sites(model: Model) -> tuple[Site, ...]:
    """Every float32 weight that a scheme could store otherwise, in the order of the nodes."""
    return tuple(s for s in _sites(model) if np.prod(s.shape) >= LEAST_WEIGHT)


def shared(sites: tuple[Site, ...]) -> dict[ir.Value, tuple[Site, ...]]:
    """The sites of each initializer."""
    found: dict[ir.Value, tuple[Site, ...]] = {}
    for site in sites:
        found[site.weight] = (*found.get(site.weight, ()), site)
    return found


def other_readers(sites: tuple[Site, ...]) -> str:
    """What reads the one initializer of ``sites`` beside them: an operator's name, or "" if nothing does.

    A Transpose in between counts as its readers.
    """
    weight, ports = sites[0].weight, {(s.node, s.port) for s in sites}
    if weight.is_graph_output():
        return "the model's caller"
    for use in weight.uses():
        if (use.node, use.idx) in ports:
            continue
        if transposed_constant(use.node.outputs[0]) is None or use.node.outputs[0].is_graph_output():
            return use.node.op_type
        for behind in use.node.outputs[0].uses():
            if (behind.node, behind.idx) not in ports:
                return behind.node.op_type
    return ""


def layout_objection(sites: tuple[Site, ...]) -> str:
    """Why the one initializer of ``sites`` has no rows of output channels that are right for all; "" if it has."""
    if len({s.axis for s in sites}) > 1:
        return "its readers take it both ways round, so it has no scales that suit all (nf4 and palettes can store it)"
    return ""


def _sites(model: Model) -> Iterator[Site]:
    for node in ir.traversal.RecursiveGraphIterator(model.ir.graph):
        op = node.op_type
        if node.domain not in ("", "ai.onnx", "com.microsoft"):
            continue
        if op in ("MatMul", "Gemm"):
            yield from _product(node)
        elif op in ("Conv", "ConvTranspose"):
            yield from _plain(node, 1, Kind.CONVOLUTION, axis=int(op == "ConvTranspose"), rank=None)
        elif op == "Gather" and node.attributes.get_int("axis", 0) == 0:
            yield from _plain(node, 0, Kind.TABLE, axis=0, rank=2)
        elif op in _RECURRENT:
            for port in (1, 2):
                yield from _plain(node, port, Kind.RECURRENT, axis=1, rank=3)
        elif op == "Attention" and node.domain == "com.microsoft":
            yield from _plain(node, 1, Kind.ATTENTION, axis=1, rank=2)


def _plain(node: ir.Node, port: int, kind: Kind, *, axis: int, rank: int | None) -> Iterator[Site]:
    value = node.inputs[port] if port < len(node.inputs) else None
    if value is not None and _is_weight(value, rank):
        yield Site(node=node, port=port, kind=kind, weight=value, axis=axis)


def _product(node: ir.Node) -> Iterator[Site]:
    value = node.inputs[1] if len(node.inputs) > 1 else None
    if value is None:
        return
    turned = node.op_type == "Gemm" and node.attributes.get_int("transB", 0) == 1
    if value.const_value is None and (behind := transposed_constant(value)) is not None and not turned:
        source, perm = behind
        if perm == (1, 0) and _is_weight(source, 2):
            yield Site(node=node, port=1, kind=Kind.PRODUCT, weight=source, axis=0)
    elif _is_weight(value, 2):
        yield Site(node=node, port=1, kind=Kind.PRODUCT, weight=value, axis=0 if turned else 1)


def _is_weight(value: ir.Value, rank: int | None) -> bool:
    tensor = value.const_value
    if tensor is None or value.is_graph_input() or tensor.dtype != ir.DataType.FLOAT:
        return False
    axes = len(tensor.shape)
    return axes >= 2 if rank is None else axes == rank


def node_names(model: Model) -> list[tuple[str, str]]:
    """(name, operator type) of every node, those of control-flow bodies included."""
    return [(n.name or "", n.op_type) for n in ir.traversal.RecursiveGraphIterator(model.ir.graph)]

"""Weights in small codes, decoded by standard operators into the float tensors that their readers had before.

Of a codebook (:mod:`qconvert.numerics.codebooks`), [N, K] rows of n numbers, 8 / b of them a byte:

    bytes [ceil(n b / 8), 1] uint8 -> Cast int32 -> Div [.., 2**b, 1] -> Mod 2**b -> codes -> Gather from the book
                                   -> Reshape, Mul scales -> Reshape -> Transpose where rows are another axis

Of FP8: codes in the weight's own shape -> Cast -> Mul scales, or DequantizeLinear.

All of it is of constants, so ONNX Runtime computes it once, when it loads the model (1.32; but for DequantizeLinear,
which it leaves for every run): the file is small, memory and speed are those of the float model. A weight is decoded in
the graph that holds it, once for all its readers, those in bodies of control flow included.

MatMulBnb4 (com.microsoft) reads the same bytes and scales of NF4 and FP4 and decodes them at each run: memory stays
small, too. It takes blocks of 16 to 256 that run over [N, K] (checked: K need not be a multiple).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qconvert.emit.additions import CONTRIB, Additions, discard
from qconvert.emit.sites import Kind, Site
from qconvert.errors import InternalError
from qconvert.graph.edit import take_over
from qconvert.numerics.codebooks import BookCodes, pack_high

# The operators that decode.
DECODING = frozenset({"Add", "Cast", "Div", "Gather", "Mod", "Mul", "Pad", "Reshape", "Slice", "Transpose"})
# MatMulBnb4's quant_type
FP4_TYPE, NF4_TYPE = 0, 1
# About what the nodes and names of a decoded weight take in a file.
NODE_BYTES = 700


@dataclass(slots=True, kw_only=True)
class DecodedEmitter:
    """Writes weights into a model."""

    additions: Additions
    _integers: dict[tuple[ir.Graph, tuple[int, ...], str], ir.Value] = field(default_factory=dict)

    def write(self, sites: Sequence[Site], codes: BookCodes, bnb4: int | None) -> None:
        """Let all readers of the initializer of ``sites`` read ``codes`` instead.

        Args:
            sites: all readers, Transposes in between left out.
            codes: its rows.
            bnb4: the type of MatMulBnb4 that products become; None: they stay as they are.
        """
        weight = sites[0].weight
        graph, first = _home(weight)
        stored = self._stored(graph, weight.name or "weight", codes)
        for site in sites:
            if bnb4 is not None and site.kind is Kind.PRODUCT:
                self._bnb4(site, codes, stored, bnb4)
        if any(not _is_dead(use.node) for use in weight.uses()):
            self._take_place(weight, self._decoded(sites[0], codes, stored, first))
        discard(weight)

    def write_fp8(self, site: Site, codes: NDArray[np.generic], scale: NDArray[np.float32], *, linear: bool) -> None:
        """Let all readers of the initializer of ``site`` read FP8 ``codes``.

        Args:
            site: one of them.
            codes: in the shape of the initializer, a float8 type of ml_dtypes.
            scale: a scale for each output channel, [N].
            linear: DequantizeLinear instead of Cast and Mul.
        """
        weight, add = site.weight, self.additions
        graph, first = _home(weight)
        name = weight.name or "weight"
        stored = add.constant(graph, f"{name}_q", codes)
        if linear and codes.ndim > 1 and site.kind is not Kind.RECURRENT:
            scales = add.constant(graph, f"{name}_s", scale)
            real = add.node(first, "DequantizeLinear", [stored, scales], {"axis": site.axis}, name=f"{name}_decoded")
        else:
            shape = [1] * codes.ndim
            if site.kind is Kind.RECURRENT:
                shape = [*codes.shape[:-1], 1]
            else:
                shape[site.axis] = len(scale)
            scales = add.constant(graph, f"{name}_s", scale.reshape(shape))
            real = add.node(first, "Cast", [stored], {"to": int(ir.DataType.FLOAT)}, name=f"{name}_Cast")
            real = add.node(first, "Mul", [real, scales], name=f"{name}_decoded")
        self._take_place(weight, real)
        discard(weight)

    def _stored(self, graph: ir.Graph, name: str, codes: BookCodes) -> _Stored:
        packed = pack_high(codes.codes, codes.bits)
        scale = None if codes.scale is None else self.additions.constant(graph, f"{name}_s", codes.scale)
        return _Stored(packed=self.additions.constant(graph, f"{name}_q", packed), scale=scale)

    def _bnb4(self, site: Site, codes: BookCodes, stored: _Stored, kind: int) -> None:
        node, add = site.node, self.additions
        rows, columns = codes.codes.shape
        attributes = {"K": columns, "N": rows, "block_size": codes.block, "quant_type": kind}
        inputs = [node.inputs[0], stored.packed, stored.scale]
        made = add.node(node, "MatMulBnb4", inputs, attributes, name=f"{node.name}_MatMulBnb4", domain=CONTRIB)
        made.type, made.shape = node.outputs[0].type, node.outputs[0].shape
        product = made.producer()
        if node.op_type == "Gemm" and len(node.inputs) > 2 and node.inputs[2] is not None:
            made = add.node(node, "Add", [made, node.inputs[2]], name=f"{node.name}_Add")
        take_over(made, node.outputs[0])
        name = node.name
        if node.graph is not None and product is not None:
            node.graph.remove(node, safe=True)
            product.name = name

    def _decoded(self, site: Site, codes: BookCodes, stored: _Stored, before: ir.Node) -> ir.Value:
        """The float weight, in the shape of the initializer."""
        add, name, graph = self.additions, site.weight.name, _home(site.weight)[0]
        count, bits = codes.codes.size, codes.bits
        each = 8 // bits
        base = f"{name}_decode"

        def node(op: str, inputs: Sequence[ir.Value | None], **attributes: int | Sequence[int]) -> ir.Value:
            return add.node(before, op, inputs, attributes, name=f"{base}_{op}")

        def reshape(value: ir.Value, *shape: int) -> ir.Value:
            return node("Reshape", [value, self._integer(graph, shape, "int64")])

        def cut(value: ir.Value) -> ir.Value:
            ends = [self._integer(graph, (n,), "int64") for n in (0, count)]
            return node("Slice", [reshape(value, -1), *ends])

        value = node("Cast", [stored.packed], to=int(ir.DataType.INT32))
        if each > 1:
            value = reshape(value, -1, 1)
            steps = tuple(2 ** (8 - bits * (place + 1)) for place in range(each))
            value = node("Div", [value, self._integer(graph, steps, "int32")])
            value = node("Mod", [value, self._integer(graph, (2**bits,), "int32")])
            if count % each:
                value = cut(value)
        if len(codes.book) > 1:
            value = reshape(value, *codes.codes.shape)
            offsets = (codes.books() << bits).astype(np.int32)[:, None]
            value = node("Add", [value, add.constant(graph, f"{name}_book_of_row", offsets)])
        value = node("Gather", [add.constant(graph, f"{name}_book", codes.book.reshape(-1)), value])
        if stored.scale is not None:
            padded = count % codes.block
            if padded:
                value = reshape(value, -1)
                pads = self._integer(graph, (0, codes.block - padded), "int64")
                value = node("Pad", [value, pads])
            value = reshape(value, -1, codes.block)
            value = node("Mul", [value, reshape(stored.scale, -1, 1)])
            if padded:
                value = cut(value)
        shape, axis = site.shape, 0 if site.kind is Kind.RECURRENT else site.axis
        value = reshape(value, shape[axis], *(d for i, d in enumerate(shape) if i != axis))
        if axis:
            perm = [*range(1, axis + 1), 0, *range(axis + 1, len(shape))]
            value = node("Transpose", [value], perm=perm)
        return value

    def _integer(self, graph: ir.Graph, numbers: tuple[int, ...], kind: str) -> ir.Value:
        """``numbers`` as a constant of ``graph``, one for all who need it."""
        key = (graph, numbers, kind)
        if key not in self._integers:
            text = "_".join(map(str, numbers)).replace("-", "m")
            self._integers[key] = self.additions.constant(graph, f"q_{kind}_{text}", np.array(numbers, kind))
        return self._integers[key]

    def _take_place(self, weight: ir.Value, real: ir.Value) -> None:
        real.type, real.shape = weight.type, weight.shape
        for use in list(weight.uses()):
            use.node.replace_input_with(use.idx, real)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stored:
    """The constants of one weight."""

    packed: ir.Value
    scale: ir.Value | None


def _is_dead(node: ir.Node) -> bool:
    """Whether ``node`` is a Transpose that nothing reads any more."""
    result = node.outputs[0]
    return node.op_type == "Transpose" and not result.uses() and not result.is_graph_output()


def _home(weight: ir.Value) -> tuple[ir.Graph, ir.Node]:
    """The graph that holds ``weight``, and its first node."""
    graph = weight.graph
    if not isinstance(graph, ir.Graph) or not len(graph):
        raise InternalError(f"the weight {weight.name} belongs to no graph")
    return graph, graph[0]

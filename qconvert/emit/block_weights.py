"""Weights of few bits written into a graph, for operators that compute in float.

    DEQUANTIZE   codes -> DequantizeLinear -> the operator as it was. ONNX alone; ONNX Runtime makes MatMulNBits of it
                 where a MatMul or a Gemm without transB reads it (1.32), other weights are unpacked at each run
    NBITS        com.microsoft MatMulNBits in place of MatMul and Gemm, GatherBlockQuantized in place of Gather
    UNPACK       Cast, Sub, Mul, of blocks a Reshape, which ONNX Runtime computes when it loads the model, in bodies of
                 control flow, too, codes of an outer graph included: filters, LSTMs and products at float speed
    ROWS         Gather(codes, i), Gather(scale, i), Cast, Sub, Mul: a table of 8-bit rows by operators that all have

A weight that several operators read (an embedding table that is the output matrix, too) is stored once: MatMulNBits
reads a Reshape of it, a product behind DequantizeLinear a Transpose of it; ONNX Runtime folds both when it loads the
model.
Layouts: the operators' documentation in ONNX Runtime 1.32, and checked by running them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qconvert.emit.additions import CONTRIB, Additions, discard
from qconvert.emit.sites import Kind, Site
from qconvert.errors import InternalError
from qconvert.graph.edit import take_over
from qconvert.numerics.blocks import BlockCodes, in_blocks, pack

_TYPES = {2: (ml_dtypes.int2, ml_dtypes.uint2), 4: (ml_dtypes.int4, ml_dtypes.uint4), 8: (np.int8, np.uint8)}
# MatMulNBits and GatherBlockQuantized take powers of two from here on
LEAST_BLOCK = 16


class Form(Enum):
    """How a weight is stored."""

    DEQUANTIZE = "DequantizeLinear"
    NBITS = "MatMulNBits"
    UNPACK = "unpack"
    ROWS = "rows"


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockEmitter:
    """Writes weights into a model.

    Attributes:
        additions: where nodes and constants are added.
        accuracy_level: of MatMulNBits: 4 rounds activations to 8 bits, a block at a time; 1 computes in float.
    """

    additions: Additions
    accuracy_level: int

    def write(
        self,
        sites: Sequence[Site],
        codes: BlockCodes,
        forms: Sequence[Form],
        factors: NDArray[np.float32] | None,
    ) -> None:
        """Let ``sites``, which read one initializer, read ``codes`` instead, each in its form.

        Args:
            sites: all readers of the initializer.
            codes: its rows.
            forms: one for each site.
            factors: what its columns were multiplied by, [K]: the inputs are divided by it.
        """
        stored = _Stored(additions=self.additions, site=sites[0], codes=codes, alone=len(sites) == 1)
        for site, form in zip(sites, forms, strict=True):
            folds = form is Form.UNPACK and stored.in_blocks
            if factors is not None and not folds:
                reciprocal = stored.reciprocal(factors)
                read = [site.node.inputs[0], reciprocal]
                scaled = self.additions.node(site.node, "Mul", read, name=f"{site.name}_input_scale")
                site.node.replace_input_with(0, scaled)
            if form is Form.ROWS:
                self._rows(site, stored)
            elif form is Form.DEQUANTIZE:
                self._dequantize(site, stored)
            elif folds:
                self._unpack_blocks(site, stored, factors)
            elif form is Form.UNPACK:
                self._unpack(site, stored)
            elif site.kind is Kind.TABLE:
                self._nbits_table(site, stored)
            else:
                self._nbits(site, stored)
        discard(sites[0].weight)

    def _nbits(self, site: Site, stored: _Stored) -> None:
        node, codes = site.node, stored.codes
        rows, columns = codes.codes.shape
        inputs: list[ir.Value | None] = [node.inputs[0], stored.packed(node), stored.nbits_scale(), stored.nbits_zero()]
        if node.op_type == "Gemm" and len(node.inputs) > 2 and node.inputs[2] is not None:
            inputs += [None] * (5 - len(inputs)) + [node.inputs[2]]
        while inputs[-1] is None:
            inputs.pop()
        attributes = {
            "K": columns,
            "N": rows,
            "bits": codes.spec.bits,
            "block_size": codes.spec.block,
            "accuracy_level": self.accuracy_level,
        }
        self._replace(node, "MatMulNBits", inputs, attributes)

    def _nbits_table(self, site: Site, stored: _Stored) -> None:
        node, spec = site.node, stored.codes.spec
        inputs = [stored.packed_rows(), node.inputs[1], stored.nbits_scale()]
        zero = stored.nbits_zero()
        attributes = {"gather_axis": 0, "quantize_axis": 1, "block_size": spec.block, "bits": spec.bits}
        self._replace(node, "GatherBlockQuantized", [*inputs, *([zero] if zero is not None else [])], attributes)

    def _replace(
        self, node: ir.Node, op_type: str, inputs: Sequence[ir.Value | None], attributes: dict[str, int]
    ) -> None:
        made = self.additions.node(node, op_type, inputs, attributes, name=f"{node.name}_{op_type}", domain=CONTRIB)
        producer, name = made.producer(), node.name
        take_over(made, node.outputs[0])
        if node.graph is not None and producer is not None:
            node.graph.remove(node, safe=True)
            producer.name = name

    def _dequantize(self, site: Site, stored: _Stored) -> None:
        node, name = site.node, f"{site.name}_{site.port}"
        if node.graph is not stored.graph:  # ONNX Runtime fails to fuse what reads constants of an outer graph
            node = stored.graph[0]
        codes, scale, zero, attributes = stored.dequantized(site, node)
        inputs = [codes, scale, *([zero] if zero is not None else [])]
        real = self.additions.node(node, "DequantizeLinear", inputs, attributes, name=f"{name}_DequantizeLinear")
        if site.kind is Kind.RECURRENT:  # [d G, I] has a scale a row; [d, G, I] could not
            real = self.additions.node(node, "Reshape", [real, stored.shape(site.shape)], name=f"{name}_Reshape")
        site.node.replace_input_with(site.port, real)
        if site.node.op_type == "Gemm":
            site.node.attributes.pop("transB", None)

    def _unpack(self, site: Site, stored: _Stored) -> None:
        add, name = self.additions, f"{site.name}_{site.port}"
        node = site.node
        codes, scale, zero = stored.unpacked(site, node)
        real = add.node(node, "Cast", [codes], {"to": int(ir.DataType.FLOAT)}, name=f"{name}_Cast")
        if zero is not None:
            real = add.node(node, "Sub", [real, zero], name=f"{name}_Sub")
        real = add.node(node, "Mul", [real, scale], name=f"{name}_Mul")
        node.replace_input_with(site.port, real)
        if node.op_type == "Gemm":
            node.attributes.pop("transB", None)

    def _unpack_blocks(self, site: Site, stored: _Stored, factors: NDArray[np.float32] | None) -> None:
        """What several read is unpacked once as rows, for products turned; what one product reads as it reads it."""
        node = site.node if stored.alone else stored.graph[0]
        if stored.unpacked_once is None:
            stored.unpacked_once = self._real_blocks(node, f"{site.name}_{site.port}", stored, factors)
        real = stored.unpacked_once
        if not stored.turned and site.kind is Kind.PRODUCT:
            real = self.additions.node(node, "Transpose", [real], {"perm": (1, 0)}, name=f"{site.name}_Transpose")
        site.node.replace_input_with(site.port, real)
        if site.node.op_type == "Gemm":
            site.node.attributes.pop("transB", None)

    def _real_blocks(self, node: ir.Node, name: str, stored: _Stored, factors: NDArray[np.float32] | None) -> ir.Value:
        """The weight [K, N], or [N, K] where it is not turned, by operators in front of ``node``."""
        add, to_float = self.additions, {"to": int(ir.DataType.FLOAT)}
        codes, scale, zero = stored.blocks()
        real = add.node(node, "Cast", [codes], to_float, name=f"{name}_Cast")
        if zero is not None:
            zero = add.node(node, "Cast", [zero], to_float, name=f"{name}_zero")
            real = add.node(node, "Sub", [real, zero], name=f"{name}_Sub")
        real = add.node(node, "Mul", [real, scale], name=f"{name}_Mul")
        rows, columns = stored.codes.codes.shape
        shape = stored.shape((-1, rows) if stored.turned else (rows, -1))
        real = add.node(node, "Reshape", [real, shape], name=f"{name}_Reshape")
        if columns % stored.codes.spec.block:  # the last block is filled up
            real = add.node(node, "Slice", [real, *stored.ends(columns)], name=f"{name}_Slice")
        if factors is not None:
            each = stored.reciprocal(factors, -1, 1) if stored.turned else stored.reciprocal(factors)
            real = add.node(node, "Mul", [real, each], name=f"{name}_input_scale")
        return real

    def _rows(self, site: Site, stored: _Stored) -> None:
        node, add, name = site.node, self.additions, site.name
        index, spec = node.inputs[1], stored.codes.spec
        picked = add.node(node, "Gather", [stored.plain(), index], name=f"{name}_codes")
        scale = add.node(node, "Gather", [stored.column_scale(), index], name=f"{name}_scale")
        real = add.node(node, "Cast", [picked], {"to": int(ir.DataType.FLOAT)}, name=f"{name}_Cast")
        if not spec.symmetric:
            zero = add.node(node, "Gather", [stored.column_zero(), index], name=f"{name}_zero")
            real = add.node(node, "Sub", [real, zero], name=f"{name}_Sub")
        real = add.node(node, "Mul", [real, scale], name=f"{name}_Mul")
        take_over(real, node.outputs[0])
        if node.graph is not None:
            node.graph.remove(node, safe=True)


@dataclass(slots=True, kw_only=True)
class _Stored:
    """The constants of one weight, each made when it is first asked for."""

    additions: Additions
    site: Site
    codes: BlockCodes
    alone: bool
    unpacked_once: ir.Value | None = None
    _made: dict[str, ir.Value] | None = None

    @property
    def in_blocks(self) -> bool:
        """Whether a row has several scales."""
        return bool(self.codes.scale.shape[1] > 1)

    @property
    def turned(self) -> bool:
        """Whether unpacked blocks are columns [K, N], as a product alone wants them."""
        return self.alone and self.site.kind is Kind.PRODUCT

    def _constant(self, key: str, suffix: str, array: NDArray[np.generic]) -> ir.Value:
        if self._made is None:
            self._made = {}
        if key not in self._made:
            self._made[key] = self.additions.constant(self.graph, f"{self.site.weight.name}_{suffix}", array)
        return self._made[key]

    @property
    def graph(self) -> ir.Graph:
        """Where the constants are: with the one reader, or where the weight was if several read it."""
        graph = self.site.node.graph if self.alone else self.site.weight.graph
        if not isinstance(graph, ir.Graph):
            raise InternalError(f"the weight {self.site.weight.name} belongs to no graph")
        return graph

    def packed_rows(self) -> ir.Value:
        """[N, K * bits / 8] bytes, as GatherBlockQuantized reads them."""
        return self._constant("packed", "q", pack(self.codes.codes, self.codes.spec.bits))

    def packed(self, before: ir.Node) -> ir.Value:
        """[N, B, block * bits / 8] bytes, as MatMulNBits reads them; a Reshape of :meth:`packed_rows` where a table is
        read from them, too."""
        spec, (rows, columns) = self.codes.spec, self.codes.codes.shape
        count = spec.blocks(columns)
        shape = (rows, count, spec.block * spec.bits // 8)
        if self.alone or columns % spec.block:
            padded = np.pad(self.codes.codes, ((0, 0), (0, count * spec.block - columns)))
            return self._constant("blobs", "q", pack(padded, spec.bits).reshape(shape))
        return self.additions.node(
            before, "Reshape", [self.packed_rows(), self.shape(shape)], name=f"{before.name}_codes"
        )

    def shape(self, sizes: tuple[int, ...]) -> ir.Value:
        """``sizes`` as a constant."""
        return self._constant("shape", "q_shape", np.asarray(sizes, np.int64))

    def reciprocal(self, factors: NDArray[np.float32], *shape: int) -> ir.Value:
        """1 / ``factors`` [K], in ``shape``."""
        return self._constant("reciprocal", "f", (1.0 / factors).astype(np.float32).reshape(shape or -1))

    def nbits_scale(self) -> ir.Value:
        """[N, B] float32."""
        return self._constant("scale", "s", self.codes.scale)

    def nbits_zero(self) -> ir.Value | None:
        """[N, ceil(B * bits / 8)] bytes; None where the operators' default of 2**(bits - 1) is right."""
        if self.codes.spec.symmetric:
            return None
        return self._constant("zero", "z", pack(self.codes.zero, self.codes.spec.bits))

    def plain(self) -> ir.Value:
        """[N, K] codes of 8 bits, signed where symmetric."""
        return self._constant("plain", "q", self._typed(self.codes.codes))

    def column_scale(self) -> ir.Value:
        """[N, 1] float32: one scale a row."""
        return self._constant("column scale", "s", self.codes.scale)

    def column_zero(self) -> ir.Value:
        """[N, 1] float32."""
        return self._constant("column zero", "z", self.codes.zero.astype(np.float32))

    def dequantized(self, site: Site, before: ir.Node) -> tuple[ir.Value, ir.Value, ir.Value | None, dict[str, int]]:
        """(codes, scale, zero point or None, attributes) of the DequantizeLinear in front of ``site``."""
        spec, shape, axis = self.codes.spec, site.shape, site.axis
        whole = self.codes.scale.shape[1] == 1
        if site.kind is Kind.PRODUCT:
            # [K, N], whatever way round the initializer was: only so does ONNX Runtime fuse it
            codes = self._product_codes(before)
            if whole:
                return codes, *self._vectors(), {"axis": 1}
            scale = self._constant("turned scale", "s", self.codes.scale.T)
            zero = None if spec.symmetric else self._constant("turned zero", "z", self._typed(self.codes.zero.T))
            return codes, scale, zero, {"axis": 0, "block_size": spec.block}
        if not whole:
            raise InternalError(f"a {site.node.op_type} has no weights in blocks")
        if site.kind is Kind.RECURRENT:
            flat = self._constant("like", "q", self._typed(self.codes.codes))
            return flat, *self._vectors(), {"axis": 0}
        moved = self.codes.codes.reshape(shape[axis], *(d for i, d in enumerate(shape) if i != axis))
        codes = self._constant("like", "q", self._typed(np.moveaxis(moved, 0, axis)))
        return codes, *self._vectors(), {"axis": axis}

    def unpacked(self, site: Site, before: ir.Node) -> tuple[ir.Value, ir.Value, ir.Value | None]:
        """(codes shaped like the weight, scale, zero point or None), the latter float32 to broadcast over it.

        Those of a product are [K, N], whatever way round the initializer was.
        """
        shape, axis = site.shape, site.axis
        if site.kind is Kind.PRODUCT:
            codes, scale = self._product_codes(before), self._constant("vector scale", "s", self.codes.scale[:, 0])
            if self.codes.spec.symmetric:
                return codes, scale, None
            return codes, scale, self._constant("real zero", "z", self.codes.zero[:, 0].astype(np.float32))
        if site.kind is Kind.RECURRENT:  # rows are [d G]
            shaped, ends = self.codes.codes.reshape(shape), (*shape[:-1], 1)
        else:
            moved = self.codes.codes.reshape(shape[axis], *(d for i, d in enumerate(shape) if i != axis))
            shaped, ends = np.moveaxis(moved, 0, axis), tuple(d if i == axis else 1 for i, d in enumerate(shape))
        stored = self._constant("shaped", "q", self._typed(shaped))
        scale = self._constant("shaped scale", "s", self.codes.scale.reshape(ends))
        if self.codes.spec.symmetric:
            return stored, scale, None
        return stored, scale, self._constant("shaped zero", "z", self.codes.zero.astype(np.float32).reshape(ends))

    def blocks(self) -> tuple[ir.Value, ir.Value, ir.Value | None]:
        """(codes [B, block, N], scale [B, 1, N], zero point [B, 1, N] or None); not turned: [N, B, block] and so on."""
        spec, order = self.codes.spec, (1, 2, 0) if self.turned else (0, 1, 2)
        codes = self._typed(in_blocks(self.codes.codes, spec)).transpose(order)
        stored = self._constant("blocks", "q", codes)
        scale = self._constant("block scale", "s", self.codes.scale[..., None].transpose(order))
        if spec.symmetric:
            return stored, scale, None
        zero = self._typed(self.codes.zero)[..., None].transpose(order)
        return stored, scale, self._constant("block zero", "z", zero)

    def ends(self, columns: int) -> tuple[ir.Value, ...]:
        """From 0 to ``columns`` of the axis K, as Slice reads it."""
        numbers = (("from", 0), ("to", columns), ("axis", int(not self.turned)))
        return tuple(self._constant(n, f"q_{n}", np.asarray([i], np.int64)) for n, i in numbers)

    def _product_codes(self, before: ir.Node) -> ir.Value:
        if self.alone:
            return self._constant("product", "q", self._typed(self.codes.codes.T))
        return self.additions.node(before, "Transpose", [self.plain()], {"perm": (1, 0)}, name=f"{before.name}_codes")

    def _vectors(self) -> tuple[ir.Value, ir.Value | None]:
        scale = self._constant("vector scale", "s", self.codes.scale[:, 0])
        if self.codes.spec.symmetric:
            return scale, None
        return scale, self._constant("vector zero", "z", self._typed(self.codes.zero[:, 0]))

    def _typed(self, codes: NDArray[np.uint8]) -> NDArray[np.generic]:
        """Codes in the type that ONNX stores them in: symmetric ones signed, about 0."""
        spec = self.codes.spec
        signed, unsigned = _TYPES[spec.bits]
        if spec.symmetric:
            return (codes.astype(np.int16) - spec.middle).astype(signed)
        return codes.astype(unsigned)

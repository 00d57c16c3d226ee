"""Adding nodes and constants to any graph of a model, bodies included, under names that nothing else has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qconvert.graph.edit import unused, values_of
from qconvert.graph.spool import Spool

CONTRIB = "com.microsoft"


def discard(value: ir.Value) -> None:
    """Remove an initializer, of whatever graph, that nothing reads any more, nor a Transpose of it."""
    for node in [use.node for use in value.uses()]:
        dead = not node.outputs[0].uses() and not node.outputs[0].is_graph_output()
        if node.op_type == "Transpose" and node.graph is not None and dead:
            node.graph.remove(node, safe=True)
    graph = value.graph
    if isinstance(graph, ir.Graph) and not value.uses() and not value.is_graph_output():
        graph.initializers.pop(value.name or "", None)


@dataclass(slots=True, kw_only=True)
class Additions:
    """What is added to ``model``.

    Attributes:
        model: changed in place.
        spool: where large constants are kept; None keeps them in memory.
        taken: names of values and nodes so far.
        sizes: what :meth:`sizes_of` has made.
    """

    model: ir.Model
    spool: Spool | None = None
    taken: set[str | None] = field(default_factory=set)
    sizes: dict[tuple[int, ...], ir.Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for graph in self.model.graphs():
            self.taken |= {v.name for v in values_of(graph)} | {n.name for n in graph}

    def constant(
        self, graph: ir.Graph, name: str, array: NDArray[np.generic], dtype: ir.DataType | None = None
    ) -> ir.Value:
        """A new initializer of ``graph``; ``dtype`` where numpy's type does not tell (4-bit integers, bfloat16)."""
        unique = self.fresh(name)
        if self.spool is not None:
            tensor = self.spool.tensor(array, dtype, unique)
        else:
            tensor = ir.Tensor(np.asarray(array, order="C"), dtype=dtype, name=unique)
        value = ir.Value(name=unique, const_value=tensor)
        value.shape, value.type = ir.Shape(array.shape), ir.TensorType(tensor.dtype)
        graph.register_initializer(value)
        return value

    def node(
        self,
        before: ir.Node,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, int | float | str | Sequence[int]] | None = None,
        *,
        name: str,
        domain: str = "",
    ) -> ir.Value:
        """The result of a new node that stands before ``before``."""
        made = ir.node(op_type, list(inputs), attributes=dict(attributes or {}), domain=domain, name=self.fresh(name))
        made.outputs[0].name = self.fresh(f"{name}_out")
        if before.graph is not None:
            before.graph.insert_before(before, made)
        if domain:
            self.model.opset_imports.setdefault(domain, 1)
        return made.outputs[0]

    def integer_product(
        self,
        before: ir.Node,
        codes: tuple[ir.Value, ir.Value, ir.Value],
        weight: Sequence[ir.Value | None],
        bias: ir.Value | None,
        *,
        name: str,
    ) -> ir.Value:
        """The product of integers as floats: MatMulInteger -> Cast -> Mul(s_x * s_w) -> Add(bias).

        Args:
            before: what the new nodes stand before.
            codes: of the left operand, with their scale and zero point, one each.
            weight: codes [K, N], scale [N], zero point [N].
            bias: [N], if there is one.
            name: of the product; those of the nodes begin with it.
        """
        (x, x_scale, x_zero), (w, w_scale, w_zero) = codes, weight
        sums = self.node(before, "MatMulInteger", [x, w, x_zero, w_zero], name=f"{name}_MatMulInteger")
        real = self.node(before, "Cast", [sums], {"to": int(ir.DataType.FLOAT)}, name=f"{name}_Cast")
        factor = self.node(before, "Mul", [x_scale, w_scale], name=f"{name}_scales")
        result = self.node(before, "Mul", [real, factor], name=f"{name}_Mul")
        return result if bias is None else self.node(before, "Add", [result, bias], name=f"{name}_Add")

    def columns(
        self, graph: ir.Graph, name: str, columns: NDArray[np.generic], scale: NDArray[np.generic]
    ) -> tuple[ir.Value, ir.Value, ir.Value]:
        """(codes [K, N], scale [N], zero point [N]) of a weight as a matrix of ``columns``, with ``scale`` for each or
        one for all."""
        count = columns.shape[1]
        return (
            self.constant(graph, name, np.ascontiguousarray(columns)),
            self.constant(graph, f"{name}_s", np.broadcast_to(scale, (count,)).astype(np.float32)),
            self.constant(graph, f"{name}_z", np.zeros(count, columns.dtype)),
        )

    def sizes_of(self, numbers: Sequence[int]) -> ir.Value:
        """``numbers`` as an initializer of the main graph, the same for all that want them."""
        key = tuple(numbers)
        if key not in self.sizes:
            self.sizes[key] = self.constant(self.model.graph, "sizes", np.array(numbers, np.int64))
        return self.sizes[key]

    def dequantized(self, before: ir.Node, pair: ir.Node, inputs: Sequence[ir.Value | None], *, name: str) -> ir.Value:
        """Other codes, scales and zero points ``inputs`` dequantized as ``pair``, a DequantizeLinear, does."""
        axis = {key: a.as_int() for key, a in pair.attributes.items() if key == "axis"}
        return self.node(before, "DequantizeLinear", inputs, axis, name=name)

    def fresh(self, name: str) -> str:
        """``name``, or with a number behind it where it is taken."""
        unique = unused(name, self.taken)
        self.taken.add(unique)
        return unique

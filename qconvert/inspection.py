"""What is in a model and what would become of it, without running it: the stage behind ``qconvert inspect``.

    path -> load -> prepare (no data) -> build_plan, or the weights rewritten and thrown away -> Inspection

Nothing is calibrated and no result is written. A model that ONNX Runtime refuses to load, and one that is quantized
already, are inspected too: :attr:`Inspection.refusal` says what ONNX Runtime says, :attr:`Inspection.obstacle` why no
plan can be made.

Of schemes that need no data the size is that of the model that they make. Of static ones it is estimated from the plan:
a weight [O, ...] of b bits takes b / 8 bytes an element, and 5 bytes a scale with its zero point; a bias stays 4 bytes
an element and gets scales of its own; each quantized tensor brings two nodes.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qconvert.emit.cleanup import clean
from qconvert.emit.narrowed import narrow
from qconvert.errors import ModelError
from qconvert.graph.build_view import view_of
from qconvert.graph.model import Model, load
from qconvert.graph.prepare.canonical import Prepared, prepare
from qconvert.graph.quantized import quantized_ops
from qconvert.graph.signature import session_of
from qconvert.graph.size import constants_of, file_bytes, parameters, size_by_kind
from qconvert.graph.spool import Spool
from qconvert.graph.view import Dim, GraphView
from qconvert.numerics.spec import PerAxis
from qconvert.ops.rule import key
from qconvert.plan.build import build_plan
from qconvert.plan.candidates import rewritten
from qconvert.plan.model import QuantPlan, WeightPlan
from qconvert.recipe.recipe import STATIC_SCHEMES, Recipe
from qconvert.recipe.resolve import resolve
from qconvert.report.layers import node_decisions
from qconvert.report.model import NodeDecision
from qconvert.report.notebook import inline, reasons
from qconvert.report.renderers import phrases
from qconvert.report.renderers.facts import Fact, Level
from qconvert.report.summary import Grid
from qconvert.schemes.application import apply, at_best_opset, rewrite, schemes_of
from qconvert.schemes.assignment import owner_of
from qconvert.schemes.mixing import nodes_of_others, with_static_first
from qconvert.schemes.scheme import Work, check_combination
from qconvert.targets.auto import target_of

# Bytes that a QuantizeLinear or DequantizeLinear node adds to the file, and how often it spells out the tensor's name.
# With these the estimate is within 8 % of the file on eight models of 45 kB to 24 MB.
_NODE_BYTES, _NAME_USES = 60, 3
# Above this, names and nodes are too small a part of the file to be worth serialising the graph for.
_LARGE = 64_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorInfo:
    """An input or output: numpy-style type ("" when it is no tensor) and shape (None when the rank is unknown)."""

    name: str
    dtype: str
    shape: tuple[Dim, ...] | None

    @property
    def told(self) -> str:
        """Type and shape in words."""
        if not self.dtype:
            return "not a tensor"
        if self.shape is None:
            return f"{self.dtype} of unknown rank"
        return f"{self.dtype} [{', '.join('?' if d is None else str(d) for d in self.shape)}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyInfo:
    """A node with bodies (If, Loop, Scan) and the float parameters inside them, nested ones included."""

    node: str
    op_type: str
    parameters: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Savings:
    """What quantization would do to the file.

    Attributes:
        float_weight_bytes: of the float weights that would become integers.
        constant_bytes: of all constants of the model, for the share.
        integer_weight_bytes: of the integers in their place, scales included.
        estimated_bytes: of the quantized file; within about 10 %.
    """

    float_weight_bytes: int
    constant_bytes: int
    integer_weight_bytes: int
    estimated_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """A model as it is, and the plan for it.

    Attributes:
        path, bytes: the file, external data included.
        producer: who wrote it, with the version; "" when it does not say.
        ir_version, opset: versions of the format and of the default operator set.
        domains: other operator sets -> version.
        inputs, outputs: its interface.
        ops: operator -> nodes, bodies and functions included; "com.microsoft:Gelu" for other domains.
        functions: number of model-local functions.
        bodies: control flow, with what is inside.
        parameters: elements of float constants.
        by_kind: bytes by kind of content.
        quantized_ops: operators that show it to be quantized already; empty for a float model.
        target: the target that it was planned for.
        planned: operator -> nodes that would run on integers.
        decisions: every node of the canonical graph with its reason; empty when there is an obstacle.
        savings: None when there is an obstacle.
        obstacle: why there is no plan; "" when there is one.
        notes: what preparing the model changed.
        refusal: why ONNX Runtime does not load the model, so that nothing can be done with it; "" where it does.
        scheme: the scheme that it was planned for.
        mix: which operators would have other schemes.
    """

    path: str
    bytes: int
    producer: str
    ir_version: int
    opset: int
    domains: Mapping[str, int]
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    ops: Mapping[str, int]
    functions: int
    bodies: tuple[BodyInfo, ...]
    parameters: int
    by_kind: Mapping[str, int]
    quantized_ops: tuple[str, ...]
    target: str
    planned: Mapping[str, int]
    decisions: tuple[NodeDecision, ...]
    savings: Savings | None
    obstacle: str
    notes: tuple[str, ...]
    refusal: str = ""
    scheme: str = "int8"
    mix: tuple[str, ...] = ()

    def _repr_html_(self) -> str:
        """What a notebook shows: what is in the file, and what would become of it."""
        return inline(
            self._headline(),
            [self._contents(), *reasons(self.decisions, "What would run where, and why")],
            [Fact(label="refused", text=self.refusal, level=Level.BAD)] if self.refusal else (),
        )

    def _headline(self) -> str:
        told = f"{phrases.file_name(self.path)}: {phrases.size(self.bytes)}"
        if self.obstacle:
            return f"{told}; cannot be quantized: {self.obstacle}"
        if self.savings is None or not self.planned:
            return f"{told}; nothing would be quantized"
        after = self.savings.estimated_bytes
        return f"{told} would become about {phrases.size(after)}, {phrases.size_change(self.bytes, after)}"

    def _contents(self) -> Grid:
        rows = [
            *((f"input {t.name}", t.told) for t in self.inputs),
            *((f"output {t.name}", t.told) for t in self.outputs),
            ("float parameters", f"{self.parameters:,}"),
            ("size", ", ".join(f"{phrases.size(n)} {kind}" for kind, n in self.by_kind.items() if n)),
            ("nodes", f"{sum(self.ops.values())}: {', '.join(f'{n} {op}' for op, n in self.ops.items())}"),
            ("target", self.target),
            *(("note", note) for note in self.notes),
        ]
        return Grid(columns=("", f"opset {self.opset}, IR version {self.ir_version}"), rows=tuple(rows), numeric=0)


def inspect_model(path: Path, recipe: Recipe) -> Inspection:
    """Look into the model at ``path`` and plan its quantization under ``recipe``.

    Raises:
        ModelError: the file cannot be read as a model.
        RecipeError: the recipe names an unknown target, asks for what the target does not run, or holds a pattern that
            matches nothing.
    """
    source = load(path)
    check_combination(recipe)
    recipe = with_static_first(recipe)
    if recipe.scheme in STATIC_SCHEMES:
        recipe = resolve(recipe)
    total = file_bytes(path, source)
    by_kind = size_by_kind(source, total)
    target = target_of(recipe.target)
    already = quantized_ops(source)
    prepared, obstacle = (None, "it is quantized already") if already else _prepared(source, recipe)
    plan, savings = None, None
    if prepared is not None:
        try:
            plan, savings = _outlook(prepared, recipe, by_kind)
        except ModelError as error:
            obstacle = error.message
    nodes = tuple(plan.nodes.values()) if plan is not None else ()
    return Inspection(
        path=str(path),
        bytes=total,
        producer=f"{source.ir.producer_name or ''} {source.ir.producer_version or ''}".strip(),
        ir_version=source.ir.ir_version,
        opset=source.opset,
        domains={d: v for d, v in sorted(source.ir.opset_imports.items()) if d not in ("", "ai.onnx")},
        inputs=_interface(source, "inputs"),
        outputs=_interface(source, "outputs"),
        ops=_op_counts(source),
        functions=len(source.ir.functions),
        bodies=_bodies(source),
        parameters=parameters(source),
        by_kind=by_kind,
        quantized_ops=already,
        target=target.name,
        scheme=recipe.scheme,
        mix=recipe.mix,
        planned=dict(Counter(n.op_type for n in nodes if n.decision.taken).most_common()),
        decisions=node_decisions(plan) if plan is not None else (),
        savings=savings,
        obstacle=obstacle,
        notes=prepared.notes if prepared is not None else (),
        refusal=_refusal(source),
    )


def _refusal(source: Model) -> str:
    """What ONNX Runtime says against ``source``; it is loaded as `qconvert quantize` loads it, and not run."""
    try:
        session_of(source, optimize=False, lean=True)
    except ModelError as error:
        return error.message
    return ""


def _prepared(source: Model, recipe: Recipe) -> tuple[Prepared | None, str]:
    """The canonical model, or None and why there is none."""
    try:
        # scales a channel came with opset 13
        static = recipe.scheme in STATIC_SCHEMES and not recipe.mix
        if static:
            otherwise = rewritten(recipe, target_of(recipe.target))
            return prepare(source, min_opset=13 if recipe.per_channel else 10, rewritten=otherwise), ""
        return at_best_opset(recipe, source, lambda opset: prepare(source, min_opset=opset)), ""
    except ModelError as error:
        return None, error.message


def _interface(model: Model, side: str) -> tuple[TensorInfo, ...]:
    view = view_of(model)
    # models older than IR 4 list their weights among the inputs
    weights = set(model.ir.graph.initializers)
    names = view.inputs if side == "inputs" else view.outputs
    tensors = [view.tensors[n] for n in names if side == "outputs" or n not in weights]
    return tuple(TensorInfo(name=t.name, dtype=t.dtype, shape=t.shape) for t in tensors)


def _op_counts(model: Model) -> dict[str, int]:
    counts = Counter(key(n.domain, n.op_type) for n in model.ir.graph.all_nodes())
    for function in model.ir.functions.values():
        counts.update(key(n.domain, n.op_type) for n in function.all_nodes())
    return dict(counts.most_common())


def _bodies(model: Model) -> tuple[BodyInfo, ...]:
    found = []
    for node in model.ir.graph.all_nodes():
        graphs = list(_graphs(node))
        if graphs:
            inside = sum(_float_elements(g) for g in graphs)
            found.append(BodyInfo(node=node.name or "", op_type=node.op_type, parameters=inside))
    return tuple(found)


# Model.ir belongs to graph/ and emit/; the walk below reads names and sizes from it and should move there with the next
# user of it. Any: only those two may import onnx_ir.
def _graphs(node: Any) -> Iterator[Any]:
    for attribute in node.attributes.values():
        if attribute.type.name == "GRAPH":
            yield attribute.as_graph()
        elif attribute.type.name == "GRAPHS":
            yield from attribute.as_graphs()


def _float_elements(graph: Any) -> int:
    tensors = [v.const_value for v in graph.initializers.values()]
    nested = 0
    for node in graph:
        tensors += [a.value for a in node.attributes.values() if a.type.name == "TENSOR"]
        nested += sum(_float_elements(g) for g in _graphs(node))
    return nested + sum(int(t.size) for t in tensors if t is not None and t.dtype.is_floating_point())


def _outlook(prepared: Prepared, recipe: Recipe, by_kind: Mapping[str, int]) -> tuple[QuantPlan, Savings]:
    """What becomes of every node, and of the file: planned where activations need data, else made and thrown away.

    Raises:
        ModelError: there is nothing for the scheme to convert.
    """
    with tempfile.TemporaryDirectory(prefix="qconvert-") as folder, Spool(parent=Path(folder)) as spool:
        compact = prepared.model.clone()  # as it would be written
        narrowed = narrow(compact, prepared.model, prepared.source, spool)
        if recipe.scheme not in STATIC_SCHEMES:
            # how a weight is rounded says nothing of where, nor of its size
            made = apply(prepared, replace(recipe, rounding="rtn"), spool=spool)
            return QuantPlan(nodes=made.nodes, groups=()), _written(compact, made.model, by_kind)
        view = view_of(prepared.model)
        others = nodes_of_others(prepared.model, recipe)
        plan = build_plan(view, recipe, target_of(recipe.target), others)
        savings = _savings(compact, narrowed, view, plan, by_kind)
        names = [name for name in schemes_of(recipe) if name not in STATIC_SCHEMES]
        if not names:
            return plan, savings
        work = Work(model=prepared.model, recipe=replace(recipe, rounding="rtn"), owner=owner_of(recipe), spool=spool)
        work, done = rewrite(work, names)
        found = {name: node for one in done for name, node in one.nodes.items()}
        kept = {name: node for name, node in found.items() if name in plan.nodes or node.decision.taken}
        whole = clean(work.model, prepared.source)
        narrow(whole, prepared.model, prepared.source, spool)
        more = _written(compact, whole, by_kind)
        both = replace(
            savings,
            float_weight_bytes=savings.float_weight_bytes + more.float_weight_bytes,
            integer_weight_bytes=savings.integer_weight_bytes + more.integer_weight_bytes,
            estimated_bytes=savings.estimated_bytes + more.estimated_bytes - _file_bytes(compact),
        )
        return replace(plan, nodes={**plan.nodes, **kept}), both


def _written(before: Model, made: Model, by_kind: Mapping[str, int]) -> Savings:
    """What a model whose weights were rewritten saves: constants that are gone, and those that are new."""
    old, new = constants_of(before), constants_of(made)
    return Savings(
        float_weight_bytes=sum(n for name, n in old.items() if new.get(name) != n),
        constant_bytes=sum(n for kind, n in by_kind.items() if kind != "graph"),
        integer_weight_bytes=sum(n for name, n in new.items() if old.get(name) != n),
        estimated_bytes=_file_bytes(made),
    )


def _file_bytes(model: Model) -> int:
    constants = sum(constants_of(model).values())
    return len(model.to_bytes()) if constants < _LARGE else constants


def _savings(model: Model, narrowed: Set[str], view: GraphView, plan: QuantPlan, by_kind: Mapping[str, int]) -> Savings:
    """Of ``plan`` for ``model``, which holds the constants ``narrowed`` in 16 bits."""
    constants = sum(n for kind, n in by_kind.items() if kind != "graph")
    weights = {w.tensor: w for n in plan.taken() for w in n.constants}
    floats = sum((2 if t in narrowed else 4) * view.tensors[t].elements() for t in weights)
    integers = sum(_integer_bytes(view, w) for w in weights.values())
    biases = {view.nodes[n.node].inputs[n.bias] or "" for n in plan.taken() if n.bias is not None}
    scales = sum(8 * view.tensors[b].elements() for b in biases)
    quantized = [t for g in plan.groups for t in g.tensors]
    names = [*quantized, *quantized, *weights, *biases]
    structure = sum(_NODE_BYTES + _NAME_USES * len(t) for t in names)
    canonical = sum(n for kind, n in size_by_kind(model, 0).items() if kind != "graph")
    small = model.weight_bytes() < _LARGE
    graph = len(model.to_bytes()) - canonical if small else by_kind.get("graph", 0)
    return Savings(
        float_weight_bytes=floats,
        constant_bytes=constants,
        integer_weight_bytes=integers,
        estimated_bytes=canonical - floats + integers + scales + graph + structure,
    )


def _integer_bytes(view: GraphView, weight: WeightPlan) -> int:
    tensor, spec = view.tensors[weight.tensor], weight.spec
    channels = 1
    if isinstance(spec.granularity, PerAxis) and tensor.shape is not None:
        size = tensor.shape[spec.granularity.axis]
        channels = size if isinstance(size, int) else 1
    return (tensor.elements() * spec.qtype.bits + 7) // 8 + 5 * channels

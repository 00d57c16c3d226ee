"""Why a model with weights of another type is slower than the float one, where it is: measured, kernel by kernel.

Both models are profiled on one thread. Each operator of the slower one is set against the float nodes that have the
names of its nodes; those that lose most are named, with what to do instead.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from qconvert.errors import ModelError
from qconvert.graph.model import Model
from qconvert.graph.session import Feed
from qconvert.graph.view import GraphView, NodeView
from qconvert.measure.attribution import marked
from qconvert.measure.profile import profile
from qconvert.recipe.recipe import Recipe

_RUNS, _SECONDS = 9, 0.5
_NAMED = 3
# A part of the whole slowdown that an operator must have to be told.
_TELLING = 0.2
_CURES = {
    "MatMulBnb4": "it decodes its weight at each run; --weight-format qdq has the same bytes at float speed",
    "DequantizeLinear": "weights are unpacked at each run; --weight-format unpack does it once, on loading",
    "DynamicQuantizeLinear": "inputs are quantized at each run, which small products do not make up for; --exclude, or "
    "--mix NAME=w8, leaves them out",
    "Cast": "ONNX Runtime casts around float16 on CPUs; --scheme bf16 has as few bytes at float speed",
}
_PACKED = (
    "it pays for large weights and few rows at once; --weight-format unpack has the same bytes at float speed, --mix "
    "NAME=float leaves out single products"
)
_TWO_BITS = "with 2 bits it pays for few rows at once; --scheme w4 is faster, --weight-format unpack has float speed"


def slowdown(original: Model, written: Model, feed: Feed, recipe: Recipe) -> tuple[str, ...]:
    """What ``written`` loses time with, a sentence for each operator; () if nothing stands out.

    Args:
        original: the float model, canonical.
        written: the one that was measured to be slower.
        feed: what both run on.
        recipe: what it was made by.
    """
    try:
        before, after = (profile(m, feed, runs=_RUNS, seconds=_SECONDS) for m in (original, written))
    except ModelError:
        return ()
    lost = after.total_us - before.total_us
    nodes: defaultdict[str, list[NodeView]] = defaultdict(list)
    for node in sorted(after.run.nodes.values(), key=lambda n: -after.us[n.name]):
        nodes[node.op_type].append(node)
    found = []
    for op, those in nodes.items():
        takes = sum(after.us[n.name] for n in those)
        in_float = sum(before.us.get(n.name, 0.0) for n in those)
        cure = _cure(op, those, recipe)
        if cure and takes - in_float > _TELLING * max(lost, 0.0):
            floats = f", as float ones {in_float / 1e3:.3g} ms" if in_float else ""
            found.append(f"{len(those)} {op} take {takes / 1e3:.3g} ms{floats} ({_names(those, after.run)}): {cure}")
    return tuple(found)


def _cure(op_type: str, nodes: Sequence[NodeView], recipe: Recipe) -> str:
    """What to do about the ``nodes`` of an operator; "" where nothing is known."""
    if op_type == "MatMulNBits":
        return _TWO_BITS if any(n.attr_int("bits", 4) == 2 for n in nodes) else _PACKED
    if op_type == "Cast" and "fp16" not in (recipe.scheme, *(m.rpartition("=")[2] for m in recipe.mix)):
        return ""
    return _CURES.get(op_type, "")


def _names(nodes: Sequence[NodeView], graph: GraphView) -> str:
    """The first few, of what unpacks weights its readers; without the mark that names have for profiling."""
    readers = (graph.tensors[n.outputs[0]].consumers if n.op_type == "DequantizeLinear" else () for n in nodes)
    names = [r[0][0] if r else n.name for n, r in zip(nodes, readers, strict=True)]
    named = ", ".join(name.removesuffix(marked("")) for name in names[:_NAMED])
    more = len(names) - _NAMED
    return f"{named} and {more} more" if more > 0 else named

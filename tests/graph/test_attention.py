"""Attention in canonical form: less of it, tokens first, the same values; where the algebra does not hold, it stays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from networks.builder import Builder
from networks.sequence import encoder_layernorm

from qconvert.graph.model import Model
from qconvert.graph.optimized import optimized_view
from qconvert.graph.prepare.canonical import agreement, prepare
from qconvert.graph.session import Feed
from qconvert.graph.signature import session_of

ORT = frozenset({"MatMul"})
HEADS, EACH = 3, 8
CHANNELS = HEADS * EACH


@dataclass(frozen=True, kw_only=True)
class Form:
    """How attention is written; the defaults are what PyTorch exports."""

    batch: int | str = "batch"
    factor: str = "behind"  # the product: Div; or in front of it, of queries and keys: Mul
    mask: bool = True
    fused: str = ""  # one product for all three, taken apart by Gather, Split or Slice
    axis: int = -1
    keys: Sequence[Sequence[int]] = ((0, 2, 3, 1),)
    bias: bool = True
    shape: str = "computed"
    also: str = ""  # what else reads something


def attention(form: Form) -> onnx.ModelProto:
    b = Builder(opset=17, seed=3)
    x = b.node("Mul", b.input("x", [form.batch, "tokens", CHANNELS]), b.vector(CHANNELS, scale=1.0))
    apart = [0, 0, HEADS, EACH]

    def heads(y: str, perms: Sequence[Sequence[int]]) -> str:
        shape = b.ints(*apart)
        if form.shape == "computed":
            sizes = [b.node("Gather", b.node("Shape", y), b.const(np.int64(i))) for i in (0, 1)]
            parts = [b.node("Unsqueeze", size, b.ints(0)) for size in sizes]
            shape = b.node("Concat", *parts, b.ints(HEADS), b.ints(EACH), axis=0)
        y = b.node("Reshape", y, shape)
        for perm in perms:
            y = b.node("Transpose", y, perm=list(perm))
        return y

    if form.fused:
        y = b.node("Reshape", b.matmul(x, CHANNELS, 3 * CHANNELS, bias=form.bias), b.ints(0, 0, 3, HEADS, EACH))
        y = b.node("Transpose", y, perm=[2, 0, 3, 1, 4])
        if form.fused == "Gather":
            q, k, v = (b.node("Gather", y, b.const(np.int64(i)), axis=0) for i in range(3))
        elif form.fused == "Split":
            outs = b.nodes_out("Split", y, b.ints(1, 1, 1), outs=["q_", "k_", "v_"], axis=0)
            q, k, v = (b.node("Squeeze", part, b.ints(0)) for part in outs)
        else:
            parts = [b.node("Slice", y, b.ints(i), b.ints(i + 1), b.ints(0)) for i in range(3)]
            q, k, v = (b.node("Squeeze", part, b.ints(0)) for part in parts)
        k = b.node("Transpose", k, perm=[0, 1, 3, 2])
    else:
        made = [b.matmul(x, CHANNELS, CHANNELS, bias=form.bias) for _ in range(3)]
        if form.also == "keys":
            b.output(b.node("Relu", made[1], out="also"))
        q, k, v = heads(made[0], [(0, 2, 1, 3)]), heads(made[1], form.keys), heads(made[2], [(0, 2, 1, 3)])
    if form.factor == "in front":
        q, k = (b.node("Mul", value, b.const(np.float32(EACH**-0.25))) for value in (q, k))
    scores = b.node("MatMul", q, k)
    if form.factor == "behind":
        scores = b.node("Div", scores, b.const(np.float32(EACH**0.5)))
    if form.mask:
        mask = b.input("mask", [form.batch, 1, 1, "tokens"])
        scores = b.node("Add", scores, b.node("Mul", mask, b.const(np.float32(-30))))
    if form.also == "scores":
        b.output(b.node("Relu", scores, out="also"))
    shares = b.node("Softmax", scores, axis=form.axis)
    if form.also == "shares":
        shares = b.node("Mul", shares, b.const(np.float32(0.5)))
    attended = b.node("Transpose", b.node("MatMul", shares, v), perm=[0, 2, 1, 3])
    joined = b.node("Reshape", attended, b.ints(0, 0, CHANNELS))
    b.output(b.node("Add", b.matmul(joined, CHANNELS, 16), b.vector(16), out="y"))
    return b.model()


def feeds(form: Form) -> list[Feed]:
    rng = np.random.default_rng(5)
    sizes = [(1, 7), (1, 5)] if form.batch == 1 else [(1, 7), (3, 5), (2, 1)]
    found: list[Feed] = []
    for n, t in sizes:
        x = rng.normal(size=(n, t, CHANNELS)).astype(np.float32)
        masked = {"mask": (rng.random((n, 1, 1, t)) < 0.3).astype(np.float32)} if form.mask else {}
        found.append({"x": x, **masked})
    return found


def prepared(form: Form, rewritten: frozenset[str] = ORT) -> Model:
    """The canonical model, after a look at whether it computes the same for all batches and lengths."""
    model = Model(ir=ir.from_proto(attention(form)))
    made = prepare(model, feeds(form)[0], rewritten=rewritten)
    assert not any("left out" in note or "undone" in note for note in made.notes)
    for feed in feeds(form):
        assert agreement(session_of(model).run(feed), session_of(made.model).run(feed)) > 110
    return made.model


def ops(model: Model) -> Mapping[str, int]:
    return Counter(node.op_type for node in model.ir.graph)


FORMS = {
    "as exported": Form(),
    "batch of one": Form(batch=1),
    "constant shapes": Form(shape="constant"),
    "no mask": Form(mask=False),
    "keys turned twice": Form(keys=((0, 2, 1, 3), (0, 1, 3, 2))),
    "factors in front": Form(factor="in front"),
    "one product, Gather": Form(fused="Gather"),
    "one product, Split": Form(fused="Split", factor="in front"),
    "one product, Slice": Form(fused="Slice", mask=False),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_what_attention_can_do_without_goes_into_constants(form: Form) -> None:
    found = ops(prepared(form, frozenset()))
    assert found["MatMul"] == 6  # three projections, two products of heads, one behind them
    # the bias of queries, the mask, and two behind
    assert found["Add"] == 3 + form.mask
    assert found["Mul"] == 1 + form.mask
    assert found["Transpose"] == 4
    assert found["Gather"] == found["Split"] == found["Slice"] == found["Shape"] == 0


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_the_runtime_reads_heads_where_they_lie(form: Form) -> None:
    graph = optimized_view(prepared(form)).nodes.values()
    found = Counter(node.op_type for node in graph)
    assert found["FusedMatMul"] == 2
    assert found["Transpose"] == 2  # of what they are made of, and of what comes of them


def test_other_runtimes_get_their_heads_as_they_were() -> None:
    perms = [
        tuple(n.attributes.get_ints("perm", []))
        for n in prepared(Form(), frozenset()).ir.graph
        if n.op_type == "Transpose"
    ]
    assert sorted(perms) == [(0, 2, 1, 3), (0, 2, 1, 3), (0, 2, 1, 3), (0, 2, 3, 1)]


@pytest.mark.parametrize(
    ("form", "left"),
    [
        (Form(also="scores"), 5),  # keys keep theirs: scores are seen; values lose theirs
        (Form(axis=-2), 6),  # rows do not sum to one, and what is the same for all keys counts
        (Form(also="shares"), 5),  # rows sum to a half; keys lose theirs
        (Form(also="keys"), 5),  # their bias shows in another output
    ],
    ids=["scores are seen", "another axis", "shares are halved", "keys are seen"],
)
def test_biases_that_matter_stay(form: Form, left: int) -> None:
    assert ops(prepared(form))["Add"] == left


def test_a_tensor_that_something_else_reads_is_not_turned() -> None:
    turned = [n for n in prepared(Form(also="keys")).ir.graph if n.op_type == "Transpose"]
    names = {(n.name or "").partition("/part/")[2] for n in turned}
    assert names == {"", "tokens_first"}  # queries and values are; keys are not
    assert (0, 2, 3, 1) in [tuple(n.attributes.get_ints("perm", [])) for n in turned]


def test_a_row_without_any_key_stays_what_it_was() -> None:
    """Where all scores of a query are -inf, both forms have NaN."""
    model = Model(ir=ir.from_proto(attention(Form())))
    feed = {"x": np.ones((1, 4, CHANNELS), np.float32), "mask": np.full((1, 1, 1, 4), np.inf, np.float32)}
    made = prepare(model, feeds(Form())[0], rewritten=ORT).model
    for one, other in zip(session_of(model).run(feed), session_of(made).run(feed), strict=True):
        assert np.isnan(one).all() and np.isnan(other).all()


def test_an_encoder_with_everything_around() -> None:
    net = encoder_layernorm()
    model = Model(ir=ir.from_proto(net.proto))
    made = prepare(model, net.feeds[0], rewritten=ORT)
    assert any("12 operands" in note or "6 operands" in note for note in made.notes)
    for feed in net.feeds:
        assert agreement(session_of(model).run(feed), session_of(made.model).run(feed)) > 110


@pytest.mark.parametrize("picks", ["Gather", "Squeeze"])
def test_what_a_branch_returns_of_the_product_for_all_three_is_made_in_the_branch(picks: str) -> None:
    b = Builder(opset=17, seed=3)
    y = b.matmul(b.input("x", ["batch", "tokens", CHANNELS]), CHANNELS, 3 * CHANNELS)
    y = b.node("Transpose", b.node("Reshape", y, b.ints(0, 0, 3, HEADS, EACH)), perm=[2, 0, 3, 1, 4])
    q, k = (b.node("Gather", y, b.const(np.int64(i)), axis=0) for i in range(2))
    if picks == "Gather":
        taken = onnx.helper.make_node("Gather", [y, b.const(np.int64(2))], ["taken"], axis=0)
    else:
        part = b.node("Slice", y, b.ints(2), b.ints(3), b.ints(0))
        taken = onnx.helper.make_node("Squeeze", [part, b.ints(0)], ["taken"])
    made = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in ("taken", "other")]
    branches = [
        onnx.helper.make_graph([taken], "then", [], made[:1]),
        onnx.helper.make_graph([onnx.helper.make_node("Neg", [q], ["other"])], "else", [], made[1:]),
    ]
    chosen = b.input("chosen", [], onnx.TensorProto.BOOL)
    v = b.node("If", chosen, then_branch=branches[0], else_branch=branches[1])
    shares = b.node("Softmax", b.node("MatMul", q, b.node("Transpose", k, perm=[0, 1, 3, 2])), axis=-1)
    b.output(b.node("MatMul", shares, v, out="y"))
    model = Model(ir=ir.from_proto(b.model()))
    given = [{"x": feed["x"], "chosen": np.array(which)} for feed in feeds(Form()) for which in (True, False)]
    result = prepare(model, given[0], rewritten=ORT)
    assert not result.notes
    for feed in given:
        assert agreement(session_of(model).run(feed), session_of(result.model).run(feed)) > 110

"""PRelu, whose kernel is slow, is taken apart: on integers into a filter and a maximum, in float into a sum."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from networks.builder import Builder
from plan.kernels import Few, dequantized

from qconvert.conversion import Quantized, all_in_float
from qconvert.evaluate.fidelity import sqnr_db
from qconvert.graph.build_view import view_of
from qconvert.graph.model import Model
from qconvert.graph.optimized import optimized_view
from qconvert.graph.prepare.canonical import Prepared, agreement, prepare
from qconvert.graph.signature import session_of
from qconvert.plan.candidates import rewritten
from qconvert.recipe.recipe import Recipe
from qconvert.recover.layers import find_layers, find_links
from qconvert.repair import convert_and_repair
from qconvert.run import Run
from qconvert.targets import TARGETS

APART = frozenset({"PRelu"})
SLOPES = {
    "channels": np.linspace(-0.4, 0.9, 8, dtype=np.float32).reshape(8, 1, 1),
    "whole": np.linspace(-0.4, 1.0, 8, dtype=np.float32).reshape(1, 8, 1, 1),
    "one": np.array([0.25], np.float32),
    "equal": np.full((8, 1, 1), 0.25, np.float32),
    "steep": np.linspace(0.0, 1.5, 8, dtype=np.float32).reshape(8, 1, 1),
    "width": np.linspace(0.0, 0.9, 12, dtype=np.float32),
}
KEPT = ("steep", "width")


def net(slopes: np.ndarray) -> tuple[Model, Few]:
    b = Builder(seed=2)
    x = b.input("image", ["n", 3, 12, 12])
    x = b.node("PRelu", b.conv(x, 3, 8, 3), b.const(slopes), out="rectified")
    b.output(b.conv(x, 8, 6, 3, out="y"))
    rng = np.random.default_rng(1)
    feeds = [{"image": rng.normal(0.1, 1, (2, 3, 12, 12)).astype(np.float32)} for _ in range(4)]
    return Model(ir=ir.from_proto(b.model())), Few(feeds)


def ops(model: Model) -> list[str]:
    return [n.op_type for n in model.ir.graph]


def converted(prepared: Prepared, feeds: Few, **choices: object) -> Quantized:
    recipe = Recipe(recover=("none",), placement="static", target="x86-vnni", **choices)  # type: ignore[arg-type]
    return convert_and_repair(prepared, Run(recipe=recipe, samples=feeds))


@pytest.mark.parametrize("name", SLOPES)
def test_the_function_is_the_same(name: str) -> None:
    model, feeds = net(SLOPES[name])
    prepared = prepare(model, feeds.feed(0), rewritten=APART)
    assert ("PRelu" in ops(prepared.model)) == (name in KEPT)
    assert any("1 PRelu taken apart" in note for note in prepared.notes) == (name not in KEPT)
    for feed in feeds:
        wanted = session_of(model).run(feed)
        assert agreement(wanted, session_of(prepared.model).run(feed)) > 120
        assert agreement(wanted, session_of(all_in_float(prepared.model)).run(feed)) > 120


def test_not_where_the_runtime_has_a_kernel_for_it() -> None:
    model, feeds = net(SLOPES["channels"])
    assert "PRelu" in ops(prepare(model, feeds.feed(0)).model)
    assert {t.name for t in TARGETS if "PRelu" in t.rewritten} == {"x86-vnni", "x86-avx2", "arm64", "web"}


@pytest.mark.parametrize("name", ["channels", *KEPT])
def test_in_float_it_is_a_sum(name: str) -> None:
    prepared = prepare(*_first(name), rewritten=APART)
    assert sorted(ops(all_in_float(prepared.model))) == ["Add", "Conv", "Conv", "Mul", "Mul", "Relu"]


def _first(name: str) -> tuple[Model, dict[str, np.ndarray]]:
    model, feeds = net(SLOPES[name])
    return model, dict(feeds.feed(0))


@pytest.mark.parametrize("format_", ["qdq", "qoperator"])
def test_on_integers_it_compares_codes(format_: str) -> None:
    model, feeds = net(SLOPES["channels"])
    made = converted(prepare(model, feeds.feed(0), rewritten=APART), feeds, format=format_)
    run = optimized_view(made.model)
    kinds = [n.op_type for n in run.nodes.values()]
    assert kinds.count("QLinearConv") == 3 and "Max" in kinds
    assert kinds.count("QuantizeLinear") == kinds.count("DequantizeLinear") == 1
    wanted, got = (np.concatenate([s.run(f)[0] for f in feeds]) for s in (session_of(model), made.session))
    assert sqnr_db(float((wanted**2).sum()), float(((wanted - got) ** 2).sum())) > 30


def test_slopes_are_exact_in_8_bits() -> None:
    """What is lost is what any activation loses: nearly as much as with Relu alone, whose slopes are 0 and 1."""
    figures = {}
    for name, slopes in (("slopes", SLOPES["channels"]), ("none", np.ones((8, 1, 1), np.float32))):
        model, feeds = net(slopes)
        made = converted(prepare(model, feeds.feed(0), rewritten=APART), feeds)
        wanted, got = (np.concatenate([s.run(f)[0] for f in feeds]) for s in (session_of(model), made.session))
        figures[name] = sqnr_db(float((wanted**2).sum()), float(((wanted - got) ** 2).sum()))
    assert figures["slopes"] > figures["none"] - 3


def test_equalization_goes_through_it() -> None:
    model, feeds = net(SLOPES["channels"])
    links = []
    for apart in (frozenset[str](), APART):
        graph = view_of(prepare(model, feeds.feed(0), rewritten=apart).model)
        links.append([(link.first, link.second) for link in find_links(graph, find_layers(graph))])
    assert links[0] == links[1] and len(links[0]) == 1


def test_equalization_looks_past_other_readers() -> None:
    """Two readers of a convolution, of which one has a single input."""
    b = Builder(seed=2)
    x = b.conv(b.input("image", ["n", 3, 12, 12]), 3, 8, 3)
    b.output(b.conv(b.node("Add", b.node("Abs", x), b.node("Sigmoid", x)), 8, 6, 3, out="y"))
    graph = view_of(prepare(Model(ir=ir.from_proto(b.model()))).model)
    assert find_links(graph, find_layers(graph)) == []


def test_the_float_model_is_made_of_it_again() -> None:
    model, feeds = net(SLOPES["channels"])
    back = dequantized(converted(prepare(model, feeds.feed(0), rewritten=APART), feeds).model)
    assert not any(kind in ops(back) for kind in ("QuantizeLinear", "DequantizeLinear"))
    wanted, got = ([s.run(f)[0] for f in feeds] for s in (session_of(model), session_of(back)))
    assert agreement(wanted, got) > 30


def test_so_it_is_where_codes_are_moved_behind_a_maximum() -> None:
    b = Builder(seed=2)
    x = b.node("Max", *(b.conv(x, 3, 8, 3) for x in [b.input("image", ["n", 3, 12, 12])] * 2))
    x = b.node("Pad", x, b.const(np.array([0, 0, 0, 0, 0, 4, 0, 0], np.int64)))
    b.output(b.conv(x, 12, 6, 3, out="y"))
    model = Model(ir=ir.from_proto(b.model()))
    rng = np.random.default_rng(1)
    feeds = Few([{"image": rng.normal(0.1, 1, (2, 3, 12, 12)).astype(np.float32)} for _ in range(4)])
    made = converted(prepare(model, feeds.feed(0)), feeds)
    assert "Max" in ops(made.model)
    back = dequantized(made.model)
    assert not any(kind in ops(back) for kind in ("QuantizeLinear", "DequantizeLinear"))
    wanted, got = ([s.run(f)[0] for f in feeds] for s in (session_of(model), session_of(back)))
    assert agreement(wanted, got) > 30


@pytest.mark.parametrize("named", ["exclude", "mix"])
def test_a_recipe_that_names_it_keeps_it_whole(named: str) -> None:
    target = TARGETS.get("x86-vnni")
    recipe = Recipe(**{named: ("PRelu=float",) if named == "mix" else ("PRelu",)})  # type: ignore[arg-type]
    assert "PRelu" in rewritten(Recipe(), target)
    assert "PRelu" not in rewritten(recipe, target)


def test_its_name_stands_for_its_parts() -> None:
    model, feeds = net(SLOPES["channels"])
    prepared = prepare(model, feeds.feed(0), rewritten=APART)
    made = converted(prepared, feeds, exclude=("PRelu_1",))
    taken = {n.node for n in made.plan.taken() if n.activations}
    assert taken == {"Conv_0", "Conv_2"}
    assert "Relu" in ops(made.model) and "Max" not in ops(made.model)


@pytest.mark.parametrize("format_", ["qdq", "qoperator"])
@pytest.mark.parametrize("clamp", ["Relu", "Clip"])
def test_a_clamp_behind_a_maximum_is_no_part_of_it(clamp: str, format_: str) -> None:
    """Its result has the scale of what it compares, which no range of its own can be clamped with."""
    b = Builder(seed=2)
    x = b.input("image", ["n", 3, 12, 12])
    x = b.node("Max", b.conv(x, 3, 8, 3), b.conv(x, 3, 8, 3))
    limits = (b.const(np.float32(0)), b.const(np.float32(1))) if clamp == "Clip" else ()
    b.output(b.conv(b.node(clamp, x, *limits), 8, 6, 3, out="y"))
    rng = np.random.default_rng(1)
    feeds = Few([{"image": rng.normal(0.1, 1, (2, 3, 12, 12)).astype(np.float32)} for _ in range(4)])
    model = Model(ir=ir.from_proto(b.model()))
    recipe = Recipe(recover=("none",), placement="all", target="x86-vnni", format=format_)
    made = convert_and_repair(prepare(model, feeds.feed(0)), Run(recipe=recipe, samples=feeds))
    wanted, got = ([s.run(f)[0] for f in feeds] for s in (session_of(model), made.session))
    assert agreement(wanted, got) > 30

"""What the schemes make of a small transformer, of branches, and of what cannot be."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from networks.all import NETWORKS
from networks.branches import voice
from networks.builder import Builder, Feed, Network
from networks.contract import measured
from onnx import TensorProto, helper, numpy_helper
from schemes.runs import Feeds

from qconvert.errors import ModelError, RecipeError
from qconvert.graph.census import take_census
from qconvert.graph.model import Model, load
from qconvert.graph.prepare.canonical import Prepared, prepare
from qconvert.recipe.recipe import Recipe
from qconvert.recover.samples import Samples
from qconvert.schemes.application import apply, at_best_opset, least_opset
from qconvert.schemes.scheme import Converted, check_combination

WIDTH, VOCABULARY = 64, 96


def language_model() -> Network:
    """Table, two products with a Relu between, and the table again as output matrix, stored a second time."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) * shape[0] ** -0.5).astype(np.float32)

    table = normal(VOCABULARY, WIDTH) * 8
    weights = {"table": table, "up": normal(WIDTH, 128), "down": normal(128, WIDTH), "head": table.T.copy()}
    weights["shift"] = normal(WIDTH)
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"], name="embed"),
        helper.make_node("Add", ["e", "shift"], ["x"], name="shift"),
        helper.make_node("MatMul", ["x", "up"], ["u"], name="up"),
        helper.make_node("Relu", ["u"], ["r"], name="relu"),
        helper.make_node("MatMul", ["r", "down"], ["d"], name="down"),
        helper.make_node("Add", ["x", "d"], ["y"], name="sum"),
        helper.make_node("MatMul", ["y", "head"], ["logits"], name="head"),
    ]
    graph = helper.make_graph(
        nodes,
        "lm",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["b", "s"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["b", "s", VOCABULARY])],
        [numpy_helper.from_array(a, n) for n, a in weights.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    feeds = [{"ids": rng.integers(0, VOCABULARY, (2, 9))} for _ in range(6)]
    return Network(proto=proto, feeds=feeds)


def converted(net: Network, recipe: Recipe, folder: Path, *, data: bool = False, run: bool = True) -> Converted:
    check_combination(recipe)
    path = folder / "model.onnx"
    path.write_bytes(net.proto.SerializeToString())
    prepared = prepare(load(path), net.feeds[0], min_opset=least_opset(recipe))
    samples = Samples(feeds=Feeds(net.feeds), indices=range(len(net.feeds))) if data else None
    return apply(prepared, recipe, samples, trials=net.feeds if run else ())


def quality(net: Network, result: Converted) -> float:
    return min(db for outputs in measured(net, result.model.to_bytes()) for db in outputs.values())


def operators(result: Converted) -> Counter[str]:
    return Counter(n.op_type for n in onnx.load_from_string(result.model.to_bytes()).graph.node)


def initializers(result: Converted) -> dict[str, int]:
    graph = onnx.load_from_string(result.model.to_bytes()).graph
    return {i.name: i.data_type for i in graph.initializer}


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize(
    ("scheme", "form", "block", "least_db"),
    [
        ("w8", "qdq", -1, 35), ("w8", "qdq", 32, 35), ("w8", "nbits", 32, 35), ("w4", "nbits", 16, 12),
        ("w4", "qdq", 16, 12), ("w4", "qdq", -1, 10), ("w2", "nbits", 16, 2), ("w2", "qdq", 16, 2),
        ("w8", "unpack", -1, 35), ("w4", "unpack", 16, 12), ("w4", "unpack", -1, 10), ("w2", "unpack", 16, 2),
    ],
)  # fmt: skip
def test_every_form_of_weights(
    scheme: str, form: str, block: int, least_db: float, symmetric: bool, tmp_path: Path
) -> None:
    net = language_model()
    recipe = Recipe(scheme=scheme, weight_format=form, block=block, symmetric=symmetric, accuracy_level=1)
    result = converted(net, recipe, tmp_path)
    assert quality(net, result) > least_db
    ops = operators(result)
    assert ops["MatMulNBits"] == (3 if form == "nbits" else 0)
    assert ops["DequantizeLinear"] == (3 if form == "qdq" else 0)
    if form == "unpack":
        assert set(run_by_onnxruntime(result, tmp_path)) <= {"Gather", "Cast", "Sub", "Mul", "Add", "MatMul", "Relu"}
    # ONNX Runtime makes MatMulNBits of DequantizeLinear, but for the first product, whose input has no known type yet
    assert take_census(result.model, ()).weights_dequantized <= 1


def test_a_tied_table_is_stored_once(tmp_path: Path) -> None:
    net = language_model()
    for recipe in (Recipe(scheme="w4"), Recipe(scheme="w8"), Recipe(scheme="dynamic")):
        held = [n for n in initializers(converted(net, recipe, tmp_path)) if n.endswith("_q")]
        assert len(held) == 3


def test_data_make_four_bits_more_exact(tmp_path: Path) -> None:
    net = language_model()
    recipe = Recipe(scheme="w4", accuracy_level=1, embeddings="float")
    without, found = converted(net, recipe, tmp_path), converted(net, recipe, tmp_path, data=True)
    assert (without.method, found.method, found.samples) == ("mse", "gptq", len(net.feeds))
    assert quality(net, found) > quality(net, without)


@pytest.mark.parametrize("choice", ["w8", "float"])
def test_tables_and_heads_by_themselves(choice: str, tmp_path: Path) -> None:
    net = language_model()
    result = converted(net, Recipe(scheme="w4", embeddings=choice, lm_head=choice), tmp_path)
    assert operators(result)["MatMulNBits"] == 2
    assert result.nodes["embed"].decision.taken is (choice == "w8")


def test_schemes_are_mixed_by_node(tmp_path: Path) -> None:
    net = language_model()
    recipe = Recipe(scheme="dynamic", mix=("down=w4", "head=float", "Gather=float"))
    result = converted(net, recipe, tmp_path)
    ops = operators(result)
    assert (ops["MatMulInteger"], ops["MatMulNBits"], ops["MatMul"], ops["Gather"]) == (1, 1, 1, 1)
    mixed = converted(net, Recipe(scheme="fp16", mix=("down=w8",)), tmp_path)
    assert "down_1_Mul" in {n.name for n in mixed.model.ir.graph}  # a small product is unpacked when it is loaded
    assert quality(net, mixed) > 35


def run_by_onnxruntime(result: Converted, folder: Path) -> list[str]:
    """The operators of the optimized graph."""
    options, place = ort.SessionOptions(), str(folder / "run.onnx")
    options.optimized_model_filepath, options.log_severity_level = place, 4
    ort.InferenceSession(result.model.to_bytes(), options, providers=["CPUExecutionProvider"])
    return [n.op_type for n in onnx.load(place, load_external_data=False).graph.node]


def products(width: int, columns: int, *between: str) -> Network:
    """A product, the operators ``between`` and a product: width -> columns -> width."""
    b = Builder(seed=1)
    x = b.node("MatMul", b.input("x", [4, width]), b.weight(width, columns, fan_in=width))
    for op_type in between:
        x = b.node(op_type, x, *([b.vector(columns)] if op_type == "Add" else []))
    b.output(b.node("MatMul", x, b.weight(columns, width, fan_in=columns)), [4, width])
    feeds: list[Feed] = [{"x": np.random.default_rng(2).standard_normal((4, width)).astype(np.float32)}]
    return Network(proto=b.model(), feeds=feeds)


@pytest.mark.parametrize(
    ("scheme", "opset", "least_db"), [("w8", 17, 35), ("w4", 21, 12), ("w4", 17, 12), ("w2", 25, 1), ("w2", 21, 1)]
)
@pytest.mark.parametrize(("width", "columns"), [(128, 128), (48, 200), (256, 256)])
def test_products_are_packed_where_that_is_not_slower(
    width: int, columns: int, scheme: str, opset: int, least_db: float, tmp_path: Path
) -> None:
    """What ONNX Runtime runs: float products of small weights, MatMulNBits of those of 256 x 256 and more, and wherever
    the opset cannot cast the codes."""
    net, recipe = products(width, columns, "Tanh"), Recipe(scheme=scheme)
    path = tmp_path / "model.onnx"
    path.write_bytes(net.proto.SerializeToString())
    result = apply(prepare(load(path), net.feeds[0], min_opset=opset), recipe)
    small = width < 256 and opset >= {"w8": 13, "w4": 21, "w2": 25}[scheme]
    kernel = "MatMul" if small else "MatMulNBits"
    assert run_by_onnxruntime(result, tmp_path) == [kernel, "Tanh", kernel]
    assert quality(net, result) > least_db
    again = apply(prepare(load(path), net.feeds[0], min_opset=opset), replace(recipe, symmetric=True))
    assert quality(net, again) > least_db


@pytest.mark.parametrize("rounding", ["gptq", "awq"])
@pytest.mark.parametrize(("scheme", "opset", "least_db"), [("w4", 21, 12), ("w2", 25, 2)])
def test_small_models_run_as_in_float(scheme: str, opset: int, least_db: float, rounding: str, tmp_path: Path) -> None:
    """The table, too, whose codes are there once; factors of inputs (awq) are multiplied into weights on loading."""
    net = language_model()
    path = tmp_path / "model.onnx"
    path.write_bytes(net.proto.SerializeToString())
    prepared = prepare(load(path), net.feeds[0], min_opset=opset)
    samples = Samples(feeds=Feeds(net.feeds), indices=range(len(net.feeds)))
    result = apply(prepared, Recipe(scheme=scheme, rounding=rounding), samples, net.feeds)
    assert run_by_onnxruntime(result, tmp_path) == run_by_onnxruntime(replace(result, model=prepared.model), tmp_path)
    assert len([n for n in initializers(result) if n.endswith("_q")]) == 3
    assert quality(net, result) > least_db


@pytest.mark.parametrize(("scheme", "best"), [("w8", 17), ("w4", 21), ("w2", 25)])
def test_the_opset_is_raised_for_small_products_only(scheme: str, best: int, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    for width, expected in ((64, best), (256, 17)):
        net, asked = products(width, width), list[int]()
        path.write_bytes(net.proto.SerializeToString())
        source = load(path)

        def make(opset: int, asked: list[int] = asked, source: Model = source, net: Network = net) -> Prepared:
            asked.append(opset)
            if opset > 17:
                raise ModelError("it cannot be raised")
            return prepare(source, net.feeds[0], min_opset=opset)

        prepared = at_best_opset(Recipe(scheme=scheme), source, make)
        assert asked == [expected, 13] if expected > 17 else [13]
        assert prepared.model.opset == 17
        assert quality(net, apply(prepared, Recipe(scheme=scheme))) > 0  # packed where it could not be raised


@pytest.mark.parametrize("between", [("Relu",), ("Add", "Relu"), ("Add",)])
@pytest.mark.parametrize(("scheme", "block"), [("w8", 0), ("w4", -1)])
def test_no_weight_is_dequantized_at_each_run(
    scheme: str, block: int, between: tuple[str, ...], tmp_path: Path
) -> None:
    """ONNX Runtime does not fuse DequantizeLinear into a product in front of a clamp, unless something parts them."""
    result = converted(products(256, 256, *between), Recipe(scheme=scheme, block=block), tmp_path)
    ran = run_by_onnxruntime(result, tmp_path)
    assert "DequantizeLinear" not in ran and ran.count("MatMulNBits") == 2


def test_dequantizing_on_request(tmp_path: Path) -> None:
    result = converted(products(128, 128, "Tanh"), Recipe(scheme="w8", weight_format="qdq"), tmp_path)
    assert run_by_onnxruntime(result, tmp_path) == ["MatMulNBits", "Tanh", "MatMulNBits"]


def test_dynamic_products_are_fused(tmp_path: Path) -> None:
    census = take_census(converted(language_model(), Recipe(scheme="dynamic"), tmp_path).model, ())
    assert census.ops.get("DynamicQuantizeMatMul", 0) + census.ops.get("MatMulIntegerToFloat", 0) == 2


def test_smoothing_pays_where_a_channel_is_large(tmp_path: Path) -> None:
    net = language_model()
    large = numpy_helper.to_array(net.proto.graph.initializer[1]).copy()
    large[:, 3] *= 200
    down = numpy_helper.to_array(net.proto.graph.initializer[2]).copy()
    down[3] /= 200
    for i, array in ((1, large), (2, down)):
        net.proto.graph.initializer[i].CopyFrom(numpy_helper.from_array(array, net.proto.graph.initializer[i].name))
    recipe = Recipe(scheme="dynamic")
    plain = quality(net, converted(net, recipe, tmp_path, run=False))
    made_up = converted(net, recipe, tmp_path)
    assert quality(net, converted(net, recipe, tmp_path, data=True)) > plain + 10
    assert quality(net, made_up) > plain + 10
    assert any("made up" in note for note in made_up.notes)


def test_weights_in_branches_become_small(tmp_path: Path) -> None:
    net = voice()
    result = converted(net, Recipe(scheme="w8"), tmp_path)
    assert 2.5 * len(result.model.to_bytes()) < len(net.proto.SerializeToString())
    assert quality(net, result) > 20


def test_half_precision_keeps_inputs_and_outputs_and_casts_once(tmp_path: Path) -> None:
    net = language_model()
    result = converted(net, Recipe(scheme="fp16"), tmp_path)
    assert operators(result)["Cast"] == 1
    assert quality(net, result) > 50
    bare = onnx.load_from_string(converted(net, Recipe(scheme="fp16", keep_io=False), tmp_path).model.to_bytes())
    assert bare.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT16
    assert not [n for n in bare.graph.node if n.op_type == "Cast"]


def test_values_beyond_float16_are_found(tmp_path: Path) -> None:
    net = language_model()
    for i, factor in ((1, 3e5), (2, 1 / 3e5)):
        old = net.proto.graph.initializer[i]
        old.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(old) * np.float32(factor), old.name))
    result = converted(net, Recipe(scheme="fp16"), tmp_path)
    reasons = {name: node.decision.reason for name, node in result.nodes.items()}
    assert all("float16 ends at 65504" in reasons[n] for n in ("up", "relu", "down"))
    assert reasons["head"] == "float16"
    assert quality(net, result) > 40


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"scheme": "w4", "weight_format": "nbits", "block": -1}, "MatMulNBits, which has blocks"),
        ({"scheme": "w4", "per_channel": False}, "for each block"),
        ({"scheme": "dynamic", "format": "qoperator"}, "one form"),
        ({"scheme": "w4", "rounding": "gptk"}, "unknown rounding method"),
        ({"scheme": "w5"}, "unknown scheme"),
    ],
)
def test_what_does_not_go_together_is_refused(choices: dict[str, object], words: str) -> None:
    with pytest.raises(RecipeError, match=words) as error:
        check_combination(Recipe(**choices))  # type: ignore[arg-type]
    assert error.value.hint


def test_a_pattern_that_selects_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no such node"):
        converted(language_model(), Recipe(scheme="w4", mix=("hed=w8",)), tmp_path)


def test_filters_are_unpacked_on_loading_and_keep_their_sums(tmp_path: Path) -> None:
    net = NETWORKS["resnet"]()
    result = converted(net, Recipe(scheme="w8"), tmp_path)
    assert take_census(result.model, ()).weights_dequantized <= 1  # of the Gemm
    assert quality(net, result) > 45


def test_a_net_of_convolutions_is_told_what_works_instead_of_dynamic(tmp_path: Path) -> None:
    b = Builder(seed=1)
    b.output(b.relu(b.conv(b.input("x", [1, 8, 8, 8]), 8, 16)), [1, 16, 8, 8])
    net = Network(proto=b.model(), feeds=[{"x": np.ones((1, 8, 8, 8), np.float32)}])
    with pytest.raises(ModelError, match="slower than float ones") as refused:
        converted(net, Recipe(scheme="dynamic"), tmp_path)
    assert refused.value.hint is not None and "--scheme w8" in refused.value.hint
    assert quality(net, converted(net, Recipe(scheme="w8"), tmp_path)) > 30


def test_traces_of_the_exporter_are_left_out(tmp_path: Path) -> None:
    """PyTorch notes with each node where in a program it came from; what the model says of itself stays."""
    net = language_model()
    for node in net.proto.graph.node:
        node.metadata_props.add(key="pkg.torch.onnx.stack_trace", value="File ..., line 3" * 99)
        node.metadata_props.add(key="mine", value="kept")
    net.proto.metadata_props.add(key="pkg.torch.export", value="kept")
    found = onnx.load_from_string(converted(net, Recipe(scheme="w8"), tmp_path).model.to_bytes())
    notes = {p.key for n in found.graph.node for p in n.metadata_props}
    assert notes <= {"mine"}
    assert found.metadata_props[0].key == "pkg.torch.export"

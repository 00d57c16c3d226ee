"""Accuracy that is bought with speed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks.builder import Builder, Feed
from sensitivity.nets import chain, job

from qconvert.conversion import Quantized
from qconvert.evaluate.latency import Speedup
from qconvert.graph.session import Session
from qconvert.graph.signature import session_of
from qconvert.pipeline import Started, make_quantized, start
from qconvert.progress import Silent
from qconvert.recipe.recipe import MEASURED, PINNED, STATIC
from qconvert.report.model import PlacementReport, PlacementTrial
from qconvert.sensitivity.analysis import analyze
from qconvert.targets.auto import detected
from qconvert.trials import integer_nodes
from qconvert.tuning import exchange
from qconvert.tuning.exchange import exchanged
from qconvert.tuning.fallback import looked_at, sqnr_of

WIDTH = 24


def of_levels(decades: float, width: int = WIDTH, rows: int = 1) -> tuple[onnx.ModelProto, list[Feed]]:
    """A chain whose samples differ in level by so many decades, and whose outputs have the same length for all."""
    b = Builder(seed=3)
    x = b.input("x", [rows, width])
    for _ in range(4):
        x = b.relu(b.node("MatMul", x, b.weight(width, width)))
    squares = b.node("ReduceSum", b.node("Mul", x, x), b.const(np.array([1], np.int64)))
    b.output(b.node("Div", x, b.node("Sqrt", squares), out="y"), [rows, width])
    levels = 10 ** np.random.default_rng(1).uniform(-decades, 0, 48)
    feeds = [{"x": (f["x"] * level).astype(np.float32)} for f, level in zip(b.feeds(48), levels, strict=True)]
    return b.model(), feeds


def fast(
    proto: onnx.ModelProto, feeds: list[Feed], folder: Path, faster: float = 1.2
) -> tuple[Started, Quantized, Session, list[Feed]]:
    """A run after placement has found everything on integers ``faster`` than float by that factor."""
    work = job(proto, feeds, folder)
    target = detected().target
    started = start(replace(work, recipe=replace(work.recipe, placement=STATIC, target=target)), Silent())
    made = make_quantized(started.prepared, started.run)
    speed = Speedup(median=faster, p10=faster, p90=faster)
    trial = PlacementTrial(name="static", integer_nodes=8, median_ms=1.0, speedup=speed)
    report = PlacementReport(chosen="static", fp32_ms=1.2, trials=(trial,), pinned_float=(), seconds=0.0)
    run = replace(started.run, recipe=replace(started.run.recipe, placement=MEASURED))
    reference = session_of(started.source)
    return replace(started, run=run), replace(made, placement=report), reference, list(looked_at(run.samples))


def test_where_samples_differ_in_level_operators_go_back_to_float(tmp_path: Path) -> None:
    """One range for all of them leaves quiet ones few codes, which the range of each would not."""
    started, made, reference, feeds = fast(*of_levels(1.2), tmp_path)
    before = sqnr_of(reference, made.session, feeds).db
    better = exchanged(started, made, reference, feeds, before)
    after = sqnr_of(reference, better.session, list(started.data.evaluation)).db
    assert after > before + 6
    assert len(integer_nodes(better.plan)) < len(integer_nodes(made.plan))
    (note,) = [n for n in better.notes if n.startswith("accuracy: ")]
    assert "in float" in note and "--min-sqnr" in note
    assert better.placement is not None
    pinned, forms = better.placement.pinned_float, better.placement.pinned_forms
    recipe = replace(started.run.recipe, placement=PINNED, pinned_float=pinned, forms=forms)
    again = make_quantized(started.prepared, replace(started.run, recipe=recipe))
    assert again.model.to_bytes() == better.model.to_bytes()


def test_convolutions_get_the_range_of_each_run_where_that_is_nearly_as_fast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same with convolutions, large enough to be faster so than in float."""
    b = Builder(seed=3)
    x = b.input("x", [1, 96, 20, 20])
    for _ in range(3):
        x = b.relu(b.node("Conv", x, b.weight(96, 96, 3, 3), pads=[1, 1, 1, 1]))
    size = b.node("ReduceMax", x, axes=[1, 2, 3], keepdims=1)
    b.output(b.node("Div", x, size, out="y"), [1, 96, 20, 20])
    levels = 10 ** np.random.default_rng(1).uniform(-1.5, 0, 32)
    feeds = [{"x": (f["x"] * level).astype(np.float32)} for f, level in zip(b.feeds(32), levels, strict=True)]
    started, made, reference, seen = fast(b.model(), feeds, tmp_path)
    before = sqnr_of(reference, made.session, seen).db
    # what they take is measured, and this is no test of that
    monkeypatch.setattr(exchange, "RATE", 0.5)
    monkeypatch.setattr(exchange, "LESS", 0.0)
    better = exchanged(started, made, reference, seen, before)
    assert sqnr_of(reference, better.session, list(started.data.evaluation)).db > before + 6
    running = [n for n in better.plan.nodes.values() if n.form == "dynamic"]
    assert running and all("quantized as the model runs" in n.decision.reason for n in running)
    (note,) = [n for n in better.notes if n.startswith("accuracy: ")]
    assert "with the range of each run" in note
    assert better.placement is not None
    pinned, forms = better.placement.pinned_float, better.placement.pinned_forms
    recipe = replace(started.run.recipe, placement=PINNED, pinned_float=pinned, forms=forms)
    again = make_quantized(started.prepared, replace(started.run, recipe=recipe))
    assert again.model.to_bytes() == better.model.to_bytes()


def test_nothing_is_bought_at_no_price(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "RATE", 0.0)
    monkeypatch.setattr(exchange, "_LEAST", 0.5)  # a net so small may be faster in float
    started, made, reference, feeds = fast(*of_levels(1.2), tmp_path)
    assert exchanged(started, made, reference, feeds, 20.0) is made


def test_what_is_within_the_margin_of_what_8_bits_can_be_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "MARGIN_DB", 6.0)  # the net is 5 dB below, and no slower in float
    monkeypatch.setattr(exchange, "BEYOND_DB", 0.0)
    started, made, reference, feeds = fast(*chain(2), tmp_path)
    db = sqnr_of(reference, made.session, feeds).db
    assert exchange.FLOOR_DB < db < exchange.MOST_DB
    assert exchanged(started, made, reference, feeds, db) is made


def test_a_dear_model_and_one_that_was_not_measured_are_left_alone(tmp_path: Path) -> None:
    started, made, reference, feeds = fast(*of_levels(1.2), tmp_path)
    assert made.placement is not None
    dear = replace(made, placement=replace(made.placement, fp32_ms=1000.0))
    assert exchanged(started, dear, reference, feeds, 20.0) is dear
    unmeasured = replace(made, placement=None)
    assert exchanged(started, unmeasured, reference, feeds, 20.0) is unmeasured


def test_how_fast_float_is_is_measured_against_what_is_exchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the floor has mended is not what placement has timed: here that would leave no time to give for accuracy."""
    monkeypatch.setattr(exchange, "RATE", 0.5)
    started, made, reference, feeds = fast(*of_levels(1.2, width=384, rows=32), tmp_path, faster=0.01)
    before = sqnr_of(reference, made.session, feeds).db
    better = exchanged(started, made, reference, feeds, before)
    assert sqnr_of(reference, better.session, feeds).db > before + 6


def test_what_8_bits_can_have_is_unknown_where_shapes_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the range of all samples the codes are the values themselves; in its own a sample has another count."""
    monkeypatch.setattr(exchange, "LESS", 10.0)  # else the little that there is to gain decides it
    monkeypatch.setattr(exchange, "MOST_DB", 100.0)
    b = Builder(seed=3)
    x = b.input("x", [1, WIDTH])
    same = b.node("MatMul", x, b.const(np.eye(WIDTH, dtype=np.float32)))
    few = b.node("Greater", same, b.const(np.array([0.9], np.float32)))
    b.output(b.node("Compress", same, b.node("Reshape", few, b.ints(-1)), out="y"), ["n"])
    b.output(b.gemm(b.input("other", [1, WIDTH]), WIDTH, WIDTH, out="z"), [1, WIDTH])
    feeds: list[Feed] = []
    for i in range(48):
        rng = np.random.default_rng(i)
        values = rng.integers(1, 200, (1, WIDTH)).astype(np.float32)
        values[0, :2] = (1.0, 255.0 if i % 2 else 200.0)
        feeds.append({"x": values, "other": 100 * rng.standard_cauchy((1, WIDTH)).astype(np.float32)})
    started, made, reference, seen = fast(b.model(), feeds, tmp_path, faster=1000.0)
    before = sqnr_of(reference, made.session, seen).db
    assert before < exchange.MOST_DB
    assert exchanged(started, made, reference, seen, before) is made


def test_a_second_look_is_not_begun_when_time_is_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a Softmax, noise is measured once more, which takes as long as the first time."""
    proto, feeds = of_levels(1.2)
    proto.graph.node[-1].output[0] = "before"
    proto.graph.node.append(onnx.helper.make_node("Softmax", ["before"], ["y"], name="softmax"))
    started, made, reference, seen = fast(proto, feeds, tmp_path)
    looks = []

    def counted(*args: object) -> object:
        looks.append(args)
        return analyze(*args)

    monkeypatch.setattr(exchange, "analyze", counted)
    monkeypatch.setattr(exchange, "MARGIN_DB", -60.0)  # whatever it has, it should have more
    monkeypatch.setattr(exchange, "MOST_DB", 100.0)
    exchanged(started, made, reference, seen, 20.0)
    assert len(looks) == 2
    looks.clear()
    monkeypatch.setattr(exchange, "_SECONDS", 0.0)
    exchanged(started, made, reference, seen, 20.0)
    assert len(looks) == 1


def test_indices_are_not_compared_as_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does a model that makes nothing but these fail on the way."""
    monkeypatch.setattr(exchange, "RATE", 10.0)
    proto, feeds = of_levels(1.2)
    proto.graph.node[-1].output[0] = "before"
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array([5], np.int64), "five"))
    proto.graph.node.append(onnx.helper.make_node("TopK", ["before", "five"], ["best", "y"], name="top"))
    del proto.graph.output[:]
    proto.graph.output.append(onnx.helper.make_tensor_value_info("y", onnx.TensorProto.INT64, [1, 5]))
    started, made, reference, seen = fast(proto, feeds, tmp_path)
    assert exchanged(started, made, reference, seen, 20.0) is made

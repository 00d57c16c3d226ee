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
from qconvert.targets.auto import detected
from qconvert.trials import integer_nodes
from qconvert.tuning import exchange
from qconvert.tuning.exchange import exchanged
from qconvert.tuning.fallback import looked_at, sqnr_of

WIDTH = 24


def of_levels(decades: float) -> tuple[onnx.ModelProto, list[Feed]]:
    """A chain whose samples differ in level by so many decades, and whose outputs have the same length for all."""
    b = Builder(seed=3)
    x = b.input("x", [1, WIDTH])
    for _ in range(4):
        x = b.relu(b.node("MatMul", x, b.weight(WIDTH, WIDTH)))
    squares = b.node("ReduceSum", b.node("Mul", x, x), b.const(np.array([1], np.int64)))
    b.output(b.node("Div", x, b.node("Sqrt", squares), out="y"), [1, WIDTH])
    levels = 10 ** np.random.default_rng(1).uniform(-decades, 0, 48)
    feeds = [{"x": (f["x"] * level).astype(np.float32)} for f, level in zip(b.feeds(48), levels, strict=True)]
    return b.model(), feeds


def fast(proto: onnx.ModelProto, feeds: list[Feed], folder: Path) -> tuple[Started, Quantized, Session, list[Feed]]:
    """A run after placement has found everything on integers a fifth faster than float."""
    work = job(proto, feeds, folder)
    target = detected().target
    started = start(replace(work, recipe=replace(work.recipe, placement=STATIC, target=target)), Silent())
    made = make_quantized(started.prepared, started.run)
    speed = Speedup(median=1.2, p10=1.2, p90=1.2)
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
    assert "back in float" in note
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


def test_what_is_as_good_as_8_bits_can_be_is_left_alone(tmp_path: Path) -> None:
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

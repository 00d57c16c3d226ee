"""The choice among placements that are equally fast, and what a workbench makes twice only if it has to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
from networks.builder import Builder
from plan.kernels import Few

from qconvert.evaluate.latency import Latency
from qconvert.graph.model import Model
from qconvert.graph.prepare.canonical import prepare
from qconvert.graph.signature import session_of
from qconvert.recipe.recipe import STATIC, Recipe
from qconvert.run import Run
from qconvert.trials import Trial, as_fast, fastest, most_accurate
from qconvert.workbench import Workbench


@pytest.fixture(scope="module")
def bench() -> Workbench:
    b = Builder(seed=2)
    x = b.input("x", [1, 16, 8, 8])
    for _ in range(3):
        x = b.relu(b.conv(x, 16, 16, 3))
    b.output(b.head(x, 16))
    feeds = b.feeds(8)
    prepared = prepare(Model(ir=ir.from_proto(b.model())), feeds[0])
    recipe = Recipe(target="x86-vnni", placement=STATIC)
    return Workbench.of(prepared, Run(recipe=recipe, samples=Few(feeds)), None, {})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def trials(bench: Workbench) -> list[Trial]:
    """Everything on integers, one convolution in float, all but one in float."""
    everything = bench.trial("static", bench.run.recipe)
    convs = [n for n, node in bench.graph.nodes.items() if node.op_type == "Conv"]
    fewer = [bench.pinned(f"cut {k}", everything.integer - set(convs[:k]), ()) for k in (1, 2)]
    return [everything, *fewer]


def took(*ms: float) -> Latency:
    return Latency(median_ms=ms[1], p10_ms=ms[0], p90_ms=ms[2], runs=3, times_ms=ms)


def test_outputs_are_compared_over_all_samples(bench: Workbench, trials: list[Trial]) -> None:
    reference = session_of(bench.prepared.model)
    for trial, found in zip(trials, bench.sqnr(*trials), strict=True):
        wanted, got = (np.stack([s.run(f)[0] for f in bench.run.samples]) for s in (reference, trial.result.session))
        assert found == pytest.approx(10 * np.log10((wanted**2).sum() / ((wanted - got) ** 2).sum()), abs=0.01)
    assert [len(t.integer) for t in trials] == sorted({len(t.integer) for t in trials}, reverse=True)


def test_outputs_whose_shapes_depend_on_codes_are_the_worst() -> None:
    """How many values are above a threshold is another number on integers; that is no reason not to place at all."""
    b = Builder(seed=2)
    y = b.matmul(b.input("x", [4, 32]), 32, 64)
    b.output(b.node("Compress", y, b.node("Greater", b.node("Reshape", y, b.ints(-1)), b.const(np.float32(0.1)))))
    feeds = b.feeds(4)
    prepared = prepare(Model(ir=ir.from_proto(b.model())), feeds[0])
    recipe = Recipe(target="x86-vnni", placement=STATIC)
    made = Workbench.of(prepared, Run(recipe=recipe, samples=Few(feeds)), None, {})  # type: ignore[arg-type]
    assert made.sqnr(made.trial("static", recipe)) == [-np.inf]


def test_what_is_slower_by_less_than_noise_is_as_fast(trials: list[Trial]) -> None:
    latencies = {"static": took(1, 1, 1), "cut 1": took(1.01, 1.01, 1.2), "cut 2": took(0.9, 1.05, 1.05)}
    assert [t.name for t in as_fast(trials[0], trials, latencies)] == ["static", "cut 1"]


@pytest.mark.parametrize(
    ("found", "chosen"),
    [
        ([18.0, 21.0, 20.5], "cut 1"),  # much better
        ([18.0, 18.5, 18.9], "static"),  # recovery may make up for it
        ([51.0, 55.0, 60.0], "static"),  # good enough
        ([31.0, 45.0, 60.0], "cut 2"),
        ([29.0, 45.0, 31.5], "cut 1"),
    ],
)
def test_poor_outputs_give_way_to_much_better_ones(trials: list[Trial], found: list[float], chosen: str) -> None:
    assert most_accurate(trials[0], trials, found).name == chosen


def test_the_accurate_one_is_kept_where_forms_of_it_gain_nothing(trials: list[Trial]) -> None:
    """It is as fast as the first, but for noise; against that one its forms would lose, and the first would win."""
    first, accurate, forms = trials
    latencies = {"static": took(1, 1, 1), "cut 1": took(1.01, 1.01, 1.01), "cut 2": took(1, 1, 1)}
    assert most_accurate(first, [first, accurate], [18.0, 24.0]) is accurate
    assert fastest([accurate, forms], latencies) is accurate
    assert fastest(trials, latencies) is first
    assert fastest([accurate, forms], {**latencies, "cut 2": took(0.98, 0.98, 0.98)}) is forms


@pytest.mark.parametrize("found", [[np.nan, 40.0], [40.0, np.nan], [-np.inf, -np.inf], [np.inf, np.inf]])
def test_outputs_of_which_nothing_is_known_decide_nothing(trials: list[Trial], found: list[float]) -> None:
    assert most_accurate(trials[0], trials[:2], found) is trials[0]


def test_a_plan_that_differs_in_words_only_is_not_made_again(bench: Workbench, trials: list[Trial]) -> None:
    made = len(bench.converted)
    again = bench.trial("again", replace(bench.run.recipe, pinned_float=()))
    assert len(bench.converted) == made
    assert again.result.model is trials[0].result.model

"""The order of runs and the shape of the result; never a timing value."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from qconvert.errors import InternalError
from qconvert.evaluate import latency as module
from qconvert.evaluate.latency import Latency, measure_latency, speedup, turn
from qconvert.graph.session import Session, open_session

FEED: dict[str, NDArray[np.generic]] = {"x": np.ones((1, 4), np.float32)}


@pytest.fixture(scope="module")
def session() -> Session:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "relu",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return open_session(model.SerializeToString(), threads=1)


def latency(*times: float) -> Latency:
    return Latency(median_ms=1, p10_ms=1, p90_ms=1, runs=len(times), times_ms=times)


def test_every_model_gets_the_same_number_of_runs(session: Session) -> None:
    result = measure_latency({"a": session, "b": session, "c": session}, FEED, seconds=0.0, min_runs=5, max_runs=5)
    assert list(result) == ["a", "b", "c"]
    for entry in result.values():
        assert entry.runs == len(entry.times_ms) >= 3
        assert 0 < entry.p10_ms <= entry.median_ms <= entry.p90_ms
    ratio = speedup(result["a"], result["b"])
    assert 0 < ratio.p10 <= ratio.median <= ratio.p90


class Clock:
    """A session whose every run takes ``step`` seconds by a clock of its own."""

    def __init__(self, step: float) -> None:
        self.now, self.step, self.runs = 0.0, step, 0

    def run(self, feed: object) -> None:
        del feed
        self.now += self.step
        self.runs += 1


@pytest.mark.parametrize(
    ("step", "rounds", "warmups"),
    [
        (1 / 1024, 300, 3),  # quick: as many as allowed
        (1 / 64, 128, 3),  # until the two seconds are spent; binary steps add up exactly
        (0.5, 11, 3),  # slow: the fewest
        (1.0, 11, 3),
        (2.0, 6, 2),  # until five times the budget has passed
        (60.0, 3, 1),  # very slow: three all the same
    ],
)
def test_budget(monkeypatch: pytest.MonkeyPatch, step: float, rounds: int, warmups: int) -> None:
    clock = Clock(step)
    monkeypatch.setattr(module, "perf_counter", lambda: clock.now)
    result = measure_latency({"a": clock}, FEED)  # type: ignore[dict-item]
    assert result["a"].runs == rounds
    assert clock.runs == rounds + warmups
    assert result["a"].median_ms == pytest.approx(step * 1e3)


def test_each_feed_goes_through_every_order(session: Session) -> None:
    log: list[tuple[str, int]] = []

    class Named:
        def __init__(self, name: str) -> None:
            self.name = name

        def run(self, feed: dict[str, NDArray[np.generic]]) -> None:
            log.append((self.name, int(feed["x"][0])))

    feeds = [{"x": np.array([i])} for i in range(2)]
    sessions = {name: Named(name) for name in "ab"}
    measure_latency(sessions, feeds, seconds=math.inf, min_runs=8, max_runs=8, warmup=0)  # type: ignore[arg-type]
    rounds = [(log[i], log[i + 1]) for i in range(0, len(log), 2)]
    for i in range(2):
        orders = {first[0] + second[0] for first, second in rounds if first[1] == second[1] == i}
        assert orders == {"ab", "ba"}


def test_no_models() -> None:
    assert measure_latency({}, FEED) == {}


def test_turns() -> None:
    assert [turn(["a", "b"], i) for i in range(2)] == [["a", "b"], ["b", "a"]]
    names = ["a", "b", "c"]
    orders = [turn(names, i) for i in range(6)]
    assert {tuple(o) for o in orders} == set(itertools.permutations(names))
    flat = [name for order in orders for name in order]
    for name in names:
        before = {a for a, b in itertools.pairwise(flat) if b == name}
        assert len(before) > 1


def test_speedup_pairs_the_rounds() -> None:
    ratio = speedup(latency(2, 4, 8), latency(1, 2, 2))
    assert (ratio.median, ratio.p10) == (2, 2)
    assert ratio.p90 == pytest.approx(3.6)


def test_speedup_needs_pairs() -> None:
    for first, second in ((latency(1, 2), latency(1)), (latency(), latency())):
        with pytest.raises(InternalError):
            speedup(first, second)

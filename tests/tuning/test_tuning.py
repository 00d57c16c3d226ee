"""A budget: what goes back to float to keep it, what is written when it cannot be kept, and the front."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import fields
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from sensitivity.nets import PLAIN, chain, chain_with_an_outlier, job, loudest, written

from qconvert.calibrate.data import DataSpec
from qconvert.cli import cli
from qconvert.errors import GateMissed, RecipeError
from qconvert.evaluate.compare import Comparison, MetricResult
from qconvert.evaluate.fidelity import FidelityReport
from qconvert.graph.model import load
from qconvert.graph.signature import session_of
from qconvert.inputs import ConversionJob
from qconvert.pipeline import QuantizeJob
from qconvert.tuning import tuning as stage
from qconvert.tuning.budget import Budget
from qconvert.tuning.search import Search, expected
from qconvert.tuning.tuning import Tuned, TuneOptions, tune

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
CNN, CNN_DATA = ROOT / "sample_models" / "digits_cnn.onnx", ROOT / "calibration_data" / "digits_cnn" / "calib.npz"

OPTIONS = ("--recover", "none", "--method", "minmax", "--placement", "static")


def tuned(work: ConversionJob, folder: Path, budget: Budget, **options: object) -> Tuned:
    settings = {f.name: getattr(work, f.name) for f in fields(work)}
    to_write = QuantizeJob(**settings, output=folder / "out.onnx", force=True)
    return tune(to_write, budget, TuneOptions(**options))  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def short_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    """Latency is not what is tested here."""
    monkeypatch.setattr(stage, "_LATENCY_SECONDS", 0.01)


def test_the_destructive_group_goes_to_float(tmp_path: Path) -> None:
    proto, feeds = chain_with_an_outlier()
    found = tuned(job(proto, feeds, tmp_path), tmp_path, Budget(min_sqnr=25.0))
    point = found.front.point
    assert found.front.met
    assert found.front.points[0].sqnr_db < 15 < 25 <= point.sqnr_db
    assert loudest(proto) in point.float_nodes
    gemms = [n for n in point.float_nodes if n.startswith("Gemm")]
    assert gemms == [loudest(proto)], "the others are no reason for the noise"
    decisions = {d.node: d.quantized for d in found.report.decisions}
    assert not decisions[loudest(proto)]
    assert decisions["Gemm_0"]
    assert found.report.accuracy.comparison.fidelity.sqnr_db == point.sqnr_db
    assert loudest(proto) in found.recipe.exclude
    shown = found.report.front
    assert shown is not None and (shown.quantity, shown.unit) == ("SQNR", "dB")
    assert [p.value for p in shown.points] == [p.sqnr_db for p in found.front.points]
    assert [p.value for p in shown.points if p.chosen] == [point.sqnr_db]
    damage = {d.node: d.sqnr_db for d in found.report.decisions if d.sqnr_db is not None}
    assert min(damage, key=damage.__getitem__) == loudest(proto)


def test_a_budget_that_is_kept_anyway_changes_nothing(tmp_path: Path) -> None:
    found = tuned(job(*chain(2), tmp_path), tmp_path, Budget(min_sqnr=10.0))
    assert found.front.met
    assert [p.float_nodes for p in found.front.points] == [()]


def test_the_front_is_monotone(tmp_path: Path) -> None:
    work = ConversionJob(model=CNN, calib=DataSpec(sources=(str(CNN_DATA),)), recipe=PLAIN)
    front = tuned(work, tmp_path, Budget(), points=6).front
    assert len(front.points) == 6
    assert front.chosen == 0
    for a, b in pairwise(front.points):
        assert b.price > a.price
        assert b.estimated_us > a.estimated_us
        assert b.expected_db > a.expected_db
        assert set(a.float_nodes) < set(b.float_nodes)
    # errors add up, so what is expected is about what is found
    assert all(abs(p.expected_db - p.sqnr_db) < 3.0 for p in front.points)
    assert front.points[-1].weight_bytes > front.points[0].weight_bytes


def test_no_plan_is_measured_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    original = stage.measure_accuracy

    def counted(*arguments: object) -> object:
        made.append(1)
        return original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(stage, "measure_accuracy", counted)
    front = tuned(job(*chain(3), tmp_path), tmp_path, Budget(min_sqnr=1000.0), points=50).front
    assert len(made) == len(front.points) == len({p.float_nodes for p in front.points})
    assert front.complete


def test_the_time_budget_is_honoured(tmp_path: Path) -> None:
    front = tuned(job(*chain(3), tmp_path), tmp_path, Budget(min_sqnr=1000.0), points=50, seconds=1e-3).front
    assert [p.corner for p in front.points] == [0]
    assert not front.complete
    assert not front.met
    assert (tmp_path / "out.onnx").exists()


# ---- the command line


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(a) for a in arguments], catch_exceptions=True)


def test_a_missed_budget_ends_with_3_and_the_best_model(tmp_path: Path) -> None:
    proto, feeds = chain_with_an_outlier()
    model, data = written(proto, feeds, tmp_path)
    session = session_of(load(model))
    np.save(tmp_path / "labels.npy", np.concatenate([session.run(f)[0] for f in feeds]))
    out, front = tmp_path / "out.onnx", tmp_path / "front.json"
    # labels are the float model's own outputs: anything on integers is worse
    labels = ("--eval", data, "--labels", tmp_path / "labels.npy", "--metric", "mse")
    found = run("quantize", model, "--calib", data, "-o", out, *labels, "--max-drop", "0", "--pareto", front, *OPTIONS)
    assert isinstance(found.exception, GateMissed)
    assert found.exception.exit_code == 3
    assert "--max-drop 0" in found.exception.message
    assert "MISSED" in found.stdout
    session_of(load(out)).run(feeds[0])
    document = json.loads(front.read_text())
    assert document["met"] is False
    best = next(p for p in document["points"] if p["corner"] == document["chosen"])
    assert best["metric"]["drop"] == min(p["metric"]["drop"] for p in document["points"]) > 0


def test_tune_writes_model_front_and_recipe(tmp_path: Path) -> None:
    proto, feeds = chain_with_an_outlier()
    model, data = written(proto, feeds, tmp_path)
    out, recipe = tmp_path / "out.onnx", tmp_path / "tuned.yaml"
    found = run(
        "tune", model, "--calib", data, "-o", out, "--min-sqnr", 25, "--save-recipe", recipe, "--json", *OPTIONS
    )
    assert found.exit_code == 0, found.exception
    front = json.loads(found.stdout)
    point = next(p for p in front["points"] if p["corner"] == front["chosen"])
    again = tmp_path / "again.onnx"
    assert run("quantize", model, "--calib", data, "-o", again, "--recipe", recipe).exit_code == 0
    assert again.read_bytes() == out.read_bytes(), "the recipe gives the same model"
    assert {"price", "float_nodes", "estimated_us", "latency_ms", "sqnr_db", "metric", "weight_bytes"} <= set(point)


def test_bad_budgets(tmp_path: Path) -> None:
    model, data = written(*chain(1), tmp_path)
    out = tmp_path / "out.onnx"
    for options, words in (
        (("--max-drop", "0.5%"), "needs labels"),
        (("--max-drop", "half"), "cannot be 'half'"),
        (("--min-sqnr", "nan"), "cannot be nan"),
    ):
        found = run("quantize", model, "--calib", data, "-o", out, *options)
        assert isinstance(found.exception, RecipeError)
        assert words in found.exception.message
    assert run("quantize", model, "--calib", data, "-o", out, "--time-budget", 3).exit_code == 2
    assert not out.exists()


# ---- budgets and the search, by themselves


def comparison(db: float, drop: float, unit: str, name: str = "top1") -> Comparison:
    fidelity = FidelityReport(
        outputs=(), sqnr_db=db, worst_sqnr_db=db, cosine=1.0, max_abs_error=0.0, top1_agreement=None, samples=1
    )
    return Comparison(
        fidelity=fidelity,
        metric=MetricResult(name=name, reference=0.0, quantized=0.0, drop=drop, unit=unit, samples=1),
    )


def test_points_of_a_metric() -> None:
    assert Budget(max_drop="0.5%").shortfall(comparison(9, 0.5, "%")) == 0
    assert Budget(max_drop="0.5%").shortfall(comparison(9, 0.75, "%")) == pytest.approx(0.25)
    assert Budget(max_drop="0.5").shortfall(comparison(9, 0.75, "%")) == pytest.approx(0.25)
    assert Budget(max_drop="0.5%").shortfall(comparison(9, 0.004, "", "spearman")) == 0
    assert Budget(max_drop="0.5%").shortfall(comparison(9, 0.006, "", "spearman")) == pytest.approx(0.001)
    assert Budget(max_drop="0.1").shortfall(comparison(9, math.inf, "dB", "psnr")) == math.inf
    with pytest.raises(RecipeError, match="not counted in percent"):
        Budget(max_drop="1%").shortfall(comparison(9, 0.0, "dB", "psnr"))
    assert Budget(min_sqnr=25).shortfall(comparison(24.5, 0.0, "%")) == pytest.approx(0.5)
    assert Budget(min_sqnr=25).shortfall(comparison(math.inf, 9.0, "%")) == 0
    assert Budget(max_drop="1%", min_sqnr=25).shortfall(comparison(20.0, 3.0, "%")) == pytest.approx(2.0)


def searching(count: int, first: int, may_go_on: Callable[[], bool] = lambda: True) -> tuple[Search, list[int]]:
    tries: list[int] = []

    def attempt(corner: int) -> bool:
        tries.append(corner)
        return corner >= first

    return Search(count=count, attempt=attempt, may_go_on=may_go_on, tried={0: first <= 0}), tries


@given(count=st.integers(2, 60), first=st.integers(1, 70), guess=st.none() | st.integers(0, 60))
def test_bisection_finds_the_first_that_keeps_the_budget(count: int, first: int, guess: int | None) -> None:
    search, tries = searching(count, first)
    search.cheapest(guess)
    kept = [i for i, ok in search.tried.items() if ok]
    assert min(kept, default=None) == (first if first < count else None)
    assert first >= count or first == 1 or search.tried[first - 1] is False
    assert len(tries) == len(set(tries)) <= math.ceil(math.log2(count)) + 3
    assert search.complete


@given(count=st.integers(2, 40), points=st.integers(1, 50))
def test_a_picture_is_spread_and_bounded(count: int, points: int) -> None:
    search, tries = searching(count, 0)
    search.picture(points)
    assert len(search.tried) == min(points, count)
    assert len(tries) == len(set(tries))
    assert points < 2 or count - 1 in search.tried


def test_a_search_stops_when_the_time_is_up() -> None:
    search, tries = searching(32, 20, may_go_on=lambda: len(tries) < 2)
    search.cheapest()
    search.picture(10)
    assert len(tries) == 2
    assert not search.complete


def test_a_guess_is_scaled_by_what_was_found() -> None:
    assert expected([4.0, 2.0, 1.0], found=8.0, limit=4.0) == 1
    assert expected([4.0, 2.0, 1.0], found=8.0, limit=1.0) is None
    assert expected([0.0], found=1.0, limit=1.0) is None


def test_a_report_tells_what_was_measured_and_writes_the_front(tmp_path: Path) -> None:
    """Also of a model with less on integers than the one that was timed."""
    at = f"{tmp_path}/r"
    arguments = f"tune {CNN} --calib {CNN_DATA} --samples 40 --recover none --min-sqnr 46 --points 2 -o {at}.onnx"
    done = CliRunner().invoke(cli, [*arguments.split(), "--report", f"{at}.html", "--report", f"{at}.json"])
    assert done.exit_code == 0, done.output
    report = json.loads(Path(f"{at}.json").read_text())
    points = report["front"]["points"]
    assert len(points) > 1 and [p["chosen"] for p in points].count(True) == 1 and not points[0]["chosen"]
    assert Path(f"{at}.html").read_text().count("<circle") == len(points)
    convolutions = [d for d in report["decisions"] if d["op_type"] == "Conv"]
    assert all(d["float_ms"] is not None for d in convolutions)
    reasons = {d["reason"] for d in report["decisions"] if not d["quantized"]}
    assert "back to float for the accuracy of the outputs" in reasons
    assert not any("recipe" in reason for reason in reasons), "nobody gave one"

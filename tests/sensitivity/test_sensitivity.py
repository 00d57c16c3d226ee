"""The damage that groups do: who does most, how it splits, and what it costs to know."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sensitivity.nets import PLAIN, WIDTH, chain, chain_with_an_outlier, job, loudest

from qconvert.calibrate.data import DataSpec
from qconvert.conversion import Quantized
from qconvert.errors import ModelError
from qconvert.graph.session import Feed, Session
from qconvert.graph.signature import session_of
from qconvert.numerics.affine import weight_params
from qconvert.numerics.spec import QParams
from qconvert.pipeline import Started, make_quantized, start
from qconvert.progress import Silent
from qconvert.recipe.recipe import Recipe
from qconvert.sensitivity.analysis import Sensitivity, analyze, sensitivity
from qconvert.sensitivity.measure import MeasureOptions

pytestmark = pytest.mark.slow

SAMPLES = MeasureOptions(least=8, most=8)


def close(a: float, b: float, db: float) -> bool:
    return abs(10 * np.log10(a / b)) < db


def test_an_outlier_ranks_first_by_its_activations(tmp_path: Path) -> None:
    proto, feeds = chain_with_an_outlier()
    found = sensitivity(job(proto, feeds, tmp_path))
    first, second = found.groups[:2]
    assert first.name == loudest(proto)
    assert first.sqnr_db < 15 < 35 < second.sqnr_db
    assert close(first.activation_rounding, first.noise, 0.5)
    assert first.activation_rounding > 100 * (first.weight_rounding + first.activation_clipping)
    assert close(found.together, first.noise, 0.5)


def test_parts_and_sources_add_up(tmp_path: Path) -> None:
    proto, feeds = chain(4)
    found = sensitivity(job(proto, feeds, tmp_path), options=MeasureOptions(least=42, most=42))
    assert len(found.groups) == 5
    for g in found.groups:
        parts = g.weight_rounding + g.weight_clipping + g.activation_rounding + g.activation_clipping
        assert close(parts, g.noise, 1.5), g
        assert g.weight_rounding > 0
        assert g.weight_clipping == 0.0, "scales are those of the extremes"
    assert abs(found.additivity_db) < 1.5
    assert close(found.together, 10 ** (-found.sqnr_db / 10), 1e-6)
    # a scale between two groups would be in both, but Gemm can write floats: the groups' noises are the sources', too
    assert close(sum(g.noise for g in found.groups), found.summed, 1.5)


def clipped(quantized: Quantized, name: str, share: float) -> Quantized:
    """``quantized`` with a weight scale that is ``share`` of what the extremes need."""
    plan = quantized.plan
    node = plan.nodes[name]
    assert node.weight is not None
    graph = {n.name: n for n in quantized.prepared.model.ir.graph}
    weight = graph[name].inputs[1].const_value.numpy()
    params = weight_params(weight, node.weight.spec)
    small = QParams(spec=params.spec, scale=params.scale * np.float32(share), zero_point=params.zero_point)
    nodes = {**plan.nodes, name: replace(node, weight=replace(node.weight, params=small))}
    return replace(quantized, plan=replace(plan, nodes=nodes))


def begun(folder: Path, layers: int) -> tuple[Started, Quantized]:
    started = start(job(*chain(layers), folder), Silent())
    return started, make_quantized(started.prepared, started.run)


def test_clipped_weights_are_told_from_rounded_ones(tmp_path: Path) -> None:
    started, quantized = begun(tmp_path, 2)
    name = next(n.node for n in quantized.plan.taken() if n.op_type == "Gemm")
    whole = analyze(started, quantized, SAMPLES)
    cut = analyze(started, clipped(quantized, name, 0.5), SAMPLES)
    place = next(i for i, s in enumerate(cut.sources) if s.is_weight and name in s.nodes)
    before, after = whole.measured.sources[place], cut.measured.sources[place]
    assert before.clipping == 0.0
    assert after.clipping > 20 * before.rounding
    # the step is half as wide, for the weights that are not clipped
    assert before.rounding / 8 < after.rounding < before.rounding / 2
    # one run more a sample, for the one weight that is clipped
    assert cut.measured.runs == whole.measured.runs + SAMPLES.most


def test_runs_grow_as_the_groups_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[int] = []
    original = Session.run

    def counted(self: Session, feed: Feed, outputs: object = None) -> object:
        runs.append(1)
        return original(self, feed, outputs)  # type: ignore[arg-type]

    counts = []
    for layers in (4, 8, 16):
        (tmp_path / str(layers)).mkdir()
        started, quantized = begun(tmp_path / str(layers), layers)
        with monkeypatch.context() as patch:
            patch.setattr(Session, "run", counted)
            runs.clear()
            found = analyze(started, quantized, SAMPLES)
        assert len(runs) == found.measured.runs
        assert len(found.groups) == layers + 1
        assert len(runs) <= SAMPLES.most * (2 + 4 * len(found.groups))
        counts.append(len(runs))
    assert counts[2] - counts[1] == 2 * (counts[1] - counts[0])


def test_samples_are_bounded_and_as_many_as_needed(tmp_path: Path) -> None:
    started, quantized = begun(tmp_path, 2)

    def samples(options: MeasureOptions) -> int:
        return analyze(started, quantized, options).measured.samples

    assert samples(MeasureOptions(error=1e9)) == 2
    assert samples(MeasureOptions(error=0.0)) == 16
    assert samples(MeasureOptions(error=0.0, operations=1.0)) == 2
    assert samples(MeasureOptions(error=0.0, held=5 * 4 * WIDTH)) == 5


def plain(found: Sensitivity) -> list[tuple[object, ...]]:
    return [(g.name, g.noise, g.weight_rounding, g.activation_rounding, g.activation_clipping) for g in found.groups]


def test_the_same_data_give_the_same_numbers(tmp_path: Path) -> None:
    work = job(
        *chain(3), tmp_path, Recipe(method="percentile", recover=("bias-correction", "gptq"), placement="static")
    )
    assert plain(sensitivity(work)) == plain(sensitivity(work))


def test_the_whole_is_that_of_the_emitted_model(tmp_path: Path) -> None:
    """The switches compute what ONNX Runtime's integer kernels do."""
    started, quantized = begun(tmp_path, 4)
    found = analyze(started, quantized, MeasureOptions(least=42, most=42))
    reference = started.run.samples
    assert found.measured.samples == len(list(reference)) == 42
    float_session = session_of(started.source)
    signal = noise = 0.0
    for feed in reference:
        (r,), (q,) = float_session.run(feed), quantized.session.run(feed)
        signal += float((np.asarray(r, np.float64) ** 2).sum())
        noise += float(((np.asarray(r, np.float64) - q) ** 2).sum())
    assert found.measured.together == pytest.approx(noise / signal, rel=0.02)


def test_a_metric_for_every_group(tmp_path: Path) -> None:
    proto, feeds = chain_with_an_outlier()
    work = job(proto, feeds, tmp_path)
    session = session_of(start(work, Silent()).source)
    expected = np.concatenate([session.run(f)[0] for f in feeds])
    np.save(tmp_path / "labels.npy", expected)
    data = work.calib
    assert data is not None
    scored = replace(work, eval_data=DataSpec(sources=data.sources), labels=tmp_path / "labels.npy", metric="mse")
    found = sensitivity(scored)
    assert found.metric is not None
    assert found.metric.samples == len(feeds)
    assert found.metric.reference == pytest.approx(0.0, abs=1e-9)
    drops = [g.drop or 0.0 for g in found.groups]
    assert drops[0] == max(drops) > 10 * sorted(drops)[-2] > 0


def test_nothing_on_integers_is_an_error(tmp_path: Path) -> None:
    work = job(*chain(1), tmp_path, replace(PLAIN, exclude=("Gemm",)))
    with pytest.raises(ModelError, match="nothing"):
        sensitivity(work)

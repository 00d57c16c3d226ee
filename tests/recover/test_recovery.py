"""The runner: what helps is kept, what harms or is refused is not, and the judge sees samples that no pass has seen."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from networks.all import NETWORKS
from networks.builder import BOOL, Builder
from recover.nets import Listed, all_of, prepared, quantized, run

from qconvert import recovery
from qconvert.conversion import Quantized
from qconvert.errors import RecipeError
from qconvert.graph.build_view import view_of
from qconvert.graph.model import Model
from qconvert.graph.prepare.canonical import Prepared
from qconvert.graph.signature import session_of
from qconvert.recipe.recipe import Recipe
from qconvert.recover.effort import LEVELS
from qconvert.recover.judge import CEILING_DB, Judge, Score
from qconvert.recover.layers import find_layers
from qconvert.recover.recovery import RECOVERIES, Changes, Stage, Subject
from qconvert.recover.samples import Samples, seen_and_judging

pytestmark = pytest.mark.slow

Feeds = list[dict[str, object]]


def net(b: Builder) -> str:
    x = b.relu(b.conv(b.input("x", [1, 4, 12, 12]), 4, 12))
    return b.head(b.relu(b.conv(x, 12, 8)), 8, out="y")


def made(n: int = 16) -> tuple[Prepared, Feeds]:
    b = Builder(seed=20)
    b.output(net(b), [1, 10])
    feeds = b.feeds(n)
    return prepared(b.model(), feeds[0]), feeds


def recovered(canonical: Prepared, feeds: Feeds, recipe: Recipe | None = None) -> Quantized:
    return recovery.convert_and_recover(canonical, run(feeds, recipe))


def plain(canonical: Prepared, feeds: Feeds) -> Quantized:
    return quantized(canonical, feeds)


@dataclass(frozen=True, kw_only=True)
class Shift:
    """Moves the bias of every layer by ``by``: harm, the more the larger."""

    by: float
    stage: Stage = Stage.SOLVED
    name: str = "shift"

    def apply(self, subject: Subject) -> Changes:
        layers = [layer for layer in find_layers(subject.graph).values() if layer.bias is not None]
        constants = {layer.bias: np.float32(self.by) + subject.bias(layer) for layer in layers}  # type: ignore[operator]
        return Changes(constants=constants, changed=len(constants))  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class Oracle:
    """Undoes ``Shift``: the pass that a test knows to help."""

    by: float
    stage: Stage = Stage.SOLVED
    name: str = "oracle"

    def apply(self, subject: Subject) -> Changes:
        return Shift(by=self.by).apply(subject)


@pytest.fixture
def chain(monkeypatch: pytest.MonkeyPatch) -> object:
    """Makes a run try the given passes."""

    def use(*passes: object) -> None:
        monkeypatch.setattr(recovery, "passes_of", lambda recipe: passes)

    return use


def test_a_pass_that_harms_is_dropped(chain: object) -> None:
    canonical, feeds = made()
    chain(Shift(by=0.3))  # type: ignore[operator]
    result = recovered(canonical, feeds)
    (outcome,) = result.recoveries
    assert not outcome.kept
    assert outcome.after_db < outcome.before_db
    assert result.model.to_bytes() == plain(canonical, feeds).model.to_bytes()
    assert any("shift" in note and "dropped" in note for note in result.notes)


def test_a_pass_that_changes_the_function_is_no_candidate(chain: object) -> None:
    canonical, feeds = made()
    chain(Shift(by=0.3, stage=Stage.WEIGHTS))  # type: ignore[operator]
    result = recovered(canonical, feeds)
    assert result.recoveries == ()
    assert result.model.to_bytes() == plain(canonical, feeds).model.to_bytes()


def test_a_pass_that_helps_is_kept_and_later_ones_build_on_it(chain: object, monkeypatch: pytest.MonkeyPatch) -> None:
    canonical, feeds = made()
    monkeypatch.setattr(recovery.Score, "better_than", lambda one, other: True)  # takes the harm, to have some to undo
    chain(Shift(by=0.3), Oracle(by=-0.3))  # type: ignore[operator]
    result = recovered(canonical, feeds)
    first, second = result.recoveries
    assert (first.kept, second.kept) == (True, True)
    assert second.before_db == first.after_db
    assert second.after_db == pytest.approx(first.before_db, abs=0.5)


@pytest.mark.parametrize("form", ["qdq", "qoperator"])
def test_the_default_chain_helps_and_gives_the_same_bytes_again(form: str) -> None:
    canonical, feeds = made()
    recipe = Recipe(format=form)
    first, second = (recovered(canonical, feeds, recipe) for _ in range(2))
    assert first.model.to_bytes() == second.model.to_bytes()
    assert any(o.kept for o in first.recoveries)
    assert {o.name for o in first.recoveries} <= set(LEVELS["default"].chain)
    reference, held = session_of(canonical.source), made(80)[1][16:]
    without = quantized(canonical, feeds, recipe)
    judge = Judge(reference=reference, samples=all_of(held), held_out=True)
    assert judge.score(first.session).mean_db > judge.score(without.session).mean_db


def test_a_model_without_float_outputs_is_judged_by_what_these_are_made_of() -> None:
    b = Builder(seed=20)
    b.output(b.node("Greater", net(b), b.const(np.float32(0)), out="sure"), [1, 10], BOOL)
    feeds = b.feeds(16)
    result = recovered(prepared(b.model(), feeds[0]), feeds)
    assert result.recoveries
    assert all(0 < o.before_db < CEILING_DB for o in result.recoveries)


def test_none_is_plain_conversion() -> None:
    canonical, feeds = made()
    result = recovered(canonical, feeds, Recipe(recover=("none",)))
    assert result.recoveries == ()
    assert result.model.to_bytes() == plain(canonical, feeds).model.to_bytes()


def test_passes_run_in_the_order_of_their_stages() -> None:
    names = [p.name for p in recovery.passes_of(Recipe(recover=("gptq", "equalize", "gptq")))]
    assert names == ["equalize", "gptq"]
    for effort, level in LEVELS.items():
        assert [p.name for p in recovery.passes_of(Recipe(effort=effort))] == list(level.chain)
    assert recovery.passes_of(Recipe(recover=("none",))) == ()


def test_an_unknown_pass_is_an_error_that_lists_the_others() -> None:
    with pytest.raises(RecipeError) as caught:
        recovery.passes_of(Recipe(recover=("gptqq",)))
    assert "gptqq" in caught.value.message
    assert all(name in (caught.value.hint or "") for name in RECOVERIES.names())


@pytest.mark.parametrize("names", [(), ("auto", "gptq"), ("none", "none")])
def test_auto_and_none_stand_alone(names: tuple[str, ...]) -> None:
    with pytest.raises(RecipeError, match="recover cannot be"):
        Recipe(recover=names)


def test_a_large_model_is_left_alone_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    canonical, feeds = made()
    monkeypatch.setattr(recovery, "MOST_BYTES", 100)
    result = recovered(canonical, feeds)
    assert result.recoveries == ()
    assert any("no recovery" in note for note in result.notes)
    assert recovered(canonical, feeds, Recipe(recover=("bias-correction",))).recoveries


@given(total=st.integers(1, 600))
def test_the_judge_sees_what_no_pass_has_seen(total: int) -> None:
    seen, judging = seen_and_judging(Listed(items=[{"x": np.zeros(1)}] * total))
    assert 1 <= len(judging) <= 32
    if total == 1:
        assert seen == judging
    else:
        assert not set(seen.indices) & set(judging.indices)
        assert sorted([*seen.indices, *judging.indices]) == list(range(total))


@given(total=st.integers(1, 60), count=st.integers(1, 80))
def test_some_samples_are_spread_over_all(total: int, count: int) -> None:
    feeds = [{"x": np.full(1, i)} for i in range(total)]
    chosen = [int(f["x"][0]) for f in all_of(feeds).first(count)]
    assert len(chosen) == min(total, count)
    assert chosen == sorted(set(chosen))
    unsized = Samples(feeds=_Unsized(feeds), indices=all_of(feeds).first(count).indices)
    assert [int(f["x"][0]) for f in unsized] == chosen


class _Unsized:
    """Feeds whose number nobody knows, like those of a branch."""

    def __init__(self, items: list[dict[str, np.ndarray]]) -> None:
        self.items = items

    def __iter__(self) -> object:
        return iter(self.items)

    def feed(self, i: int) -> object:
        raise AssertionError("going through them is cheaper")


def test_the_score_is_the_sqnr_in_float64() -> None:
    canonical, feeds = made()
    quantized = plain(canonical, feeds)
    score = Judge(reference=session_of(canonical.model), samples=all_of(feeds), held_out=True).score(quantized.session)
    pairs = [(session_of(canonical.model).run(f)[0], quantized.session.run(f)[0]) for f in feeds]
    energy = [(float((r.astype(float) ** 2).sum()), float(((r.astype(float) - q) ** 2).sum())) for r, q in pairs]
    assert score.mean_db == pytest.approx(np.mean([10 * np.log10(s / n) for s, n in energy]))
    assert score.pooled_db == pytest.approx(10 * np.log10(sum(s for s, _ in energy) / sum(n for _, n in energy)))


def test_a_model_agrees_with_itself() -> None:
    canonical, feeds = made(3)
    session = session_of(canonical.model)
    score = Judge(reference=session, samples=all_of(feeds), held_out=True).score(session)
    assert score == Score(mean_db=CEILING_DB, pooled_db=CEILING_DB)
    assert not score.better_than(score)


@pytest.mark.parametrize(
    "name", ["empty_weights", "unknown_rank", "ml_domain", "noise_generator", "loop", "captured_weight"]
)
def test_odd_networks_leave_no_pass_behind(name: str) -> None:
    network = NETWORKS[name]()
    feeds = [{k: np.asarray(v) for k, v in feed.items()} for feed in network.feeds]
    result = recovered(prepared(network.proto, feeds[0]), feeds)
    assert not [note for note in result.notes if "left out" in note]
    assert bool(result.recoveries) == (name != "noise_generator")


def test_a_pass_that_fails_costs_nothing_but_itself(chain: object) -> None:
    canonical, feeds = made()

    class Broken:
        name, stage = "broken", Stage.SOLVED

        def apply(self, subject: Subject) -> Changes:
            raise np.linalg.LinAlgError("not positive definite")

    chain(Broken(), Shift(by=0.3))  # type: ignore[operator]
    result = recovered(canonical, feeds)
    assert [o.name for o in result.recoveries] == ["shift"]
    assert "recovery, broken: left out: LinAlgError: not positive definite" in result.notes
    assert result.model.to_bytes() == plain(canonical, feeds).model.to_bytes()


def test_changes_add_up() -> None:
    one = Changes(constants={("a", 1): np.zeros(1, np.float32), ("b", 2): np.zeros(1, np.float32)}, changed=2)
    two = Changes(constants={("a", 1): np.ones(1, np.float32)}, changed=1)
    both = one.and_then(two)
    assert both.constants[("a", 1)] == 1.0
    assert both.constants[("b", 2)] == 0.0
    assert both.changed == 3


def test_branch_models_are_recovered_like_others() -> None:
    """A base that differs from the canonical model (quantized branches) gets the changes, too."""
    canonical, feeds = made()
    base: Model = replace(canonical.model.clone())
    base.ir.metadata_props["where"] = "here"
    result = recovery.convert_and_recover(canonical, run(feeds), base=base)
    same = recovered(canonical, feeds)
    assert list(view_of(result.model).nodes) == list(view_of(same.model).nodes)
    for ours, theirs in zip(result.session.run(feeds[0]), same.session.run(feeds[0]), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_little_effort_leaves_a_dear_model_alone_and_more_effort_tries_more(monkeypatch: pytest.MonkeyPatch) -> None:
    canonical, feeds = made()
    cheap = recovered(canonical, feeds, Recipe(effort="fast"))
    assert {o.name for o in cheap.recoveries} == {"bias-correction"}
    tried = {o.name for o in recovered(canonical, feeds, Recipe(effort="max")).recoveries}
    assert "adaround" in tried
    monkeypatch.setitem(LEVELS, "fast", replace(LEVELS["fast"], dearest=1e3))  # type: ignore[arg-type]
    dear = recovered(canonical, feeds, Recipe(effort="fast"))
    assert dear.recoveries == ()
    assert any("million multiplications a run (effort fast)" in note for note in dear.notes)
    assert dear.model.to_bytes() == plain(canonical, feeds).model.to_bytes()

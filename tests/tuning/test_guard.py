"""Operators that ruin the outputs go back to float by themselves, where the placement was qconvert's choice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sensitivity.nets import chain, chain_with_an_outlier, job, loudest

from qconvert.conversion import Quantized
from qconvert.evaluate.fidelity import sqnr_db
from qconvert.graph.signature import session_of
from qconvert.pipeline import Started, make_quantized, start
from qconvert.placing import integer_nodes
from qconvert.progress import Silent
from qconvert.recipe.recipe import MEASURED, PINNED, STATIC
from qconvert.report.model import PlacementReport
from qconvert.tuning.guard import FLOOR_DB, guarded


def converted(proto: object, feeds: object, folder: Path, **choices: object) -> tuple[Started, Quantized]:
    """A run as it is after the static placement was found to be the fastest."""
    work = job(proto, feeds, folder)  # type: ignore[arg-type]
    started = start(replace(work, recipe=replace(work.recipe, placement=STATIC, **choices)), Silent())
    made = make_quantized(started.prepared, started.run)
    report = PlacementReport(chosen="static", fp32_ms=1.0, trials=(), pinned_float=(), seconds=0.0)
    measured = replace(started.run, recipe=replace(started.run.recipe, placement=MEASURED))
    return replace(started, run=measured), replace(made, placement=report)


def db(started: Started, made: Quantized) -> float:
    """SQNR on the evaluation samples."""
    reference = session_of(started.source)
    pairs = [(reference.run(f)[0], made.session.run(f)[0]) for f in started.data.evaluation]
    r, q = (np.concatenate([np.ravel(p[i]) for p in pairs]).astype(np.float64) for i in (0, 1))
    return sqnr_db(float(r @ r), float((r - q) @ (r - q)))


def test_what_ruins_the_outputs_goes_back_to_float_and_a_saved_recipe_says_so(tmp_path: Path) -> None:
    proto, feeds = chain_with_an_outlier()
    started, made = converted(proto, feeds, tmp_path)
    better = guarded(started, made, session_of(started.source), seconds=60.0)
    assert db(started, made) < FLOOR_DB <= db(started, better)
    left = integer_nodes(better.plan)
    assert loudest(proto) not in left and "Gemm_0" in left
    assert any("back in float" in note for note in better.notes) and not better.warnings
    assert "accuracy" in better.plan.nodes[loudest(proto)].decision.reason
    assert better.placement is not None and loudest(proto) in better.placement.excluded
    pinned, excluded = better.placement.pinned_float, better.placement.excluded
    recipe = replace(started.run.recipe, placement=PINNED, pinned_float=pinned, exclude=excluded)
    again = make_quantized(started.prepared, replace(started.run, recipe=recipe))
    assert again.model.to_bytes() == better.model.to_bytes()


def test_good_outputs_and_a_placement_of_the_user_are_left_alone(tmp_path: Path) -> None:
    started, made = converted(*chain(2), tmp_path)
    assert guarded(started, made, session_of(started.source), seconds=60.0) is made
    started, made = converted(*chain_with_an_outlier(), tmp_path)
    theirs = replace(started, run=replace(started.run, recipe=replace(started.run.recipe, placement=STATIC)))
    assert guarded(theirs, made, session_of(theirs.source), seconds=60.0) is made


@pytest.mark.parametrize("effort", ["fast"])
def test_the_least_effort_only_warns(effort: str, tmp_path: Path) -> None:
    started, made = converted(*chain_with_an_outlier(), tmp_path, effort=effort)
    warned = guarded(started, made, session_of(started.source), seconds=60.0)
    assert warned.model is made.model
    assert any("less than 20 dB" in w and "--effort" in w for w in warned.warnings)

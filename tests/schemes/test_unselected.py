"""Branches that no compared sample selects are run all the same, or named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from end_to_end.command import Ran, command
from networks.branches import voice, voice_feeds
from networks.builder import BOOL, Builder, Feed, Network
from schemes.runs import Feeds

from qconvert.graph.model import Model, load
from qconvert.graph.prepare.canonical import prepare
from qconvert.recipe.recipe import Recipe
from qconvert.schemes.application import apply, least_opset
from qconvert.schemes.unselected import Unselected, judge_unselected


def judged(net: Network, feeds: list[Feed], folder: Path, recipe: Recipe | None = None) -> Unselected:
    """What is said of ``net`` under ``recipe``."""
    path = folder / "model.onnx"
    path.write_bytes(net.proto.SerializeToString())
    recipe = recipe or Recipe(scheme="w8")
    prepared = prepare(load(path), net.feeds[0], min_opset=least_opset(recipe))
    written: Model = apply(prepared, recipe).model
    return judge_unselected(prepared.model, written, Feeds(feeds))


def test_a_branch_is_made_to_run(tmp_path: Path) -> None:
    net = voice()
    assert judged(net, voice_feeds(4), tmp_path) == Unselected()
    one_rate = judged(net, voice_feeds(4, rates=(16000,)), tmp_path)
    assert not one_rate.warnings
    (note,) = one_rate.notes
    assert note.startswith("rate/else_branch: no sample that is compared selects it; made to run on them")
    assert float(note.split()[-2]) > 20


def test_poor_outputs_are_warned_of(tmp_path: Path) -> None:
    poor = judged(voice(), voice_feeds(4, rates=(8000,)), tmp_path, Recipe(scheme="binary"))
    assert not poor.notes
    assert "rate/then_branch" in poor.warnings[0]


def nested(sizes: tuple[int, int]) -> Network:
    """If(outer): {If(inner): a product on x cut to each of ``sizes`` numbers, or another}, else one more product."""
    b = Builder(seed=4, opset=17)
    x, outer, inner = b.input("x", [2, 64]), b.input("outer", [], BOOL), b.input("inner", [], BOOL)

    def product(prefix: str, size: int) -> Builder:
        body = Builder(seed=size, prefix=prefix, opset=17)
        cut = body.node("Reshape", x, body.ints(2, size))
        body.output(body.node("MatMul", cut, body.weight(size, 64, fan_in=size)))
        return body

    within = Builder(prefix="w_", opset=17)
    then, otherwise = (product(f"{n}_", size).graph(n) for n, size in zip("ab", sizes, strict=True))
    within.output(within.node("If", inner, name="second", then_branch=then, else_branch=otherwise))
    last = product("c_", 64).graph("c")
    b.output(b.node("If", outer, out="y", name="first", then_branch=within.graph("w"), else_branch=last), [2, 64])
    feeds: list[Feed] = [
        {"x": np.full((2, 64), 1.0 + i, np.float32), "outer": np.asarray(True), "inner": np.asarray(True)}
        for i in range(3)
    ]
    return Network(proto=b.model(), feeds=feeds)


@pytest.mark.parametrize("size", [64, 32])
def test_branches_within_branches(size: int, tmp_path: Path) -> None:
    """One that cannot take what the samples have is named as verified by nothing."""
    net = nested((64, size))
    said = judged(net, net.feeds, tmp_path)
    every = (*said.notes, *said.warnings)
    assert {s.partition(":")[0] for s in every} == {"first/then_branch/w_second/else_branch", "first/else_branch"}
    if size == 64:
        assert not said.warnings
    else:
        (warning,) = said.warnings
        assert "w_second/else_branch" in warning and "nothing has verified it" in warning


@pytest.mark.parametrize("scheme", ["int8", "w8"])
def test_the_report_says_so(scheme: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, data = tmp_path / "voice.onnx", tmp_path / "data"
    model.write_bytes(voice().proto.SerializeToString())
    data.mkdir()
    for i, feed in enumerate(voice_feeds(12, rates=(16000,))):
        np.savez(data / f"{i:02}.npz", **feed)
    ran: Ran = command(capsys)("quantize", model, "--scheme", scheme, "--calib", data, "-o", tmp_path / "out.onnx")
    assert ran.code == 0, ran.err
    assert "rate/else_branch: no sample that is compared selects it; made to run" in " ".join(ran.out.split())

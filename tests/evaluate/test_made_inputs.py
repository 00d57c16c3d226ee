"""Inputs made from a signature, and batches cut from data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qconvert.calibrate.feeds import FeedSet, feeds
from qconvert.calibrate.source import open_source
from qconvert.errors import DataError, ModelError, RecipeError
from qconvert.evaluate.made_inputs import MOST_FEEDS, common_interface, data_feeds, make_feed
from qconvert.graph.session import IOSpec


def spec(name: str, *shape: int | str | None, dtype: str = "float32") -> IOSpec:
    return IOSpec(name=name, dtype=dtype, shape=shape)


def test_the_first_axis_is_the_batch_and_the_rest_is_assumed() -> None:
    made = make_feed((spec("x", "N", 3, "H", "W"), spec("ids", "N", "S", dtype="int64")))
    assert {n: v.shape for n, v in made.feed.items()} == {"x": (1, 3, 224, 224), "ids": (1, 128)}
    assert made.assumed == {"N": 1, "H": 224, "W": 224, "S": 128}


def test_sizes_that_are_given_are_not_assumed() -> None:
    made = make_feed((spec("x", "N", "S", None),), batch=4, dims={"S": 7, "x:2": 5})
    assert made.feed["x"].shape == (4, 7, 5)
    assert made.assumed == {}


def test_a_name_on_another_axis_too_is_no_batch() -> None:
    made = make_feed((spec("positions", "S", dtype="int64"), spec("ids", "N", "S", dtype="int64")), batch=2)
    assert made.feed["positions"].shape == (128,)
    assert made.feed["ids"].shape == (2, 128)


def test_values_suit_their_type() -> None:
    made = make_feed(
        (
            spec("f", 100),
            spec("h", 100, dtype="float16"),
            spec("i", 100, dtype="int64"),
            spec("b", 100, dtype="bool"),
            spec("c", 1000, dtype="int8"),
            spec("s", 2, dtype="str"),
        )
    )
    assert made.feed["f"].dtype == np.float32
    assert (made.feed["f"] >= 0).all()
    assert (made.feed["f"] < 1).all()
    assert made.feed["h"].dtype == np.float16
    assert (made.feed["i"] == 1).all()
    assert made.feed["b"].all()
    assert made.feed["c"].min() < -100 < 100 < made.feed["c"].max()
    assert made.feed["s"].dtype.kind == "U"


def test_the_same_seed_makes_the_same_values() -> None:
    a, b, c = (make_feed((spec("x", 8),), seed=seed).feed["x"] for seed in (1, 1, 2))
    assert (a == b).all()
    assert (a != c).any()


def test_mistakes_are_named() -> None:
    with pytest.raises(RecipeError, match="no symbolic dimension 'sequenc'") as error:
        make_feed((spec("ids", "batch", "sequence"),), dims={"sequenc": 3})
    assert "did you mean 'sequence'" in error.value.hint
    with pytest.raises(ModelError, match=r"fixed batch: its shape is \[1, 4\], --batch is 2"):
        make_feed((spec("x", 1, 4),), batch=2)
    with pytest.raises(ModelError, match="only tensors"):
        make_feed((spec("x", dtype="seq(tensor(float))"),))


def test_fixed_sizes_win_over_symbolic_ones() -> None:
    merged = common_interface({"a": (spec("x", "N", 4), spec("m")), "b": (spec("m"), spec("x", 2, None))})
    assert [(s.name, s.shape) for s in merged] == [("x", (2, 4)), ("m", ())]


def test_differences_are_named() -> None:
    one = (spec("x", 1, 4), spec("y", 1), spec("z", 2))
    other = (spec("x", 1, 4, dtype="uint8"), spec("y", 2), spec("q", 2))
    with pytest.raises(ModelError) as error:
        common_interface({"a": one, "b": other})
    for words in ("'x' is float32 in a, uint8 in b", "'y' has shape [1] in a, [2] in b", "b has no input 'z'", "'q'"):
        assert words in error.value.message


def samples(folder: Path, arrays: list[np.ndarray], interface: tuple[IOSpec, ...]) -> FeedSet:
    for i, array in enumerate(arrays):
        np.savez(folder / f"{i}.npz", x=array)
    return feeds(open_source(folder, interface), interface)


def test_batches_cut_from_data(tmp_path: Path) -> None:
    found = samples(tmp_path, [np.full(3, i, np.float32) for i in range(5)], (spec("x", "N", 3),))
    assert [f["x"][:, 0].tolist() for f in data_feeds(found, batch=2)] == [[0, 1], [2, 3]]
    assert [f["x"][:, 0].tolist() for f in data_feeds(found, batch=7)] == [[0, 1, 2, 3, 4, 0, 1]]
    assert [f["x"][0, 0] for f in data_feeds(found)] == [0, 1, 2, 3, 4]


def test_few_feeds_spread_over_many_samples(tmp_path: Path) -> None:
    found = samples(tmp_path, [np.full(3, i, np.float32) for i in range(40)], (spec("x", "N", 3),))
    picked = [f["x"][0, 0] for f in data_feeds(found)]
    assert len(picked) == MOST_FEEDS
    assert picked == sorted(picked)
    assert picked[-1] > 35


def test_samples_of_different_length_make_no_batch(tmp_path: Path) -> None:
    found = samples(tmp_path, [np.zeros((1, 3), np.float32), np.zeros((1, 4), np.float32)], (spec("x", "N", "S"),))
    assert len(data_feeds(found)) == 2
    with pytest.raises(DataError, match="differ in shape"):
        data_feeds(found, batch=2)

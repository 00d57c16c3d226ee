"""Data sets that several test files open."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qconvert.calibrate.data import DataSpec, open_data_set
from qconvert.calibrate.feeds import FeedSet
from qconvert.errors import DataError
from qconvert.graph.session import IOSpec

X = IOSpec(name="x", dtype="float32", shape=("n", 3))
IDS = IOSpec(name="ids", dtype="int64", shape=("n", "t"))
MASK = IOSpec(name="mask", dtype="int64", shape=("n", "t"))


def opened(
    *sources: Path | str, interface: tuple[IOSpec, ...] = (X,), samples: int | None = None, **more: int
) -> FeedSet:
    return open_data_set(DataSpec(sources=tuple(map(str, sources)), samples=samples, **more), interface)  # type: ignore[arg-type]


def refused(*sources: Path | str, interface: tuple[IOSpec, ...] = (IDS, MASK)) -> DataError:
    with pytest.raises(DataError) as caught:
        opened(*sources, interface=interface)
    assert caught.value.hint
    return caught.value


def folder(place: Path, count: int, bad: tuple[int, ...] = ()) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        np.save(place / f"{i}.npy", np.full((1, 3), np.nan if i in bad else i, np.float32))
    return place


def numbers(made: FeedSet) -> list[float]:
    return [float(feed["x"][0, 0]) for feed in made]


PIXELS = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
FLOATS = np.random.default_rng(1).standard_normal((5, 8, 8, 3)).astype(np.float32)

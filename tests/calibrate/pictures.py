"""Small pictures on disk, and what comes of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qconvert.calibrate.data import DataSpec, open_data_set
from qconvert.calibrate.feeds import FeedSet
from qconvert.errors import DataError
from qconvert.graph.session import IOSpec


def spec(*shape: int | str | None, dtype: str = "float32") -> IOSpec:
    return IOSpec(name="image", dtype=dtype, shape=shape)


RGB = spec("n", 3, 16, 16)
NHWC = spec("n", 16, 16, 3)
BYTES = spec("n", 3, 16, 16, dtype="uint8")


def noise(height: int = 16, width: int = 16, channels: int = 3, seed: int = 0) -> np.ndarray:
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(folder: Path, *pictures: np.ndarray, suffix: str = ".png") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{i}{suffix}")
    return folder


def data(folder: Path, interface: IOSpec = RGB, preprocess: str | None = None, skip_bad: int = 0) -> FeedSet:
    return open_data_set(DataSpec(sources=(str(folder),), preprocess=preprocess, skip_bad=skip_bad), (interface,))


def first(folder: Path, interface: IOSpec = RGB, preprocess: str | None = None) -> np.ndarray:
    return data(folder, interface, preprocess).feed(0)["image"]


def refused(folder: Path, interface: IOSpec = RGB, preprocess: str | None = None) -> DataError:
    with pytest.raises(DataError) as caught:
        data(folder, interface, preprocess)
    assert caught.value.hint
    return caught.value

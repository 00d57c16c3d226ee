"""Raw numbers and safetensors: types, shapes, sizes, mapping, damaged files."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from qconvert.calibrate.data import DataSpec, open_data_set
from qconvert.calibrate.feeds import FeedSet
from qconvert.calibrate.sources._stack import Stack
from qconvert.errors import DataError
from qconvert.graph.session import IOSpec

X = IOSpec(name="x", dtype="float32", shape=("n", 2, 3))
IDS = IOSpec(name="ids", dtype="int64", shape=("n", 4))
ARRAY = np.arange(24, dtype=np.float32).reshape(4, 2, 3)


def opened(text: str, *interface: IOSpec) -> FeedSet:
    return open_data_set(DataSpec(sources=(text,)), interface or (X,))


def refused(text: str, *interface: IOSpec) -> DataError:
    with pytest.raises(DataError) as caught:
        list(opened(text, *interface))
    assert caught.value.hint
    return caught.value


def raw(folder: Path, array: np.ndarray = ARRAY, name: str = "a.bin") -> Path:
    (folder / name).write_bytes(array.tobytes())
    return folder / name


# ---------------------------------------------------------------- raw


@pytest.mark.parametrize(
    ("words", "count"),
    [("float32:2x3", 4), ("float32", 4), ("float32:1x2x3", 4), ("float32:2x2x3", 2), ("float32:2X3", 4)],
)
def test_raw_samples(tmp_path: Path, words: str, count: int) -> None:
    made = opened(f"{raw(tmp_path)}:{words}")
    assert len(made) == count
    np.testing.assert_array_equal(np.concatenate([feed["x"] for feed in made]), ARRAY)


@pytest.mark.parametrize("dtype", ["float16", "float64", "float32"])
def test_raw_floats_of_any_width(tmp_path: Path, dtype: str) -> None:
    file = raw(tmp_path, ARRAY.astype(np.dtype(dtype).newbyteorder("<")), "a.raw")
    np.testing.assert_array_equal(opened(f"{file}:{dtype}:2x3").feed(3)["x"], ARRAY[3:])


def test_raw_integers_vectors_and_bools(tmp_path: Path) -> None:
    ids = np.arange(8, dtype="<i4").reshape(2, 4)
    assert opened(f"{raw(tmp_path, ids)}:int32:4", IDS).feed(1)["ids"].tolist() == [[4, 5, 6, 7]]
    scalar = IOSpec(name="t", dtype="int64", shape=("n",))
    assert opened(f"{raw(tmp_path, ids)}:int32", scalar).feed(5)["t"].tolist() == [5]
    mask = IOSpec(name="m", dtype="bool", shape=("n", 4))
    assert opened(f"{raw(tmp_path, np.eye(2, 4, dtype=bool))}:bool", mask).feed(1)["m"].tolist() == [[0, 1, 0, 0]]
    assert "other than 0 and 1" in refused(f"{raw(tmp_path, ids.astype(np.uint8))}:bool", mask).message


def test_raw_data_are_mapped(tmp_path: Path) -> None:
    source = opened(f"{raw(tmp_path)}:float32:2x3").source
    assert isinstance(source, Stack)
    assert isinstance(source.arrays["x"], np.memmap)
    assert source[1].arrays["x"].flags.owndata  # a copy, so that the pages of the map can be let go


def test_a_file_larger_than_memory_opens_at_once(tmp_path: Path) -> None:
    with (tmp_path / "big.bin").open("wb") as stream:
        stream.truncate(24 << 35)  # 824 GB, sparse
    made = opened(f"{tmp_path / 'big.bin'}:float32:2x3")
    assert len(made) == 1 << 35
    assert made.feed((1 << 35) - 1)["x"].shape == (1, 2, 3)
    assert "sampled-sha256" in made.take([5]).listing()[0]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("", "do not say what they hold"),
        (":float33:2x3", "unknown type 'float33'"),
        (":object:2x3", "unknown type 'object'"),
        (":float32:2x", "'2x' is no shape"),
        (":float32:2,3", "is no shape"),
        (":float32:0x3", "is no shape"),
        (":float32:-2x3", "is no shape"),
        (":float32:" + "x".join("9" * 16), "no multiple"),
        (":float32:99999999999x99999999999", "no multiple"),
        (":float32:5", "has 96 bytes, no multiple of 20"),
        (":float32:6", "rank 3 or 4"),
        (":uint8:2x3", "expects float32, came uint8"),
    ],
)
def test_raw_data_that_do_not_fit(tmp_path: Path, words: str, says: str) -> None:
    error = refused(f"{raw(tmp_path)}{words}")
    assert "a.bin" in error.message
    assert says in error.message


def test_raw_data_without_a_shape_need_a_fixed_one(tmp_path: Path) -> None:
    free = IOSpec(name="x", dtype="float32", shape=("n", "c", 3))
    error = refused(f"{raw(tmp_path)}:float32", free)
    assert "leaves sizes of input 'x' open" in error.message
    assert opened(f"{raw(tmp_path)}:float32:2x3", free).feed(0)["x"].shape == (1, 2, 3)


def test_an_empty_file_holds_no_samples(tmp_path: Path) -> None:
    assert "holds no samples" in refused(f"{raw(tmp_path, ARRAY[:0])}:float32:2x3").message


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=20))
def test_any_words_after_the_path_are_samples_or_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, words: str
) -> None:
    file = raw(tmp_path_factory.mktemp("raw"))
    try:
        opened(f"{file}:{words}")
    except DataError as error:
        assert error.message


# ---------------------------------------------------------------- safetensors


def tensors(folder: Path, **arrays: np.ndarray) -> Path:
    save_file(arrays, folder / "a.safetensors")
    return folder / "a.safetensors"


def test_stacked_safetensors(tmp_path: Path) -> None:
    file = tensors(tmp_path, x=ARRAY, ids=np.arange(16).reshape(4, 4), labels=np.arange(9))
    made = opened(str(file), X, IDS)
    assert len(made) == 4
    np.testing.assert_array_equal(made.feed(2)["x"], ARRAY[2:3])
    assert made.feed(2)["ids"].tolist() == [[8, 9, 10, 11]]
    assert "ignored: 'labels'" in made.warnings[0]
    assert made.source[-1].origin.endswith("a.safetensors[3]")


def test_safetensors_scalars_batches_and_half_precision(tmp_path: Path) -> None:
    scalar = IOSpec(name="t", dtype="float32", shape=())
    half = ARRAY.astype(ml_dtypes.bfloat16)
    made = opened(str(tensors(tmp_path, x=half, t=np.arange(4.0))), X, scalar)
    assert made.feed(1)["t"].shape == ()
    np.testing.assert_array_equal(made.feed(3)["x"], ARRAY[3:])
    pairs = IOSpec(name="x", dtype="float32", shape=(2, 2, 3))
    np.testing.assert_array_equal(opened(str(tensors(tmp_path, x=ARRAY)), pairs).feed(1)["x"], ARRAY[2:])
    np.testing.assert_array_equal(opened(str(tensors(tmp_path, x=ARRAY[None])), X).feed(0)["x"], ARRAY)


def test_only_the_sample_asked_for_is_read(tmp_path: Path) -> None:
    array = opened(str(tensors(tmp_path, x=ARRAY))).source[1].arrays["x"]
    assert array.nbytes == 24
    while isinstance(array.base, np.ndarray):
        array = array.base
    assert array.nbytes == 24


def test_safetensors_truncated_at_every_length(tmp_path: Path) -> None:
    file = tensors(tmp_path, x=ARRAY)
    whole = file.read_bytes()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        assert "a.safetensors is not a sound" in refused(str(file)).message


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [4, 2, 3], "data_offsets": [0, 960]},
        {"dtype": "F32", "shape": [400, 2, 3], "data_offsets": [0, 96]},
        {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 96]},
        {"dtype": "F32", "shape": [4, 2, 3], "data_offsets": [-96, 0]},
        {"dtype": "X9", "shape": [4, 2, 3], "data_offsets": [0, 96]},
        {"shape": [4, 2, 3], "data_offsets": [0, 96]},
    ],
)
def test_headers_that_lie(tmp_path: Path, entry: dict[str, object]) -> None:
    header = json.dumps({"x": entry}).encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + ARRAY.tobytes())
    assert "a.safetensors is not a sound" in refused(str(tmp_path / "a.safetensors")).message


@pytest.mark.parametrize("content", [b"\xff" * 8, b"\xff" * 64, struct.pack("<Q", 2) + b"{}", b""])
def test_what_is_no_safetensors_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.safetensors").write_bytes(content)
    assert "a.safetensors" in refused(str(tmp_path / "a.safetensors")).message


def test_arrays_of_the_wrong_name(tmp_path: Path) -> None:
    error = refused(str(tensors(tmp_path, y=ARRAY, z=ARRAY)))
    assert "no array for input 'x'; it holds 'y', 'z'" in error.message

"""Sources: which kind a path is, what its samples are, that reading is lazy, and that damaged files are named."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.lib import format as npy
from onnx import TensorProto, helper, numpy_helper

from qconvert.calibrate.source import SOURCES, Source, open_source
from qconvert.calibrate.sources._stack import Stack
from qconvert.errors import DataError
from qconvert.graph.session import IOSpec

X = IOSpec(name="x", dtype="float32", shape=("batch", 3))
Y = IOSpec(name="y", dtype="int64", shape=())
SEQUENCE = IOSpec(name="s", dtype="seq(tensor(float))", shape=())


def row(value: float) -> np.ndarray:
    return np.full((1, 3), value, np.float32)


def refused(path: Path, *interface: IOSpec) -> DataError:
    with pytest.raises(DataError) as caught:
        open_source(path, interface or (X,))[0]
    assert caught.value.hint
    return caught.value


def header(shape: tuple[int, ...]) -> bytes:
    stream = io.BytesIO()
    npy.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return stream.getvalue()


# ---------------------------------------------------------------- kinds


def test_npz_folder_in_natural_order(tmp_path: Path) -> None:
    for i in (10, 2, 1):
        np.savez(tmp_path / f"sample_{i}.npz", x=row(i))
    source = open_source(tmp_path, (X,))
    assert [source[i].arrays["x"][0, 0] for i in range(len(source))] == [1, 2, 10]
    assert source[2].origin == str(tmp_path / "sample_10.npz")
    assert not source[0].stacked
    assert source.name == str(tmp_path)


def test_npy_folder(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", row(1))
    np.save(tmp_path / "b.NPY.npy", row(2))
    source = open_source(str(tmp_path), (X,))
    assert len(source) == 2
    np.testing.assert_array_equal(source[1].arrays["x"], row(2))


def test_a_suffix_may_be_in_capitals(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=row(1))
    (tmp_path / "a.npz").rename(tmp_path / "A.NPZ")
    assert len(open_source(tmp_path, (X,))) == 1
    assert len(open_source(tmp_path / "A.NPZ", (X,))) == 1


def test_stacked_npz(tmp_path: Path) -> None:
    np.savez(tmp_path / "calib.npz", x=np.arange(12, dtype=np.float32).reshape(4, 3), y=np.arange(4))
    source = open_source(tmp_path / "calib.npz", (X, Y))
    assert len(source) == 4
    sample = source[2]
    assert sample.stacked
    assert sample.origin.endswith("calib.npz[2]")
    np.testing.assert_array_equal(sample.arrays["x"], [[6, 7, 8]])
    assert isinstance(sample.arrays["y"], np.ndarray)
    assert sample.arrays["y"].shape == ()
    assert sample.arrays["y"] == 2
    assert source[-1].origin.endswith("[3]")
    with pytest.raises(IndexError):
        source[4]


def test_stacked_npy_is_mapped(tmp_path: Path) -> None:
    np.save(tmp_path / "calib.npy", np.arange(12, dtype=np.float32).reshape(4, 3))
    source = open_source(tmp_path / "calib.npy", (X,))
    assert len(source) == 4
    np.testing.assert_array_equal(source[3].arrays["x"], [[9, 10, 11]])
    assert isinstance(source, Stack)
    assert isinstance(source.arrays["x"], np.memmap)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_large_stacked_npz_stays_on_disk(tmp_path: Path, save: Callable[..., None]) -> None:
    rows = np.random.default_rng(0).normal(size=(900, 2500)).astype(np.float32)  # 9 MB
    save(tmp_path / "calib.npz", x=rows, unused=np.asfortranarray(rows[:, :7]))
    source = open_source(tmp_path / "calib.npz", (IOSpec(name="x", dtype="float32", shape=("n", 2500)),))
    assert isinstance(source, Stack)
    assert all(isinstance(a, np.memmap) for a in source.arrays.values())
    np.testing.assert_array_equal(source[417].arrays["x"], rows[417:418])
    np.testing.assert_array_equal(source.arrays["unused"], rows[:, :7])


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_flipped_bit_of_a_large_npz_is_noticed(tmp_path: Path, save: Callable[..., None]) -> None:
    file = tmp_path / "calib.npz"
    save(file, x=np.random.default_rng(0).normal(size=(900, 2500)).astype(np.float32))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(DataError, match="not a sound"):
        open_source(file, (IOSpec(name="x", dtype="float32", shape=("n", 2500)),))


@pytest.mark.parametrize("shape", [(0, 3), (3,)])
def test_stacked_npy_of_odd_shapes_keeps_its_rows(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.save(tmp_path / "calib.npy", np.ones(shape, np.float32))
    spec = IOSpec(name="x", dtype="float32", shape=("n", *shape[1:]))
    assert len(open_source(tmp_path / "calib.npy", (spec,))) == shape[0]


def test_fortran_order_survives(tmp_path: Path) -> None:
    array = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    np.save(tmp_path / "a.npy", array)
    np.savez_compressed(tmp_path / "b.npz", x=array)
    for name in ("a.npy", "b.npz"):
        np.testing.assert_array_equal(open_source(tmp_path / name, (X,))[1].arrays["x"], [[3, 4, 5]])


def write_set(folder: Path, *arrays: np.ndarray) -> Path:
    folder.mkdir(parents=True)
    for i, array in enumerate(arrays):
        onnx.save_tensor(numpy_helper.from_array(array, "stale name"), folder / f"input_{i}.pb")
    onnx.save_tensor(numpy_helper.from_array(arrays[0]), folder / "output_0.pb")
    return folder


def test_onnx_test_data(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"")
    for i in (10, 2):
        write_set(tmp_path / f"test_data_set_{i}", row(i), np.array(i))
    source = open_source(tmp_path, (X, Y))
    assert len(source) == 2
    np.testing.assert_array_equal(source[0].arrays["x"], row(2))
    assert source[1].arrays["y"] == 10
    assert source[1].origin.endswith("test_data_set_10")


def test_one_onnx_test_data_set(tmp_path: Path) -> None:
    one = write_set(tmp_path / "test_data_set_0", row(5), np.array(5))
    assert set(open_source(one, (X, Y))[0].arrays) == {"x", "y"}
    assert set(open_source(one, (X,))[0].arrays) == {"x", "input_1"}


def test_more_than_ten_inputs_keep_their_numbers(tmp_path: Path) -> None:
    specs = tuple(IOSpec(name=f"in{i}", dtype="int64", shape=()) for i in range(12))
    one = write_set(tmp_path / "set", *(np.array(i) for i in range(12)))
    arrays = open_source(one, specs)[0].arrays
    assert {name: int(value) for name, value in arrays.items()} == {f"in{i}": i for i in range(12)}


@pytest.mark.parametrize("kind", ["sequence", "empty sequence", "optional", "garbage", "no bytes", "short"])
def test_what_is_no_tensor_is_refused(tmp_path: Path, kind: str) -> None:
    one = write_set(tmp_path / "set", row(1))
    tensor = numpy_helper.from_array(row(1))
    short = helper.make_tensor("t", TensorProto.FLOAT, [1, 3], row(1).tobytes(), raw=True)
    short.dims[0] = 10**15
    content = {
        "sequence": numpy_helper.from_list([row(1), row(2)], "s").SerializeToString(),
        "empty sequence": onnx.SequenceProto(elem_type=onnx.SequenceProto.TENSOR).SerializeToString(),
        "optional": onnx.OptionalProto(
            name="o", elem_type=onnx.OptionalProto.TENSOR, tensor_value=tensor
        ).SerializeToString(),
        "garbage": b"\xff\xff\xff nothing",
        "no bytes": b"",
        "short": short.SerializeToString(),
    }[kind]
    (one / "input_0.pb").write_bytes(content)
    error = refused(one)
    assert "input_0.pb" in error.message
    assert "does not hold a tensor" in error.message


def test_external_data_is_refused(tmp_path: Path) -> None:
    one = write_set(tmp_path / "set", row(1))
    tensor = TensorProto(data_type=TensorProto.FLOAT, dims=[3], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../secret")
    (one / "input_0.pb").write_bytes(tensor.SerializeToString())
    (tmp_path / "secret").write_bytes(bytes(12))
    assert "external data is refused" in refused(one).message


# ---------------------------------------------------------------- paths that fit nothing


def test_missing_path(tmp_path: Path) -> None:
    error = refused(tmp_path / "nowhere")
    assert "nowhere" in error.message
    assert "no such file" in error.message


def test_folder_without_data_says_what_it_holds_and_what_is_usable(tmp_path: Path) -> None:
    for name in ("a.tif", "b.tif", "c.txt", ".hidden.npz"):
        (tmp_path / name).touch()
    (tmp_path / "sub").mkdir()
    error = refused(tmp_path)
    assert "2 .tif files" in error.message
    assert "1 .txt file" in error.message
    assert "1 folder" in error.message
    for name in SOURCES.names():
        assert SOURCES.get(name).description in error.hint


def test_empty_folder(tmp_path: Path) -> None:
    assert "nothing" in refused(tmp_path).message


def test_mixed_folder(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=row(1))
    np.save(tmp_path / "labels.npy", row(1))
    error = refused(tmp_path)
    assert "npy_folder and npz_folder" in error.message
    assert "1 .npz file" in error.message


def test_unknown_suffix(tmp_path: Path) -> None:
    (tmp_path / "calib.parquet").touch()
    error = refused(tmp_path / "calib.parquet")
    assert "'.parquet'" in error.message
    assert ".npz" in error.hint


@pytest.mark.parametrize("name", ["a.npy", ""])
def test_npy_needs_a_single_input(tmp_path: Path, name: str) -> None:
    np.save(tmp_path / "a.npy", row(1))
    error = refused(tmp_path / name, X, Y)
    assert "2 inputs: 'x', 'y'" in error.message


def test_models_that_cannot_be_fed(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=row(1))
    error = refused(tmp_path, X, SEQUENCE)
    assert "input 's' is seq(tensor(float)): only tensors can be fed" in error.message
    with pytest.raises(DataError, match="no inputs"):
        open_source(tmp_path, ())


# ---------------------------------------------------------------- damaged files


def test_a_folder_reads_only_the_sample_asked_for(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=row(1))
    (tmp_path / "b.npz").write_bytes(b"broken")
    source = open_source(tmp_path, (X,))
    assert len(source) == 2
    np.testing.assert_array_equal(source[0].arrays["x"], row(1))
    with pytest.raises(DataError, match=r"b\.npz is not a sound \.npz file"):
        source[1]


@pytest.mark.parametrize("stacked", [True, False])
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_objects_are_refused_and_nothing_is_unpickled(tmp_path: Path, suffix: str, stacked: bool) -> None:
    ran = tmp_path / "ran"

    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (ran,))

    folder = tmp_path / "data"
    folder.mkdir()
    file = folder / f"evil{suffix}"
    array = np.array([Bomb()], dtype=object)
    if suffix == ".npy":
        np.save(file, array, allow_pickle=True)
    else:
        np.savez(file, x=array)
    error = refused(file if stacked else folder)
    assert "pickled arrays are refused" in error.message
    assert f"evil{suffix}" in error.message
    file.write_bytes(pickle.dumps(Bomb()))
    assert "not a sound" in refused(file if stacked else folder).message
    assert not ran.exists()


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_truncated_at_every_length(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"a{suffix}"
    if suffix == ".npy":
        np.save(file, row(1))
    else:
        np.savez_compressed(file, x=row(1))
    whole = file.read_bytes()
    for length in range(0, len(whole), 3):
        file.write_bytes(whole[:length])
        assert str(file) in refused(file).message
        assert str(file) in refused(tmp_path).message


@pytest.mark.parametrize("shape", [(2**40, 3), (-1, 3), (2**62, 2**62)])
def test_declared_sizes_are_checked_before_allocating(tmp_path: Path, shape: tuple[int, ...]) -> None:
    content = header(shape) + bytes(12)
    (tmp_path / "a.npy").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", content)
    for name in ("a.npy", "a.npz"):
        error = refused(tmp_path / name)
        assert name in error.message
        assert "truncated" in error.message or "impossible" in error.message


def test_a_zip_that_lies_about_its_size_does_not_allocate(tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", header((2**29, 1)) + bytes(16))
    content = bytearray(file.read_bytes())
    at = content.index(b"PK\x01\x02")
    content[at + 24 : at + 28] = struct.pack("<I", 2**32 - 2)
    file.write_bytes(content)
    assert "truncated" in refused(file).message


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    np.savez(file, x=row(1))
    content = bytearray(file.read_bytes())
    content[content.index(row(1).tobytes())] ^= 1
    file.write_bytes(content)
    assert "CRC" in refused(file).message


# ---------------------------------------------------------------- stacks


def stack(tmp_path: Path, interface: tuple[IOSpec, ...], **arrays: np.ndarray) -> Source:
    np.savez(tmp_path / "calib.npz", **arrays)
    return open_source(tmp_path / "calib.npz", interface)


def test_rank_above_the_models_gives_elements(tmp_path: Path) -> None:
    source = stack(tmp_path, (X,), x=np.zeros((5, 2, 3), np.float32))
    assert len(source) == 5
    assert source[0].arrays["x"].shape == (2, 3)


def test_fixed_batch_gives_chunks_and_reports_the_rest(tmp_path: Path) -> None:
    fixed = IOSpec(name="x", dtype="float32", shape=(4, 3))
    loose = IOSpec(name="z", dtype="float32", shape=("b", 2))
    scalar = IOSpec(name="y", dtype="int64", shape=())
    x = np.arange(30, dtype=np.float32).reshape(10, 3)
    source = stack(tmp_path, (fixed, loose, scalar), x=x, z=x[:, :2], y=np.array([7, 8]))
    assert len(source) == 2
    np.testing.assert_array_equal(source[1].arrays["x"], x[4:8])
    np.testing.assert_array_equal(source[1].arrays["z"], x[4:8, :2])
    assert source[1].arrays["y"] == 8
    assert [w for w in source.warnings if "last 2 of 10 rows of 'x'" in w]


def test_fewer_rows_than_the_batch(tmp_path: Path) -> None:
    spec = IOSpec(name="x", dtype="float32", shape=(4, 3))
    with pytest.raises(DataError, match=r"calib\.npz: array 'x' has 3 rows, .*'x' is 4"):
        stack(tmp_path, (spec,), x=np.zeros((3, 3), np.float32))


def test_arrays_must_agree_on_the_number_of_samples(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"calib\.npz.*disagree.*'x' 4.*'y' 5"):
        stack(tmp_path, (X, Y), x=np.zeros((4, 3), np.float32), y=np.arange(5))


def test_arrays_that_feed_nothing_need_not_agree(tmp_path: Path) -> None:
    source = stack(tmp_path, (X,), x=np.zeros((4, 3), np.float32), labels=np.arange(9))
    assert len(source) == 4
    assert "labels" in source[0].arrays


@pytest.mark.parametrize("shape", [(), (3,), (2, 2, 2, 3)])
def test_stacked_rank_that_cannot_fit(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"'x' for input 'x' has shape .*rank 2 or 3"):
        stack(tmp_path, (X,), x=np.zeros(shape, np.float32))

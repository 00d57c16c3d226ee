"""Feeds: names, ranks, shapes, types and values against the model's inputs; views and the split."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from qconvert.calibrate.feeds import FeedSet, feeds, split
from qconvert.calibrate.source import Items, Sample, open_source
from qconvert.errors import DataError
from qconvert.graph.session import IOSpec


def spec(shape: tuple[int | str | None, ...], dtype: str = "float32", name: str = "image") -> IOSpec:
    return IOSpec(name=name, dtype=dtype, shape=shape)


IMAGE = spec(("batch", 3, 8, 8))


class Fake:
    """A source over samples in memory that counts accesses."""

    def __init__(self, *arrays: Mapping[str, np.ndarray], stacked: bool = False) -> None:
        self.name, self.warnings = "calib", ()
        self.seen: list[int] = []
        self._arrays, self._stacked = arrays, stacked

    def __len__(self) -> int:
        return len(self._arrays)

    def __getitem__(self, index: int) -> Sample:
        self.seen.append(index)
        return Sample(arrays=self._arrays[index], origin=f"calib/{index}.npz", stacked=self._stacked)


def one(interface: IOSpec | tuple[IOSpec, ...], **arrays: np.ndarray) -> dict[str, np.ndarray]:
    return feeds(Fake(arrays), interface if isinstance(interface, tuple) else (interface,)).feed(0)


def refused(interface: IOSpec | tuple[IOSpec, ...], **arrays: np.ndarray) -> DataError:
    with pytest.raises(DataError) as caught:
        one(interface, **arrays)
    assert "calib/0.npz" in caught.value.message
    assert caught.value.hint
    return caught.value


def numbered(count: int) -> FeedSet:
    return feeds(Fake(*({"x": np.array(i, np.int64)} for i in range(count))), (spec((), "int64", "x"),))


# ---------------------------------------------------------------- names


def test_a_single_array_feeds_a_single_input_under_any_name() -> None:
    assert list(one(IMAGE, arr_0=np.zeros((1, 3, 8, 8), np.float32))) == ["image"]


def test_feeds_come_in_the_models_order_and_extras_are_reported_once() -> None:
    source = Fake(*({"b": np.zeros(1), "c": np.zeros(1), "a": np.zeros(1)} for _ in range(3)))
    made = feeds(source, (spec((1,), name="a"), spec((1,), name="b")))
    assert [list(feed) for feed in made] == [["a", "b"]] * 3
    assert len(made.warnings) == 1
    assert "'c'" in made.warnings[0]
    assert made.take([0]).warnings == made.warnings


def test_missing_input_names_what_is_there_and_the_nearest() -> None:
    error = refused((IMAGE, spec((1,), name="mask")), imag=np.zeros((1, 3, 8, 8)), mask=np.zeros(1))
    assert "no array for input 'image'" in error.message
    assert "'imag', 'mask'" in error.message
    assert "is 'imag' meant?" in error.hint


def test_a_later_sample_is_checked_when_reached() -> None:
    made = feeds(Fake({"image": np.zeros((3, 8, 8))}, {"image": np.zeros((3, 8, 9))}), (IMAGE,))
    made.feed(0)
    with pytest.raises(DataError, match=r"calib/1\.npz: input 'image' expects \[batch, 3, 8, 8\], came \[3, 8, 9\]"):
        made.feed(1)


def test_models_that_cannot_be_fed_and_empty_sources() -> None:
    with pytest.raises(DataError, match=r"input 's' is seq\(tensor\(float\)\): only tensors can be fed"):
        feeds(Fake({"s": np.zeros(1)}), (spec((), "seq(tensor(float))", "s"),))
    with pytest.raises(DataError, match="calib holds no samples"):
        feeds(Fake(), (IMAGE,))


def test_an_empty_stack_is_an_empty_source(tmp_path: Path) -> None:
    np.save(tmp_path / "calib.npy", np.zeros((0, 3, 8, 8), np.float32))
    with pytest.raises(DataError, match=r"calib\.npy holds no samples"):
        feeds(open_source(tmp_path / "calib.npy", (IMAGE,)), (IMAGE,))


# ---------------------------------------------------------------- ranks and shapes


@pytest.mark.parametrize(
    ("wanted", "came", "fed"),
    [
        (("n", 3), (1, 3), (1, 3)),
        (("n", 3), (5, 3), (5, 3)),
        (("n", 3), (3,), (1, 3)),
        ((None, None), (7,), (1, 7)),
        (("n",), (), (1,)),
        ((), (), ()),
        ((), (2, 3), (2, 3)),
        (("n", "s", "s"), (1, 2, 3), (1, 2, 3)),
    ],
)
def test_batch_axis_by_rank(wanted: tuple[int | str | None, ...], came: tuple[int, ...], fed: tuple[int, ...]) -> None:
    assert one(spec(wanted), image=np.zeros(came, np.float32))["image"].shape == fed


@pytest.mark.parametrize("came", [(8, 8), (2, 1, 3, 8, 8), (1, 3, 8, 9), (3, 9, 8)])
def test_shapes_that_do_not_fit(came: tuple[int, ...]) -> None:
    error = refused(IMAGE, image=np.zeros(came, np.float32))
    assert f"input 'image' expects [batch, 3, 8, 8], came {list(came)}" in error.message


@pytest.mark.parametrize("came", [(1, 8, 8, 3), (8, 8, 3)])
def test_transposed_images_are_recognised(came: tuple[int, ...]) -> None:
    error = refused(IMAGE, image=np.zeros(came, np.float32))
    assert "transposed" in error.hint
    assert "(0, 3, 1, 2)" in error.hint
    assert "channels last" in error.hint


def test_a_stack_given_as_a_folder_is_recognised() -> None:
    assert "rows of one file" in refused(IMAGE, image=np.zeros((9, 1, 3, 8, 8), np.float32)).hint
    assert "rows of one file" in refused(spec((1, 3, 8, 8)), image=np.zeros((9, 3, 8, 8), np.float32)).hint


def test_unknown_dimensions_print_as_question_marks() -> None:
    assert "[?, n, 3]" in refused(spec((None, "n", 3)), image=np.zeros((1, 1, 4), np.float32)).message


# ---------------------------------------------------------------- types


@pytest.mark.parametrize(
    ("came", "wanted"),
    [
        *((t, t) for t in ("float32", "float64", "float16", "bool", "int8", "uint8", "int16", "int64", "uint64")),
        ("float64", "float32"),
        ("float16", "float32"),
        (">f4", "float32"),
        (">f8", "float32"),
        (">i8", "int64"),
        ("int8", "int64"),
        ("uint8", "int16"),
        ("int64", "int32"),
        ("uint64", "int64"),
        (ml_dtypes.bfloat16, "bfloat16"),
        (ml_dtypes.bfloat16, "float32"),
    ],
)
def test_types_that_are_accepted(came: object, wanted: str) -> None:
    values = np.array([0, 1, 1], dtype=came)
    fed = one(spec((3,), wanted), image=values)["image"]
    assert fed.dtype.name == wanted
    assert fed.dtype.isnative
    assert fed.tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("came", "wanted", "hint"),
    [
        ("uint8", "float32", "convert and normalise the data as the model expects"),
        ("int64", "float16", "normalise"),
        ("bool", "float32", "normalise"),
        ("float32", "int64", "integers"),
        ("float32", "uint8", "integers"),
        ("float32", "float64", "float64"),
        ("float32", "float16", "float16"),
        ("float64", "float16", "float16"),
        ("float32", "bfloat16", "bfloat16"),
        ("bool", "int64", "int64"),
        ("int64", "bool", "bool"),
        ("int8", "uint8", "uint8"),
        ("int64", "uint8", "uint8"),
        ("complex64", "float32", "float32"),
        ("float32", "str", "str"),
        ("U3", "float32", "float32"),
    ],
)
def test_types_that_are_refused(came: str, wanted: str, hint: str) -> None:
    error = refused(spec((3,), wanted), image=np.zeros(3, came))
    assert f"input 'image' expects {wanted}, came {np.dtype(came).name}" in error.message
    assert hint in error.hint


def test_integers_that_do_not_fit() -> None:
    assert "expects int32, came int64" in refused(spec((1,), "int32"), image=np.array([2**31])).message
    assert "expects int32, came int64" in refused(spec((1,), "int32"), image=np.array([-(2**31) - 1])).message
    assert "expects int64" in refused(spec((1,), "int64"), image=np.array([2**63], np.uint64)).message
    assert one(spec((1,), "int32"), image=np.array([-(2**31)]))["image"].tolist() == [-(2**31)]
    assert one(spec((0,), "int32"), image=np.zeros(0, np.int64))["image"].size == 0


def test_strings() -> None:
    for array in (np.array(["a", "bc"]), np.array(["a", "bc"], dtype=object)):
        assert one(spec((2,), "str"), image=array)["image"].tolist() == ["a", "bc"]
    refused(spec((2,), "str"), image=np.array(["a", b"b"], dtype=object))


def test_arrays_are_native_aligned_and_contiguous() -> None:
    data = np.frombuffer(b"\0" + np.arange(6, dtype="<f4").tobytes(), dtype="<f4", offset=1).reshape(3, 2)
    for array in (data, data.T[::-1].T, np.asfortranarray(data), data.astype(">f4")):
        fed = one(spec((3, 2)), image=array)["image"]
        np.testing.assert_array_equal(fed, array)
        assert fed.flags.c_contiguous
        assert fed.flags.aligned
        assert fed.dtype.isnative


# ---------------------------------------------------------------- values


def test_nan_and_inf_are_counted_and_can_be_allowed() -> None:
    array = np.array([0, np.nan, np.inf, -np.inf], np.float32)
    assert "input 'image' has 3 NaN or Inf among 4 values" in refused(spec((4,)), image=array).message
    assert "has 3" in refused(spec((4,), "float16"), image=array.astype(np.float16)).message
    kept = feeds(Fake({"image": array}), (spec((4,)),), allow_nonfinite=True).feed(0)["image"]
    assert np.isnan(kept[1])


def test_doubles_beyond_float32_are_reported() -> None:
    assert "has 1 NaN or Inf" in refused(spec((1,)), image=np.array([1e300])).message


# ---------------------------------------------------------------- views


def test_only_what_is_asked_for_is_read() -> None:
    source = Fake(*({"x": np.array(i, np.int64)} for i in range(20)))
    made = feeds(source, (spec((), "int64", "x"),))
    calibration, held_out = split(made)
    assert source.seen == [0]
    held_out.feed(1)
    assert source.seen == [0, held_out.indices[1]]
    assert len(calibration) == 18


def test_take_of_take() -> None:
    view = numbered(10).take([5, 3, 1]).take([2, 0])
    assert [int(feed["x"]) for feed in view] == [1, 5]
    with pytest.raises(IndexError):
        view.feed(2)


@given(total=st.integers(1, 400), holdout=st.none() | st.integers(0, 400))
def test_split_is_a_partition(total: int, holdout: int | None) -> None:
    whole = numbered(total)
    if holdout is not None and holdout >= total:
        with pytest.raises(DataError, match=f"cannot hold out {holdout} of {total}"):
            split(whole, holdout)
        return
    calibration, held_out = split(whole, holdout)
    assert sorted([*calibration.indices, *held_out.indices]) == list(range(total))
    assert list(calibration.indices) == sorted(calibration.indices)
    if total < 4:
        assert len(held_out) == 0
    else:
        assert len(held_out) == (min(32, max(1, total // 8)) if holdout is None else holdout)
        if held_out.indices:  # as far from the front as from the back
            assert abs(held_out.indices[0] - (total - 1 - held_out.indices[-1])) <= 1
        gaps = np.diff(np.asarray(held_out.indices))
        assert gaps.size == 0 or gaps.max() - gaps.min() <= 1
    assert split(whole, holdout)[1].indices == held_out.indices


def test_negative_holdout() -> None:
    with pytest.raises(DataError, match="-1"):
        split(numbered(8), -1)


# ---------------------------------------------------------------- stacked against folders


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=hnp.arrays(np.float32, st.tuples(st.integers(1, 6), st.integers(1, 4)), elements=st.floats(-9, 9, width=32))
)
def test_stacked_and_folder_give_identical_feeds(tmp_path_factory: pytest.TempPathFactory, data: np.ndarray) -> None:
    root = tmp_path_factory.mktemp("data")
    interface = (spec(("n", data.shape[1]), name="x"), spec((), "int64", "k"))
    counts = np.arange(len(data))
    np.savez(root / "calib.npz", x=data, k=counts)
    (root / "folder").mkdir()
    for i, values in enumerate(data):
        np.savez(root / "folder" / f"{i}.npz", x=values, k=counts[i])
    stacked = list(feeds(open_source(root / "calib.npz", interface), interface))
    folder = list(feeds(open_source(root / "folder", interface), interface))
    assert len(stacked) == len(folder) == len(data)
    for a, b in zip(stacked, folder, strict=True):
        assert list(a) == list(b)
        for name in a:
            np.testing.assert_array_equal(a[name], b[name], strict=True)


def test_warnings_of_the_source_reach_the_feeds(tmp_path: Path) -> None:
    fixed = (spec((2, 3), name="x"),)
    np.savez(tmp_path / "calib.npz", x=np.zeros((5, 3), np.float32), y=np.zeros(1))
    made = feeds(open_source(tmp_path / "calib.npz", fixed), fixed)
    assert len(made) == 2
    assert "last 1 of 5 rows" in made.warnings[0]
    assert "'y'" in made.warnings[1]


def test_stacked_shape_errors_name_the_row(tmp_path: Path) -> None:
    np.save(tmp_path / "calib.npy", np.zeros((4, 8, 8, 3), np.float32))
    with pytest.raises(DataError, match=r"calib\.npy\[0\]: input 'image' expects") as caught:
        feeds(open_source(tmp_path / "calib.npy", (IMAGE,)), (IMAGE,))
    assert "(0, 3, 1, 2)" in caught.value.hint


def test_a_broken_file_does_not_spoil_the_others(tmp_path: Path) -> None:
    np.savez(tmp_path / "0.npz", x=np.zeros(3))
    (tmp_path / "1.npz").write_bytes(b"PK broken")
    np.savez(tmp_path / "2.npz", x=np.ones(3))
    interface = (spec(("n", 3), name="x"),)
    source = open_source(tmp_path, interface)
    assert isinstance(source, Items)
    made = feeds(source, interface)
    assert made.feed(2)["x"].tolist() == [[1, 1, 1]]
    with pytest.raises(DataError, match=r"1\.npz"):
        made.feed(1)

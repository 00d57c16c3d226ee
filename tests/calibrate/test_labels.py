"""Labels: the files they may come from, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qconvert.calibrate.labels import load_labels
from qconvert.errors import DataError


def refused(path: Path) -> DataError:
    with pytest.raises(DataError) as caught:
        load_labels(path)
    assert path.name in caught.value.message
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize(
    "array", [np.arange(5), np.eye(3, dtype=">f8"), np.zeros((2, 3, 4), np.uint8), np.ones(2, bool)]
)
def test_npy_and_npz(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "a.npz", anything=array)
    for name in ("a.npy", "a.npz"):
        labels = load_labels(str(tmp_path / name))
        np.testing.assert_array_equal(labels, array)
        assert labels.dtype.isnative


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("1\n2\n3\n", [1, 2, 3]),
        ("\ufeff1\r\n\r\n2", [1, 2]),
        ("# classes\n1 # cat\n2", [1, 2]),
        ("label\n4\n5", [4, 5]),
        ("0.5\n1", [0.5, 1.0]),
        ("1,2\n3,4", [[1, 2], [3, 4]]),
        ("score; rank\n1; 2\n3;4", [[1, 2], [3, 4]]),
        ("1 2\t3", [[1, 2, 3]]),
        ("-1\n1e3", [-1.0, 1000.0]),
    ],
)
@pytest.mark.parametrize("suffix", [".txt", ".csv"])
def test_text(tmp_path: Path, text: str, wanted: list[object], suffix: str) -> None:
    file = tmp_path / f"labels{suffix}"
    file.write_text(text, encoding="utf-8")
    labels = load_labels(file)
    np.testing.assert_array_equal(labels, np.array(wanted), strict=True)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no list of labels"),
        ("# nothing\nlabel\n", "no list of labels"),
        ("1\ncat\n", "line 2: 'cat'"),
        ("1,2\n3\n", "line 2: 1 numbers, the lines before have 2"),
        ("1\nnan\n", "1 NaN or Inf"),
        ("1\n99999999999999999999\n", "beyond 64 bits"),
        ("1,x\n", "line 1"),
    ],
)
def test_text_that_is_refused(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "labels.csv"
    file.write_text(text)
    assert says in refused(file).message


def test_files_that_are_refused(tmp_path: Path) -> None:
    assert "no file of labels" in refused(tmp_path / "none.npy").message
    np.savez(tmp_path / "two.npz", a=np.arange(2), b=np.arange(2))
    assert "holds 2: 'a', 'b'" in refused(tmp_path / "two.npz").message
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    assert "pickled arrays are refused" in refused(tmp_path / "objects.npy").message
    np.save(tmp_path / "names.npy", np.array(["cat"]))
    assert "must be numbers" in refused(tmp_path / "names.npy").message
    np.save(tmp_path / "empty.npy", np.zeros((0, 2)))
    assert "[0, 2]" in refused(tmp_path / "empty.npy").message
    np.save(tmp_path / "scalar.npy", np.array(3))
    assert "no list" in refused(tmp_path / "scalar.npy").message
    np.save(tmp_path / "nan.npy", np.array([1, np.nan]))
    assert "1 NaN or Inf" in refused(tmp_path / "nan.npy").message
    (tmp_path / "broken.npz").write_bytes(b"PK")
    assert "not a sound .npz" in refused(tmp_path / "broken.npz").message
    (tmp_path / "labels.json").write_text("[1]")
    assert "'.json'" in refused(tmp_path / "labels.json").message
    (tmp_path / "latin.txt").write_bytes(b"\xff\xfe\xfa")
    assert "as text" in refused(tmp_path / "latin.txt").message

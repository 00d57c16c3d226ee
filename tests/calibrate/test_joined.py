"""A source for each input."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from calibrate.sets import FLOATS, IDS, MASK, PIXELS, X, folder, opened, refused
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from qconvert.calibrate.data import DataSpec
from qconvert.errors import QConvertError
from qconvert.graph.session import IOSpec


def tokens(place: Path, count: int = 5, name: str = "ids.npy") -> Path:
    np.save(place / name, np.arange(count * 4).reshape(count, 4))
    return place / name


def test_each_input_from_a_source_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "mask.csv").write_text("1,1,1,0\n" * 5)
    made = opened(f"mask={tmp_path / 'mask.csv'}", f"ids={tokens(tmp_path)}", interface=(IDS, MASK))
    assert len(made) == 5
    assert {n: a.tolist() for n, a in made.feed(1).items()} == {"ids": [[4, 5, 6, 7]], "mask": [[1, 1, 1, 0]]}
    assert made.source.name == f"ids={tmp_path / 'ids.npy'}, mask={tmp_path / 'mask.csv'}"
    line = made.listing()[1]
    assert line.startswith("ids=ids.npy ")
    assert "; mask=mask.csv " in line


def test_all_kinds_can_feed_one_input(tmp_path: Path) -> None:
    (tmp_path / "set" / "a").mkdir(parents=True)
    for i in range(3):
        Image.fromarray(PIXELS[i]).save(tmp_path / "set" / "a" / f"{i}.png")
    image = IOSpec(name="image", dtype="uint8", shape=("n", 8, 8, 3))
    FLOATS[:3].tofile(tmp_path / "x.bin")
    x = IOSpec(name="x", dtype="float32", shape=("n", 8, 8, 3))
    made = opened(f"x={tmp_path / 'x.bin'}:float32", f"image={tmp_path / 'set'}", interface=(image, x))
    np.testing.assert_array_equal(made.feed(2)["x"][0], FLOATS[2])
    np.testing.assert_array_equal(made.feed(2)["image"][0], PIXELS[2])
    assert made.labels is not None
    assert made.labels.tolist() == [0, 0, 0]
    noise = opened("x=random:3", f"image={tmp_path / 'set'}", interface=(image, x))
    assert "random data" in " ".join(noise.warnings)


def test_a_file_with_all_inputs_can_feed_one(tmp_path: Path) -> None:
    np.savez(tmp_path / "all.npz", ids=np.ones((5, 4), int), mask=np.zeros((5, 4), int))
    made = opened(f"ids={tokens(tmp_path)}", f"mask={tmp_path / 'all.npz'}", interface=(IDS, MASK))
    assert made.feed(1)["mask"].tolist() == [[0] * 4]


def test_a_single_input_may_be_named_too(tmp_path: Path) -> None:
    assert len(opened(f"x={folder(tmp_path / 'set', 3)}")) == 3


def test_paths_with_an_equals_sign_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "x=set", 3)
    folder(tmp_path / "set", 5)
    assert len(opened("x=set")) == 3
    shutil.rmtree(tmp_path / "x=set")
    assert len(opened("x=set")) == 5
    folder(tmp_path / "lr=0.1", 4)
    assert len(opened(tmp_path / "lr=0.1")) == 4
    assert len(opened(f"x={tmp_path / 'lr=0.1'}")) == 4


def test_paths_with_colons(tmp_path: Path) -> None:
    assert len(opened(folder(tmp_path / "a:b:float32", 3))) == 3
    (tmp_path / "a:b.bin").write_bytes(bytes(24))
    assert len(opened(f"{tmp_path / 'a:b.bin'}:float32:3")) == 2


def test_counts_must_agree(tmp_path: Path) -> None:
    error = refused(f"ids={tokens(tmp_path)}", f"mask={tokens(tmp_path, 4, 'mask.npy')}")
    assert "'ids' 5, 'mask' 4" in error.message


@pytest.mark.parametrize(
    ("sources", "says", "hint"),
    [
        (("ids={0}",), "no data were given for input 'mask'", "mask=PATH"),
        (("ids={0}", "ids={0}"), "two sources feed input 'ids'", ""),
        (("idz={0}", "mask={0}"), "the model has no input 'idz'", "is 'ids' meant?"),
        (("idz={0}",), "the model has no input 'idz'", "is 'ids' meant?"),
        (("{0}", "{0}"), "does not say which input it feeds", "'ids', 'mask'"),
        (("ids={0}", "nowhere.npy"), "nowhere.npy does not say which input", ""),
        (("ids={0}", "mask=nowhere.npy"), "there is no data at nowhere.npy", "check the path; it is looked for in /"),
        (("ids={0}", "mask="), "an empty path was given", ""),
        (("ramdom:20",), "there is no data at ramdom:20", "\n  - random:N, N random samples"),
        ((), "no data were given", "random:20"),
        (("",), "an empty path was given", ""),
        (("\0",), "there is no data", ""),
        (("a" * 5000,), "cannot be read", ""),
        (("ids=" + "a" * 5000, "mask={0}"), "cannot be read", ""),
    ],
)
def test_sources_that_do_not_go_together(tmp_path: Path, sources: tuple[str, ...], says: str, hint: str) -> None:
    file = tokens(tmp_path)
    error = refused(*(source.replace("{0}", str(file)) for source in sources))
    assert says in error.message
    assert hint in error.hint


def test_what_may_not_follow_a_path(tmp_path: Path) -> None:
    error = refused(f"{folder(tmp_path / 'set', 3)}:float32", interface=(X,))
    assert "nothing may follow the path" in error.message


@given(st.lists(st.text(max_size=12), max_size=3))
def test_any_words_are_data_or_an_error_of_the_user(words: list[str]) -> None:
    try:
        opened(*words)
    except QConvertError as error:
        assert error.exit_code == 2
        assert error.message


def test_the_paths_that_a_run_may_not_replace(tmp_path: Path) -> None:
    ids, data = tokens(tmp_path), folder(tmp_path / "lr=0.1", 1)
    texts = (
        f"ids={ids}",
        f"{ids}:int64:4",
        str(data),
        f"x={data}",
        "random:3",
        "python:a:b",
        "nowhere",
        "a" * 5000,
        "",
    )
    assert DataSpec(sources=texts).paths == (ids, ids, data, data)

"""A data set as the user describes it: subsets, a source for each input, bad samples, listings; every format alike."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from calibrate.sets import FLOATS, PIXELS, folder, numbers, opened
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper
from PIL import Image
from safetensors.numpy import save_file

from qconvert.calibrate.data import DataSpec, spread
from qconvert.calibrate.feeds import split
from qconvert.errors import DataError, RecipeError
from qconvert.graph.session import IOSpec

# ---------------------------------------------------------------- the same numbers


def npz_folder(place: Path, data: np.ndarray) -> str:
    for i, sample in enumerate(data):
        np.savez(place / f"{i}.npz", image=sample)
    return str(place)


def npy_folder(place: Path, data: np.ndarray) -> str:
    for i, sample in enumerate(data):
        np.save(place / f"{i}.npy", sample)
    return str(place)


def stacked_npz(place: Path, data: np.ndarray) -> str:
    np.savez(place / "a.npz", image=data)
    return str(place / "a.npz")


def stacked_npy(place: Path, data: np.ndarray) -> str:
    np.save(place / "a.npy", data)
    return str(place / "a.npy")


def test_data_sets(place: Path, data: np.ndarray) -> str:
    for i, sample in enumerate(data):
        (place / f"test_data_set_{i}").mkdir()
        onnx.save_tensor(numpy_helper.from_array(sample[None]), place / f"test_data_set_{i}" / "input_0.pb")
    return str(place)


test_data_sets.__test__ = False  # type: ignore[attr-defined]


def images(place: Path, data: np.ndarray) -> str:
    for i, sample in enumerate(data):
        Image.fromarray(sample).save(place / f"{i}.png")
    return str(place)


def csv(place: Path, data: np.ndarray) -> str:
    rows = [",".join(str(value) for value in sample.ravel()) for sample in data]
    (place / "a.csv").write_text("\n".join(rows))
    return str(place / "a.csv")


def jsonl(place: Path, data: np.ndarray) -> str:
    lines = [json.dumps({"image": sample.tolist()}) for sample in data]
    (place / "a.jsonl").write_text("\n".join(lines))
    return str(place / "a.jsonl")


def safetensors(place: Path, data: np.ndarray) -> str:
    save_file({"image": data}, place / "a.safetensors")
    return str(place / "a.safetensors")


def raw(place: Path, data: np.ndarray) -> str:
    data.tofile(place / "a.bin")
    return f"{place / 'a.bin'}:{data.dtype.name}:8x8x3"


def function(place: Path, data: np.ndarray) -> str:
    np.save(place / "data.npy", data)
    code = f"import numpy as np\ndef samples():\n    yield from np.load({str(place / 'data.npy')!r})\n"
    (place / f"module_{data.dtype.name}.py").write_text(code)
    return f"python:module_{data.dtype.name}:samples"


FORMS = (
    npz_folder,
    npy_folder,
    stacked_npz,
    stacked_npy,
    test_data_sets,
    images,
    csv,
    jsonl,
    safetensors,
    raw,
    function,
)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("data", [PIXELS, FLOATS], ids=["uint8", "float32"])
def test_the_same_numbers_give_the_same_feeds_in_every_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: Callable[[Path, np.ndarray], str], data: np.ndarray
) -> None:
    if form is images and data is FLOATS:
        data = PIXELS  # an image holds no floats: its pixels become those that the other formats are given here
    monkeypatch.chdir(tmp_path)
    image = IOSpec(name="image", dtype=data.dtype.name, shape=("n", 8, 8, 3))
    made = opened(form(tmp_path, data), interface=(image,))
    assert len(made) == 5
    for feed, sample in zip(made, data, strict=True):
        assert feed["image"].dtype == data.dtype
        assert feed["image"].tobytes() == sample[None].tobytes()


# ---------------------------------------------------------------- subsets


@given(total=st.integers(1, 3000), share=st.floats(0, 1), seed=st.integers(0, 2**32))
def test_a_subset_is_spread_over_the_whole_set(total: int, share: float, seed: int) -> None:
    count = max(1, round(total * share))
    chosen = spread(total, count, seed)
    assert len(chosen) == count
    assert all(k * total // count <= n < (k + 1) * total // count for k, n in enumerate(chosen))
    assert list(chosen) == sorted(set(chosen))
    assert chosen == spread(total, count, seed)


def test_samples(tmp_path: Path) -> None:
    data = folder(tmp_path / "set", 40)
    some = numbers(opened(data, samples=8))
    assert len(some) == 8
    assert some == numbers(opened(data, samples=8))
    assert some != numbers(opened(data, samples=8, seed=1))
    assert numbers(opened(data, samples=40)) == numbers(opened(data, samples=99)) == list(range(40))


def test_only_samples_of_the_subset_are_read(tmp_path: Path) -> None:
    data = folder(tmp_path / "set", 10)
    chosen = [int(n) for n in numbers(opened(data, samples=4))]
    for i in set(range(10)) - set(chosen):
        (data / f"{i}.npy").write_bytes(b"damaged")
    made = opened(data, samples=4)
    assert numbers(made) == chosen
    assert [line.split()[0] for line in made.listing()] == [f"{i}.npy" for i in chosen]


@pytest.mark.parametrize("wrong", [{"samples": 0}, {"samples": -1}, {"skip_bad": -1}, {"seed": -1}])
def test_counts_that_mean_nothing(wrong: dict[str, int]) -> None:
    with pytest.raises(RecipeError) as caught:
        DataSpec(sources=("a",), **wrong)  # type: ignore[arg-type]
    assert caught.value.hint


# ---------------------------------------------------------------- bad samples


def test_the_first_bad_sample_raises_and_names_the_option(tmp_path: Path) -> None:
    made = opened(folder(tmp_path / "set", 4, bad=(2,)))
    with pytest.raises(DataError, match=r"2\.npy.*NaN") as caught:
        list(made)
    assert "--skip-bad" in caught.value.hint


def test_bad_samples_are_passed_over_and_counted_once(tmp_path: Path) -> None:
    made = opened(folder(tmp_path / "set", 12, bad=(0, 5, 7)), skip_bad=3)
    assert len(made.skipped) == 1  # the first was read when the set was opened
    for _ in range(3):
        assert [number for number, _ in made.items()] == [1, 2, 3, 4, 6, 8, 9, 10, 11]
        assert numbers(made) == [1, 2, 3, 4, 6, 8, 9, 10, 11]
    assert [line.split("/")[-1].split(":")[0] for line in made.skipped] == ["0.npy", "5.npy", "7.npy"]
    assert all("NaN" in line and "\n" not in line for line in made.skipped)
    assert made.feed(0)["x"][0, 0] == 1
    assert made.feed(5)["x"][0, 0] == 6
    assert made.feed(6)["x"][0, 0] == 6
    assert len(made) == 12


def test_all_views_share_the_ledger(tmp_path: Path) -> None:
    made = opened(folder(tmp_path / "set", 16, bad=(1, 4)), skip_bad=2)
    kept, held = split(made)
    list(kept)
    list(held)
    assert len(made.skipped) == 2
    assert kept.skipped == held.skipped == made.skipped
    third = made.take([1, 1, 4, 2])
    assert [number for number, _ in third.items()] == [3]
    assert third.feed(0)["x"][0, 0] == 2
    assert len(made.skipped) == 2


def test_one_bad_sample_too_many(tmp_path: Path) -> None:
    made = opened(folder(tmp_path / "set", 9, bad=(2, 4, 6)), skip_bad=2)
    seen = []
    with pytest.raises(DataError) as caught:
        for number, _ in made.items():
            seen.append(number)
    assert seen == [0, 1, 3, 5]
    assert "6.npy" in caught.value.message
    assert "bad sample number 3" in caught.value.message
    assert "--skip-bad allows 2" in caught.value.message


def test_nothing_but_bad_samples(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no usable sample is left, 3 were bad"):
        opened(folder(tmp_path / "set", 3, bad=(0, 1, 2)), skip_bad=5)
    made = opened(folder(tmp_path / "other", 3, bad=(2,)), skip_bad=5)
    with pytest.raises(DataError, match=r"no usable sample is left, 1 were bad, the first: .*2\.npy"):
        made.feed(2)
    with pytest.raises(DataError, match="no usable sample"):
        list(made.take([2]))
    assert list(made.take([])) == []


def test_labels_belong_to_the_numbers_of_items(tmp_path: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / "set" / label).mkdir(parents=True)
        for i in range(3):
            Image.fromarray(PIXELS[i]).save(tmp_path / "set" / label / f"{i}.png")
    (tmp_path / "set" / "a" / "1.png").write_bytes(b"damaged")
    made = opened(tmp_path / "set", interface=(IOSpec(name="x", dtype="uint8", shape=("n", 8, 8, 3)),), skip_bad=1)
    assert made.labels is not None
    assert [int(made.labels[number]) for number, _ in made.items()] == [0, 0, 1, 1, 1]


# ---------------------------------------------------------------- listings


@pytest.mark.parametrize("form", FORMS)
def test_a_listing_is_of_the_content_and_not_of_the_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: Callable[[Path, np.ndarray], str]
) -> None:
    image = IOSpec(name="image", dtype="uint8", shape=("n", 8, 8, 3))
    listings = []
    for place, data in (("here", PIXELS), ("there/deeper", PIXELS), ("changed", PIXELS ^ np.uint8(1))):
        (tmp_path / place).mkdir(parents=True)
        monkeypatch.chdir(tmp_path / place)
        if form is function:
            monkeypatch.delitem(__import__("sys").modules, "module_uint8", raising=False)
        made = opened(form(tmp_path / place, data), interface=(image,))
        listings.append(made.listing())
        assert len(made.listing()) == 5
        assert made.take([3, 1]).listing() == (made.listing()[3], made.listing()[1])
        assert made.listing() == made.source.listing()
        assert not any(str(tmp_path) in line for line in made.listing())
    assert listings[0] == listings[1]
    assert not set(listings[0]) & set(listings[2])

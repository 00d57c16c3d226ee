"""Images: folders and labels, damaged and hostile files."""

from __future__ import annotations

import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from calibrate.pictures import BYTES, RGB, data, first, noise, refused, save, spec
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from qconvert.calibrate.data import DataSpec, open_data_set
from qconvert.calibrate.pixels import Pixels, pixels_for
from qconvert.calibrate.preprocess import Preprocess, Size, parse_preprocess
from qconvert.errors import DataError
from qconvert.graph.session import IOSpec

# ---------------------------------------------------------------- folders


def test_class_folders_are_labels(tmp_path: Path) -> None:
    for label, count in (("dog", 1), ("cat", 2), ("eel", 1)):
        save(tmp_path / "set" / label, *[noise()] * count)
    made = data(tmp_path / "set", RGB, "unit")
    assert made.labels is not None
    assert made.labels.tolist() == [0, 0, 1, 2]
    assert made.label_names == ("cat", "dog", "eel")
    view = made.take([3, 0])
    assert view.labels is not None
    assert view.labels.tolist() == [2, 0]
    assert [line.split()[0] for line in view.listing()] == ["eel/0.png", "cat/0.png"]


def test_a_folder_without_classes_has_no_labels(tmp_path: Path) -> None:
    made = data(save(tmp_path / "images", noise()), RGB, "unit")
    assert made.labels is None
    assert made.label_names is None


def test_an_empty_class_keeps_its_number(tmp_path: Path) -> None:
    save(tmp_path / "set" / "c", noise())
    save(tmp_path / "set" / "a", noise())
    (tmp_path / "set" / "b").mkdir()
    made = data(tmp_path / "set", RGB, "unit")
    assert made.labels is not None
    assert made.labels.tolist() == [0, 2]
    assert made.label_names == ("a", "b", "c")
    assert "no samples of 1 class: b" in made.warnings[0]


def test_numbered_classes_are_sorted_as_text_and_the_user_is_told(tmp_path: Path) -> None:
    for i in (0, 1, 2, 10):
        save(tmp_path / "set" / str(i), noise())
    made = data(tmp_path / "set", RGB, "unit")
    assert made.label_names == ("0", "1", "10", "2")
    assert "class 2 is folder '10' and not '2'" in made.warnings[0]


def test_files_beside_classes(tmp_path: Path) -> None:
    save(tmp_path / "set", noise(), noise())
    save(tmp_path / "set" / "cat", noise())
    error = refused(tmp_path / "set")
    assert "2 files and 1 sub-folder" in error.message


def test_text_beside_the_images_does_no_harm(tmp_path: Path) -> None:
    folder = save(tmp_path / "images", noise())
    (folder / "labels.txt").write_text("0\n")
    (folder / ".DS_Store").touch()
    assert len(data(folder, RGB, "unit")) == 1


def test_one_picture_is_one_sample(tmp_path: Path) -> None:
    folder = save(tmp_path / "images", noise())
    assert len(data(folder / "0.png", RGB, "unit")) == 1


def test_links_are_followed(tmp_path: Path) -> None:
    save(tmp_path / "elsewhere", noise())
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").symlink_to(tmp_path / "elsewhere" / "0.png")
    (tmp_path / "images" / "dangling.png").symlink_to(tmp_path / "nowhere.png")
    assert len(data(tmp_path / "images", RGB, "unit")) == 1


def test_a_fixed_batch_takes_several_pictures(tmp_path: Path) -> None:
    for label in ("a", "b"):
        save(tmp_path / "set" / label, *(noise(seed=i) for i in range(5)))
    made = data(tmp_path / "set", spec(4, 3, 16, 16), "raw")
    assert len(made) == 2
    np.testing.assert_array_equal(made.feed(0)["image"], [noise(seed=i).transpose(2, 0, 1) for i in range(4)])
    assert made.labels is not None
    assert made.labels.tolist() == [[0, 0, 0, 0], [0, 1, 1, 1]]
    assert "the last 2 of 10 rows" in made.warnings[0]
    with pytest.raises(DataError, match="10 rows, the model's batch is 11"):
        data(tmp_path / "set", spec(11, 3, 16, 16), "raw")


def test_a_model_with_several_inputs_is_told_how(tmp_path: Path) -> None:
    folder = save(tmp_path / "images", noise())
    mask = IOSpec(name="mask", dtype="float32", shape=("n",))
    with pytest.raises(DataError, match="images carry no names") as caught:
        open_data_set(DataSpec(sources=(str(folder),)), (RGB, mask))
    assert "input=path" in caught.value.hint


# ---------------------------------------------------------------- bad files


def test_a_corrupt_image_among_many(tmp_path: Path) -> None:
    folder = save(tmp_path / "images", *(noise(seed=i) for i in range(4)))
    whole = (folder / "2.png").read_bytes()
    (folder / "2.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"2\.png is no sound image") as caught:
        list(data(folder, RGB, "unit"))
    assert "--skip-bad" in caught.value.hint
    made = data(folder, RGB, "unit", skip_bad=1)
    assert [number for number, _ in made.items()] == [0, 1, 3]
    assert len(made.skipped) == 1
    assert "2.png" in made.skipped[0]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp"])
def test_truncated_images_never_pass_for_whole_ones(tmp_path: Path, suffix: str) -> None:
    folder = save(tmp_path / "images", noise(), suffix=suffix)
    file = folder / f"0{suffix}"
    whole = file.read_bytes()
    for length in [*range(0, min(len(whole) - 1, 64), 3), len(whole) // 2, len(whole) * 3 // 4]:
        file.write_bytes(whole[:length])
        assert file.name in refused(folder, BYTES).message


@settings(max_examples=60, deadline=None)
@given(at=st.integers(0, 10**6), flip=st.integers(1, 255), suffix=st.sampled_from([".png", ".jpg", ".webp"]))
def test_flipped_bytes_end_in_numbers_or_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, at: int, flip: int, suffix: str
) -> None:
    folder = save(tmp_path_factory.mktemp("images"), noise(), suffix=suffix)
    content = bytearray((folder / f"0{suffix}").read_bytes())
    content[at % len(content)] ^= flip
    (folder / f"0{suffix}").write_bytes(content)
    try:
        assert first(folder, BYTES).shape == (1, 3, 16, 16)
    except DataError as error:
        assert f"0{suffix}" in error.message


def png_of_size(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    pixels = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [10_000, 60_000])
def test_decompression_bombs_are_refused(tmp_path: Path, side: int) -> None:
    (tmp_path / "bomb.png").write_bytes(png_of_size(side, side))
    error = refused(tmp_path)
    assert "bomb.png is refused" in error.message
    assert "pixels" in error.message


def test_a_strip_does_not_become_a_bomb_by_resizing(tmp_path: Path) -> None:
    Image.new("RGB", (60_000, 1)).save(tmp_path / "strip.png")
    error = refused(tmp_path, spec("n", 3, 224, 224), "imagenet")
    assert "strip.png" in error.message
    assert "would be resized" in error.message


def test_other_formats_under_an_images_name_are_refused(tmp_path: Path) -> None:
    Image.fromarray(noise()).save(tmp_path / "a.gif")
    (tmp_path / "a.gif").rename(tmp_path / "a.png")
    assert "a.png is no sound image" in refused(tmp_path).message


def test_without_pillow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save(tmp_path / "images", noise())
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    error = refused(folder)
    assert "Pillow" in error.message
    assert "pip install 'qconvert[images]'" in error.hint


def test_the_summary_of_the_preprocessing_is_part_of_the_identity(tmp_path: Path) -> None:
    folder = save(tmp_path / "images", noise())
    assert data(folder, RGB, "unit").listing() != data(folder, RGB, "tf").listing()
    pixels: Pixels = pixels_for(Preprocess(scale=1.0), RGB)
    assert parse_preprocess(pixels.summary) == Preprocess(
        resize=Size(width=16, height=16), crop=Size(width=16, height=16), scale=1.0, layout="nchw", channels="rgb"
    )

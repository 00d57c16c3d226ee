"""Images: pixels to numbers against Pillow and formulae, and what the model's input decides."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from calibrate.pictures import BYTES, NHWC, RGB, data, first, noise, refused, save, spec
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from qconvert.calibrate.data import DataSpec, open_data_set
from qconvert.calibrate.pixels import pixels_for
from qconvert.calibrate.preprocess import PRESETS, Preprocess, Size

# ---------------------------------------------------------------- values


@pytest.mark.parametrize("suffix", [".png", ".bmp"])
def test_pixels_reach_a_uint8_model_as_they_are(tmp_path: Path, suffix: str) -> None:
    picture = noise()
    folder = save(tmp_path / "images", picture, suffix=suffix)
    np.testing.assert_array_equal(first(folder, BYTES)[0], picture.transpose(2, 0, 1))
    np.testing.assert_array_equal(first(folder, spec("n", 16, 16, 3, dtype="uint8"))[0], picture)


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".webp", ".JPG"])
def test_lossy_formats_are_decoded_as_pillow_does(tmp_path: Path, suffix: str) -> None:
    folder = save(tmp_path / "images", noise(), suffix=suffix)
    with Image.open(folder / f"0{suffix}") as opened:
        expected = np.asarray(opened.convert("RGB"))
    np.testing.assert_array_equal(first(folder, spec("n", 16, 16, 3, dtype="uint8"))[0], expected)


def test_unit_is_pixel_over_255_rounded_once() -> None:
    table = pixels_for(PRESETS["unit"], RGB).table
    for row in table:
        assert row.tolist() == [float(np.float32(p / 255)) for p in range(256)]
        assert row.tobytes() == (np.arange(256, dtype=np.float32) / np.float32(255)).tobytes()


@pytest.mark.parametrize(
    ("preset", "at_0", "at_255"),
    [
        ("unit", [0, 0, 0], [1, 1, 1]),
        ("tf", [-1, -1, -1], [1, 1, 1]),
        ("raw", [0, 0, 0], [255, 255, 255]),
        ("none", [0, 0, 0], [255, 255, 255]),
        ("caffe", [-103.939, -116.779, -123.68], [151.061, 138.221, 131.32]),
        ("imagenet", [-2.117904, -2.035714, -1.804444], [2.248908, 2.428571, 2.64]),
    ],
)
def test_presets(preset: str, at_0: list[float], at_255: list[float]) -> None:
    table = pixels_for(PRESETS[preset], RGB).table
    np.testing.assert_allclose(table[:, [0, 255]], np.stack([at_0, at_255], axis=1), rtol=1e-5, atol=1e-6)


def test_channels_and_layout(tmp_path: Path) -> None:
    picture = noise()
    folder = save(tmp_path / "images", picture)
    np.testing.assert_array_equal(first(folder, RGB, "raw")[0], picture.transpose(2, 0, 1))
    np.testing.assert_array_equal(first(folder, NHWC, "raw")[0], picture)
    np.testing.assert_array_equal(first(folder, NHWC, "scale=1,channels=bgr")[0], picture[:, :, ::-1])
    gray = first(folder, spec("n", 1, 16, 16), "raw")[0, 0]
    np.testing.assert_array_equal(gray, np.asarray(Image.fromarray(picture).convert("L")))


def test_mean_and_std_follow_the_order_of_the_channels(tmp_path: Path) -> None:
    folder = save(tmp_path / "images", noise())
    blue, green, red = first(folder, RGB, "caffe")[0] + np.float32([103.939, 116.779, 123.68])[:, None, None]
    np.testing.assert_allclose(np.stack([red, green, blue], axis=-1), noise(), atol=1e-4)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1", "CMYK", "I;16"])
def test_every_mode_of_picture_becomes_what_the_model_takes(tmp_path: Path, mode: str) -> None:
    suffix = ".jpg" if mode == "CMYK" else ".png"
    folder = tmp_path / "images"
    folder.mkdir()
    if mode == "I;16":
        Image.fromarray(noise(channels=1).astype(np.uint16) * 257).save(folder / "0.png")
    else:
        Image.fromarray(noise()).convert(mode).save(folder / f"0{suffix}")
    for interface in (BYTES, spec("n", 1, 16, 16, dtype="uint8")):
        assert first(folder, interface).shape[1:] == interface.shape[1:]
    if mode in ("L", "I;16"):
        expected = noise(channels=1) if mode == "I;16" else np.asarray(Image.fromarray(noise()).convert("L"))
        for channel in first(folder, BYTES)[0]:
            np.testing.assert_array_equal(channel, expected)
    if mode == "RGBA":
        np.testing.assert_array_equal(first(folder, BYTES)[0], noise().transpose(2, 0, 1))


def test_palette_with_transparency(tmp_path: Path) -> None:
    picture = Image.fromarray(noise()).quantize(16)
    (tmp_path / "images").mkdir()
    picture.save(tmp_path / "images/0.png", transparency=bytes([0, 128] + [255] * 14))
    np.testing.assert_array_equal(
        first(tmp_path / "images", BYTES)[0], np.asarray(picture.convert("RGB")).transpose(2, 0, 1)
    )


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_cameras_is_honoured(tmp_path: Path, orientation: int) -> None:
    turned = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a),
    }[orientation]
    picture = noise(8, 12)
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "images").mkdir()
    Image.fromarray(picture).save(tmp_path / "images/0.png", exif=exif)
    free = spec("n", "h", "w", 3, dtype="uint8")
    np.testing.assert_array_equal(first(tmp_path / "images", free)[0], turned(picture))


# ---------------------------------------------------------------- sizes


def test_imagenet_is_what_torchvision_does(tmp_path: Path) -> None:
    """Resize(256), CenterCrop(224), ToTensor, Normalize: the shorter side to 256, the longer one rounded down."""
    picture = noise(150, 301)
    folder = save(tmp_path / "images", picture)
    resized = Image.fromarray(picture).resize((int(256 * 301 / 150), 256), Image.Resampling.BILINEAR)
    left, top = round((resized.width - 224) / 2.0), round((resized.height - 224) / 2.0)
    cut = np.asarray(resized.crop((left, top, left + 224, top + 224)))
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    expected = ((cut / 255 - mean) / std).transpose(2, 0, 1)
    for shape in (("n", 3, 224, 224), ("n", 3, "h", "w")):
        np.testing.assert_allclose(first(folder, spec(*shape), "imagenet")[0], expected, atol=1e-6)


@pytest.mark.parametrize(("side", "resize"), [(224, 256), (299, 342), (384, 439), (32, 37)])
def test_imagenet_follows_the_models_size(side: int, resize: int) -> None:
    pixels = pixels_for(PRESETS["imagenet"], spec("n", 3, side, side))
    assert pixels.resize == Size(width=resize, height=resize)
    assert pixels.crop == Size(width=side, height=side)


sides = st.integers(1, 400)


@settings(max_examples=200, deadline=None)
@given(width=sides, height=sides, wide=st.integers(1, 64), high=st.integers(1, 64))
def test_a_resized_picture_covers_the_crop_and_one_side_fits_exactly(
    width: int, height: int, wide: int, high: int
) -> None:
    made = pixels_for(Preprocess(scale=1.0, layout="nchw"), spec("n", 3, high, wide)).resized(width, height)
    assert made[0] >= wide
    assert made[1] >= high
    assert made[0] == wide or made[1] == high


def test_sizes_that_differ_are_covered_and_cut(tmp_path: Path) -> None:
    folder = save(tmp_path / "images", noise(40, 20), noise(16, 16), noise(5, 9))
    made = data(folder, RGB, "unit")
    assert [feed["image"].shape for feed in made] == [(1, 3, 16, 16)] * 3
    np.testing.assert_array_equal(made.feed(1)["image"][0], (noise() / np.float32(255)).transpose(2, 0, 1))


def test_a_free_size_keeps_the_pictures(tmp_path: Path) -> None:
    folder = save(tmp_path / "images", noise(40, 20), noise(16, 24))
    shapes = [feed["image"].shape for feed in data(folder, spec("n", 3, "h", "w"), "raw")]
    assert shapes == [(1, 3, 40, 20), (1, 3, 16, 24)]


@pytest.mark.parametrize("method", ["nearest", "bilinear", "bicubic"])
def test_exact_resizing_and_interpolation(tmp_path: Path, method: str) -> None:
    folder = save(tmp_path / "images", noise(40, 20))
    made = first(folder, spec("n", 8, 12, 3), f"resize=12x8,interpolation={method},scale=1")[0]
    expected = Image.fromarray(noise(40, 20)).resize((12, 8), Image.Resampling[method.upper()])
    np.testing.assert_array_equal(made, np.asarray(expected))


def test_a_crop_larger_than_the_picture_names_the_file(tmp_path: Path) -> None:
    folder = save(tmp_path / "images", noise(10, 10))
    error = refused(folder, spec("n", 3, "h", "w"), "crop=12,scale=1")
    assert "0.png is 10x10, smaller than the crop of 12x12" in error.message


@pytest.mark.parametrize(
    ("shape", "wish", "says"),
    [
        (("n", 3, 16, 16), "crop=20,scale=1", "--preprocess makes 20x20"),
        (("n", 3, 16, 16), "resize=20x20,scale=1", "--preprocess makes 20x20"),
        (("n", 3, 16, 16), "resize=12,scale=1", "resizes to 12x12, which is smaller"),
        (("n", 3, 16, "w"), "crop=20,scale=1", "--preprocess makes 20x20"),
        (("n", 3, 16), None, "rank 4"),
        (("n", 5, 16, 16), None, "none of its axes"),
        (("n", 3, 16, 3), None, "both its second and its last axis"),
        (("n", "c", "h", "w"), None, "none of its axes"),
        (("n", "c", "h", "w"), "layout=nchw,scale=1", "number of channels open"),
        (("n", 3, 16, 16), "layout=nhwc,scale=1", "is not nhwc"),
        (("n", 3, 16, 16), "channels=gray,scale=1", "has 3 channels, --preprocess makes gray"),
        (("n", 1, 16, 16), "imagenet", "3 values for mean"),
    ],
)
def test_what_does_not_fit_the_input_is_said(
    tmp_path: Path, shape: tuple[int | str, ...], wish: str | None, says: str
) -> None:
    error = refused(save(tmp_path / "images", noise()), spec(*shape), wish)
    assert says in error.message
    assert "images" in error.message


def test_what_the_shape_leaves_open_can_be_given(tmp_path: Path) -> None:
    folder = save(tmp_path / "images", noise())
    free = spec("n", "c", "h", "w")
    assert first(folder, free, "layout=nchw,channels=gray,scale=1").shape == (1, 1, 16, 16)
    assert first(folder, free, "layout=nhwc,channels=rgb,scale=1").shape == (1, 16, 16, 3)
    assert first(folder, spec("n", 3, 16, 3), "layout=nchw,scale=1").shape == (1, 3, 16, 3)


# ---------------------------------------------------------------- what is decided for the user


def test_without_a_preprocessing_floats_are_scaled_and_the_user_is_told(tmp_path: Path) -> None:
    made = data(save(tmp_path / "images", noise()))
    np.testing.assert_array_equal(made.feed(0)["image"][0], (noise() / np.float32(255)).transpose(2, 0, 1))
    assert "SCALED TO 0..1" in made.warnings[0]
    assert "--preprocess" in made.warnings[0]
    assert data(tmp_path / "images", RGB, "unit").warnings == ()


def test_a_line_without_scale_says_what_it_does(tmp_path: Path) -> None:
    made = data(save(tmp_path / "images", noise()), RGB, "resize=20,crop=16")
    assert made.feed(0)["image"].max() <= 1
    assert "divided by 255" in made.warnings[0]
    assert data(tmp_path / "images", BYTES, "resize=20,crop=16").warnings == ()


@pytest.mark.parametrize("wish", ["imagenet", "unit", "tf", "scale=1,mean=3"])
def test_a_uint8_model_is_not_fed_scaled_values(tmp_path: Path, wish: str) -> None:
    assert "takes pixels 0..255 as they are" in refused(save(tmp_path / "images", noise()), BYTES, wish).message


@pytest.mark.parametrize("dtype", ["int8", "bool", "str"])
def test_types_that_hold_no_pixels(tmp_path: Path, dtype: str) -> None:
    error = refused(save(tmp_path / "images", noise()), spec("n", 3, 16, 16, dtype=dtype))
    assert "holds no pixels" in error.message


@pytest.mark.parametrize("dtype", ["float16", "float64", "int32", "int64", "uint8"])
def test_types_that_do(tmp_path: Path, dtype: str) -> None:
    made = first(save(tmp_path / "images", noise()), spec("n", 3, 16, 16, dtype=dtype), "raw")
    assert made.dtype.name == dtype
    np.testing.assert_array_equal(made[0], noise().transpose(2, 0, 1))


def test_preprocessing_other_data_is_warned_about(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((4, 3, 16, 16), np.float32))
    made = open_data_set(DataSpec(sources=(str(tmp_path / "a.npy"),), preprocess="imagenet"), (RGB,))
    assert "--preprocess is for images" in made.warnings[0]

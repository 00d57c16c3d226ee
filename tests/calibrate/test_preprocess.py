"""The preprocessing that a user writes: presets, the line, YAML, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qconvert.calibrate.preprocess import (
    CHANNELS,
    INTERPOLATIONS,
    LAYOUTS,
    PRESETS,
    Preprocess,
    Size,
    parse_preprocess,
)
from qconvert.errors import RecipeError

LINE = (
    "resize=256,crop=224,scale=1/255,mean=0.485:0.456:0.406,std=0.229:0.224:0.225,layout=nchw,channels=rgb,"
    "interpolation=bicubic"
)


def test_a_line_says_everything() -> None:
    assert parse_preprocess(LINE) == Preprocess(
        resize=Size(width=256, height=256),
        crop=Size(width=224, height=224),
        scale=1 / 255,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        layout="nchw",
        channels="rgb",
        interpolation="bicubic",
    )


def test_yaml_says_the_same(tmp_path: Path) -> None:
    file = tmp_path / "images.yaml"
    file.write_text(
        "resize: 256\ncrop: 224\nscale: 1/255\nmean: [0.485, 0.456, 0.406]\nstd: 0.229:0.224:0.225\n"
        "layout: NCHW\nchannels: RGB\ninterpolation: bicubic\n"
    )
    assert parse_preprocess(str(file)) == parse_preprocess(LINE)


def test_one_length_is_the_shorter_side_two_are_exact() -> None:
    assert not parse_preprocess("resize=256").exact
    wide = parse_preprocess("resize=320x240")
    assert wide.exact
    assert wide.resize == Size(width=320, height=240)


def test_a_preset_can_be_changed(tmp_path: Path) -> None:
    imagenet = PRESETS["imagenet"]
    assert parse_preprocess("imagenet") is imagenet
    assert parse_preprocess("preset=imagenet,channels=bgr") == replace(imagenet, channels="bgr")
    grown = parse_preprocess("preset=imagenet,resize=232,crop=224")
    assert grown.resize == Size(width=232, height=232)
    assert not grown.flexible  # sizes that were given are meant
    (tmp_path / "a.yml").write_text("preset: imagenet\nchannels: bgr\n")
    assert parse_preprocess(str(tmp_path / "a.yml")) == parse_preprocess("preset=imagenet,channels=bgr")


@pytest.mark.parametrize(
    ("text", "says", "hint"),
    [
        ("imagnet", "no preset", "did you mean 'imagenet'"),
        ("", "no preset", "valid names: imagenet, unit"),
        ("preset=imagnet", "unknown preset", "did you mean 'imagenet'"),
        ("resise=256", "unknown key 'resise'", "did you mean 'resize'"),
        ("resize=256,crop", "'crop' is no key=value", ""),
        ("resize=256,crop=", "'crop=' is no key=value", ""),
        ("resize=256,resize=224", "'resize' is given twice", ""),
        ("resize=large", "'large' is no size", "224, or WIDTHxHEIGHT"),
        ("resize=1x2x3", "is no size", ""),
        ("resize=0", "no size of an image", ""),
        ("crop=99999999", "no size of an image", ""),
        ("resize=200,crop=224", "crop 224x224 is larger than resize 200x200", ""),
        ("scale=1/0", "is no number", ""),
        ("scale=1/x", "is no number", ""),
        ("scale=0", "makes no numbers", ""),
        ("scale=nan", "makes no numbers", ""),
        ("scale=1e308/1e-308", "is no number", ""),
        ("std=0.1:0:0.1", "makes no numbers", ""),
        ("mean=inf", "makes no numbers", ""),
        ("mean=1:2", "mean of images has 2 values", ""),
        ("layout=hwc", "unknown layout 'hwc'", "nhwc"),
        ("channels=grey", "unknown channels 'grey'", "gray"),
        ("interpolation=lanczos", "unknown interpolation", "bilinear"),
        ("flexible=1", "unknown key", ""),
    ],
)
def test_what_means_nothing_is_refused(text: str, says: str, hint: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_preprocess(text)
    assert says in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.hint


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"- 1\n", "holds no keys"),
        (b"", "holds no keys"),
        (b"resize: [\n", "is not YAML"),
        (b"resize: \xff\n", "is not YAML"),
        (b"[" * 5000, "is not YAML"),
        (b"!!python/object/apply:os.system [echo]\n", "is not YAML"),
        (b"? [a, b]\n: 1\n", "is not YAML"),
        (b"1: 2\n", "unknown key 1"),
        (b"resize: {a: 1}\n", "is a dict"),
        (b"mean: [a, b, c]\n", "is no number"),
        (b"mean: [[1], 2, 3]\n", "is a list"),
        (b"scale: 2026-01-01\n", "is a date"),
        (b"scale: true\n", "is a bool"),
    ],
)
def test_files_that_mean_nothing(tmp_path: Path, content: bytes, says: str) -> None:
    file = tmp_path / "images.yaml"
    file.write_bytes(content)
    with pytest.raises(RecipeError, match=says) as caught:
        parse_preprocess(str(file))
    assert "images.yaml" in caught.value.message


def test_a_missing_file() -> None:
    with pytest.raises(RecipeError, match=r"nowhere\.yaml cannot be read: No such file"):
        parse_preprocess("nowhere.yaml")


sizes = st.builds(Size, width=st.integers(1, 500), height=st.integers(1, 500))
numbers = st.floats(-1e6, 1e6, allow_subnormal=False)


@given(
    crop=st.none() | sizes,
    scale=st.none() | numbers.filter(bool),
    mean=st.sampled_from([0, 1, 3]).flatmap(lambda n: st.tuples(*[numbers] * n)),
    std=st.sampled_from([0, 1, 3]).flatmap(lambda n: st.tuples(*[numbers.filter(bool)] * n)),
    layout=st.sampled_from([None, *LAYOUTS]),
    channels=st.sampled_from([None, *CHANNELS]),
)
def test_the_line_of_a_preprocessing_reads_back(
    crop: Size | None,
    scale: float | None,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    layout: str | None,
    channels: str | None,
) -> None:
    made = Preprocess(crop=crop, scale=scale, mean=mean, std=std, layout=layout, channels=channels)
    text = str(made)
    assert parse_preprocess(text) == (made if text != "raw" else PRESETS["raw"])


@given(size=sizes, exact=st.booleans(), interpolation=st.sampled_from(INTERPOLATIONS))
def test_so_does_its_size(size: Size, exact: bool, interpolation: str) -> None:
    exact = exact or size.width != size.height
    made = Preprocess(resize=size, exact=exact, interpolation=interpolation)
    assert parse_preprocess(str(made)) == made

"""What the user wants done to images before they become numbers: a preset, a line, or a YAML file.

    value = (pixel * scale - mean) / std        pixel 0..255 after resizing and cropping; mean and std a channel

The line is ``resize=256,crop=224,scale=1/255,mean=0.485:0.456:0.406,std=0.229:0.224:0.225,layout=nchw,channels=rgb``,
the YAML file holds the same keys. ``preset=NAME`` starts from a preset. What is left open follows from the model's
input (``qconvert/calibrate/pixels.py``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import yaml

from qconvert.errors import RecipeError
from qconvert.recipe.plain_yaml import PlainLoader
from qconvert.registry import suggest

LAYOUTS = ("nchw", "nhwc")
CHANNELS = ("rgb", "bgr", "gray")
INTERPOLATIONS = ("nearest", "bilinear", "bicubic")
_LARGEST_SIDE = 1 << 14  # 16384 x 16384 pixels are beyond every model, and beyond Pillow's limit too
_LARGEST_FILE = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Width and height in pixels, written "WIDTHxHEIGHT"."""

    width: int
    height: int

    def __post_init__(self) -> None:
        if not (1 <= self.width <= _LARGEST_SIDE and 1 <= self.height <= _LARGEST_SIDE):
            raise RecipeError(f"{self} is no size of an image", hint=f"give 1 to {_LARGEST_SIDE} pixels a side")

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocess:
    """What is done to an image, in this order; None and () leave it to the model's input.

    Attributes:
        resize: the size to resize to.
        exact: resize to just that size, whatever the proportions; otherwise keep them and cover that size, which for
            a square means that the shorter side gets its length.
        interpolation: "nearest", "bilinear" or "bicubic", as Pillow does them (with antialiasing when shrinking).
        crop: cut this size out of the centre.
        scale: factor of the pixel values 0..255.
        mean, std: subtracted after scaling, then divided by; one value, or one a channel in the order of ``channels``.
        layout: "nchw" or "nhwc".
        channels: "rgb", "bgr" or "gray".
        flexible: resize and crop are a proportion, not a size: they follow the model's fixed size.
    """

    resize: Size | None = None
    exact: bool = False
    interpolation: str = "bilinear"
    crop: Size | None = None
    scale: float | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    layout: str | None = None
    channels: str | None = None
    flexible: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        for name, value, valid in (
            ("interpolation", self.interpolation, INTERPOLATIONS),
            ("layout", self.layout, LAYOUTS),
            ("channels", self.channels, CHANNELS),
        ):
            if value is not None and value not in valid:
                raise RecipeError(f"unknown {name} {value!r} of images", hint=suggest(value, valid))
        numbers = (*self.mean, *self.std, *(() if self.scale is None else (self.scale,)))
        if not all(map(math.isfinite, numbers)) or self.scale == 0 or 0 in self.std:
            raise RecipeError(
                f"preprocessing {self} makes no numbers", hint="scale and std are finite and not 0, mean is finite"
            )
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (0, 1, 3):
                raise RecipeError(f"{name} of images has {len(values)} values", hint="give one, or one a channel (3)")
        if self.resize is not None and self.crop is not None and not self.flexible:
            inside = self.crop.width <= self.resize.width and self.crop.height <= self.resize.height
            if not inside:
                raise RecipeError(
                    f"crop {self.crop} is larger than resize {self.resize}",
                    hint="resize to the size of the crop or more",
                )

    def __str__(self) -> str:
        """The one-line form."""
        size = self.resize
        shorter = size is not None and not self.exact and size.width == size.height
        parts = {
            "resize": size and (size.width if shorter else size),
            "interpolation": self.interpolation if size is not None else None,
            "crop": self.crop,
            "scale": self.scale,
            "mean": ":".join(map(repr, self.mean)),
            "std": ":".join(map(repr, self.std)),
            "layout": self.layout,
            "channels": self.channels,
        }
        return ",".join(f"{key}={value}" for key, value in parts.items() if value not in (None, "")) or "raw"


_IMAGENET = Preprocess(
    resize=Size(width=256, height=256),
    crop=Size(width=224, height=224),
    scale=1 / 255,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    flexible=True,
)
RAW = Preprocess(scale=1.0)
UNIT = Preprocess(scale=1 / 255)

PRESETS: Mapping[str, Preprocess] = {
    "imagenet": _IMAGENET,
    "unit": UNIT,
    "tf": Preprocess(scale=1 / 255, mean=(0.5,), std=(0.5,)),
    "raw": RAW,
    "none": RAW,
    "caffe": Preprocess(scale=1.0, mean=(103.939, 116.779, 123.68), channels="bgr"),
}
"""imagenet: torchvision's; unit: 0..1; tf: -1..1; raw, none: 0..255; caffe: blue, green, red minus their means."""

_KEYS = ("preset", *(f.name for f in fields(Preprocess) if f.name not in ("exact", "flexible")))


def parse_preprocess(text: str) -> Preprocess:
    """The preprocessing that ``text`` stands for: a preset, a line of ``key=value``, or the path of a YAML file.

    Raises:
        RecipeError: an unknown preset or key, a value that means nothing, or a file that cannot be read.
    """
    text = text.strip()
    if text in PRESETS:
        return PRESETS[text]
    if text.lower().endswith((".yaml", ".yml")):
        return _from_file(Path(text))
    if "=" in text:
        given: dict[str, Any] = {}
        for part in text.split(","):
            key, equals, value = (piece.strip() for piece in part.partition("="))
            if not equals or not value:
                raise RecipeError(
                    f"--preprocess {text}: {part.strip()!r} is no key=value",
                    hint="write resize=256,crop=224,scale=1/255",
                )
            if key in given:
                raise RecipeError(f"--preprocess {text}: {key!r} is given twice", hint="give each key once")
            given[key] = value
        return _from_keys(given, f"--preprocess {text}")
    raise RecipeError(
        f"--preprocess {text!r} is no preset",
        hint=f"{suggest(text, tuple(PRESETS))}; or a line key=value,..., or a .yaml",
    )


def _from_file(path: Path) -> Preprocess:
    try:
        with path.open("rb") as stream:
            content = yaml.load(stream.read(_LARGEST_FILE), Loader=PlainLoader)
    except OSError as error:
        raise RecipeError(f"{path} cannot be read: {error.strerror or error}", hint="check the path") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise RecipeError(f"{path} is not YAML: {reason}", hint="write one 'key: value' a line") from error
    if not isinstance(content, dict):
        raise RecipeError(f"{path} holds no keys", hint=f"valid keys: {', '.join(_KEYS)}")
    return _from_keys(content, str(path))


def _from_keys(given: Mapping[Any, Any], where: str) -> Preprocess:
    for key in given:
        if key not in _KEYS:
            raise RecipeError(f"{where}: unknown key {key!r}", hint=suggest(str(key), _KEYS))
    made = Preprocess()
    if "preset" in given:
        name = _text(given["preset"], f"{where}: preset")
        if name not in PRESETS:
            raise RecipeError(f"{where}: unknown preset {name!r}", hint=suggest(name, tuple(PRESETS)))
        made = PRESETS[name]
    changes: dict[str, Any] = {}
    for key, value in given.items():
        if key in ("resize", "crop"):
            size, shorter = _size(value, f"{where}: {key}")
            changes[key] = size
            changes["flexible"] = False
            if key == "resize":
                changes["exact"] = not shorter
        elif key == "scale":
            changes[key] = _number(value, f"{where}: {key}")
        elif key in ("mean", "std"):
            values = value if isinstance(value, list) else _text(value, f"{where}: {key}").split(":")
            changes[key] = tuple(_number(v, f"{where}: {key}") for v in values)
        elif key != "preset":
            changes[key] = _text(value, f"{where}: {key}").lower()
    return replace(made, **changes)


def _text(value: object, where: str) -> str:
    """A scalar of YAML as written; lists and mappings of aliases could be of any size as text."""
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return str(value)
    raise RecipeError(f"{where} is a {type(value).__name__}", hint="give a number or a word")


def _size(value: object, where: str) -> tuple[Size, bool]:
    """(size, whether one length was given)."""
    sides = _text(value, where).lower().split("x")
    if len(sides) not in (1, 2) or not all(side.strip().isdecimal() and len(side) < 9 for side in sides):
        raise RecipeError(f"{where} {value!r} is no size", hint="give one length, 224, or WIDTHxHEIGHT, 320x240")
    lengths = [int(side) for side in sides]
    return Size(width=lengths[0], height=lengths[-1]), len(lengths) == 1


def _number(value: object, where: str) -> float:
    """A number, or a quotient of two: "1/255"."""
    text = _text(value, where)
    try:
        top, slash, bottom = text.partition("/")
        if len(text) > 64:
            raise ValueError("too long")
        return float(Fraction(float(top)) / Fraction(float(bottom))) if slash else float(top)
    except (ValueError, ZeroDivisionError, OverflowError) as error:
        raise RecipeError(f"{where} {text[:64]!r} is no number", hint="write 0.00392 or 1/255") from error

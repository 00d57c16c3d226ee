"""What turns a picture into the array that a model's input takes: the user's wish and the input's shape together.

    input [N, 3, 224, 224] -> nchw, rgb, 224 x 224           input [N, 28, 28, 1] -> nhwc, gray, 28 x 28

Pixels are 8-bit numbers after resizing, so their value is looked up in a table of 256 entries a channel. It is made in
float64 and rounded once: ``unit`` is pixel / 255, correctly rounded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qconvert.calibrate.preprocess import UNIT, Preprocess, Size
from qconvert.errors import DataError
from qconvert.graph.session import IOSpec

Array = NDArray[np.generic]

_LAYOUT_HINT = "say how with --preprocess, for example layout=nchw,channels=rgb,resize=256,crop=224"
_MODES = {1: ("gray",), 3: ("rgb", "bgr")}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pixels:
    """How pictures become arrays.

    Attributes:
        channels: "rgb", "bgr" or "gray".
        layout: "nchw" or "nhwc".
        resize: the size to resize to, or None.
        exact: to just that size; otherwise proportions are kept and the size is covered.
        crop: the size to cut out of the centre, or None.
        interpolation: "nearest", "bilinear" or "bicubic".
        table: value of each pixel, [C, 256] in the input's type.
        summary: all of it in a line, which identifies it.
        warnings: what was decided for the user.
    """

    channels: str
    layout: str
    resize: Size | None
    exact: bool
    crop: Size | None
    interpolation: str
    table: Array
    summary: str
    warnings: tuple[str, ...]

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) that a picture of this size is resized to before cropping.

        Keeping proportions, the shorter side of a square target gets its length and the other one is rounded down.
        """
        target = self.resize
        if target is None:
            return width, height
        if self.exact:
            return target.width, target.height
        if target.width * height >= target.height * width:  # the width is the side that would fall short
            return target.width, height * target.width // width
        return width * target.height // height, target.height

    def values(self, picture: NDArray[np.uint8]) -> Array:
        """The array for a picture [H, W, C] of pixels: [C, H, W] or [H, W, C]."""
        planes = picture[:, :, ::-1] if self.channels == "bgr" else picture
        filled = np.empty(planes.shape, self.table.dtype)
        for c in range(planes.shape[2]):
            np.take(self.table[c], planes[:, :, c], out=filled[:, :, c])
        return np.ascontiguousarray(filled.transpose(2, 0, 1)) if self.layout == "nchw" else filled


def pixels_for(wish: Preprocess | None, spec: IOSpec) -> Pixels:
    """What turns pictures into arrays for this input.

    Raises:
        DataError: the input takes no pictures, the shape leaves open how, or contradicts the wish.
    """
    asked = Preprocess() if wish is None else wish
    layout, channels = _axes(asked, spec)
    height, width = (spec.shape[2:] if layout == "nchw" else spec.shape[1:3])[:2]
    resize, exact, crop = _geometry(
        asked, width if isinstance(width, int) else None, height if isinstance(height, int) else None, spec
    )
    scale, warnings = _scale(wish, asked, spec)
    shown = Preprocess(
        resize=resize,
        exact=exact,
        interpolation=asked.interpolation,
        crop=crop,
        scale=scale,
        mean=asked.mean,
        std=asked.std,
        layout=layout,
        channels=channels,
    )
    if wish is None:
        warnings += (_guessed(shown, spec),)
    return Pixels(
        channels=channels,
        layout=layout,
        resize=resize,
        exact=exact,
        crop=crop,
        interpolation=asked.interpolation,
        table=_table(shown, spec),
        summary=str(shown),
        warnings=warnings,
    )


def _axes(asked: Preprocess, spec: IOSpec) -> tuple[str, str]:
    """(layout, channels), from the wish where it says so and from the shape where that is unambiguous."""
    where = f"input {spec.name!r} of shape {_words(spec)}"
    if len(spec.shape) != 4:
        raise DataError(
            f"{where} takes no images: rank 4 is wanted, [N, C, H, W] or [N, H, W, C]",
            hint="prepare arrays yourself and give them as .npz or .npy",
        )
    # the axis of the channels must have a size that pictures can have, or be free
    fits = {
        n: a for n, a in (("nchw", spec.shape[1]), ("nhwc", spec.shape[3])) if not isinstance(a, int) or a in _MODES
    }
    fixed = [name for name, axis in fits.items() if isinstance(axis, int)]
    if asked.layout is not None:
        layout = asked.layout
        if layout not in fits:
            raise DataError(f"{where} is not {layout} with 1 or 3 channels", hint="leave layout out, or correct it")
    elif len(fixed) == 1:
        layout = fixed[0]
    else:
        why = "both its second and its last axis" if fixed else "none of its axes"
        raise DataError(f"{where}: {why} can be told to be the channels", hint=_LAYOUT_HINT)
    axis = fits[layout]
    if asked.channels is not None:
        if isinstance(axis, int) and asked.channels not in _MODES[axis]:
            raise DataError(
                f"{where} has {axis} channels, --preprocess makes {asked.channels}",
                hint=f"give channels={' or channels='.join(_MODES[axis])}",
            )
        return layout, asked.channels
    if not isinstance(axis, int):
        raise DataError(f"{where} leaves the number of channels open", hint=_LAYOUT_HINT)
    return layout, _MODES[axis][0]


def _geometry(
    asked: Preprocess, width: int | None, height: int | None, spec: IOSpec
) -> tuple[Size | None, bool, Size | None]:
    """(resize, exact, crop) that end in the input's size, where it is fixed."""
    resize, exact, crop = asked.resize, asked.exact, asked.crop
    if width is None or height is None:
        sure = crop or (resize if exact else None)
        if sure is not None and (width not in (None, sure.width) or height not in (None, sure.height)):
            raise _size_error(spec, f"--preprocess makes {sure}")
        return resize, exact, crop
    wanted = Size(width=width, height=height)
    if asked.flexible and resize is not None and crop is not None:
        # round(size * 256 / 224) for a square
        grown = Size(width=round(width * resize.width / crop.width), height=round(height * resize.height / crop.height))
        return grown, False, wanted
    if resize is None and crop is None:
        return wanted, False, wanted
    if crop is None and not exact:
        crop = wanted
    final = crop or resize
    if final != wanted:
        raise _size_error(spec, f"--preprocess makes {final}")
    if resize is not None and crop is not None and (resize.width < crop.width or resize.height < crop.height):
        raise _size_error(spec, f"--preprocess resizes to {resize}, which is smaller")
    return resize, exact, crop


def _size_error(spec: IOSpec, what: str) -> DataError:
    return DataError(
        f"input {spec.name!r} has the shape {_words(spec)}, {what} (width x height)",
        hint="leave resize and crop out to get the model's size, or correct them",
    )


def _scale(wish: Preprocess | None, asked: Preprocess, spec: IOSpec) -> tuple[float, tuple[str, ...]]:
    """The factor of the pixel values; for integers none."""
    integer = "int" in spec.dtype
    if not (integer or spec.dtype in ("float16", "float32", "float64")) or spec.dtype == "int8":
        raise DataError(
            f"input {spec.name!r} is {spec.dtype}, which holds no pixels",
            hint="images can feed uint8 and wider integers, float16, float32 and float64",
        )
    if integer:
        if asked.scale not in (None, 1.0) or asked.mean or asked.std:
            raise DataError(
                f"input {spec.name!r} is {spec.dtype} and takes pixels 0..255 as they are; --preprocess scales them",
                hint="give raw, or only resize and crop",
            )
        return 1.0, ()
    if asked.scale is not None:
        return asked.scale, ()
    scale = UNIT.scale or 1.0
    if wish is None:
        return scale, ()
    return scale, ("--preprocess gives no scale: pixels are divided by 255; add scale=1/255 or scale=1 to say so",)


def _guessed(shown: Preprocess, spec: IOSpec) -> str:
    size = f"resized and cut to {shown.crop}" if shown.crop is not None else "kept in their sizes"
    if "int" in spec.dtype:
        return f"no --preprocess was given: images are {size}, {shown.channels}, with pixels 0..255 as they are"
    return (
        f"no --preprocess was given: images are {size}, {shown.channels}, and SCALED TO 0..1; if the model was trained "
        "on other values, the calibrated ranges are wrong: see imagenet, tf, raw and caffe in docs/data.md"
    )


def _table(shown: Preprocess, spec: IOSpec) -> Array:
    count = 1 if shown.channels == "gray" else 3
    for name, values in (("mean", shown.mean), ("std", shown.std)):
        if len(values) not in (0, 1, count):
            raise DataError(
                f"input {spec.name!r} takes {count} channel, --preprocess has {len(values)} values for {name}",
                hint=f"give {name} with one value, as a line: scale=1/255,mean=0.449,std=0.226",
            )
    steps = np.broadcast_to(np.arange(256, dtype=np.float64), (count, 256))
    # pixel / 255 rounds once where pixel * (1 / 255) rounds twice
    scale = shown.scale or 1.0
    scaled = steps / 255 if scale == 1 / 255 else steps * scale
    mean = np.array(shown.mean or (0.0,)).reshape(-1, 1)
    std = np.array(shown.std or (1.0,)).reshape(-1, 1)
    with np.errstate(over="ignore"):  # what does not fit the type becomes Inf, which feeds refuse
        return np.asarray((scaled - mean) / std, np.dtype(spec.dtype))


def _words(spec: IOSpec) -> str:
    return "[" + ", ".join("?" if size is None else str(size) for size in spec.shape) + "]"

"""A folder of pictures, or of class sub-folders with pictures, which then are labels. Needs Pillow.

A picture is turned as its EXIF orientation says, brought to the channels that the model takes (transparency is dropped,
16 bits become 8), resized, cropped, and its pixels become numbers as ``--preprocess`` says.
"""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qconvert.calibrate.folder import ClassFolder, class_folder, holds_files
from qconvert.calibrate.pixels import Pixels, pixels_for
from qconvert.calibrate.place import Place
from qconvert.calibrate.source import SOURCES, Array, Items, Source, SourceFactory
from qconvert.calibrate.sources._batches import batched
from qconvert.calibrate.sources._single import the_input
from qconvert.errors import DataError
from qconvert.graph.session import IOSpec

if TYPE_CHECKING:
    from PIL.Image import Image

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP")  # no other of Pillow's many decoders is let near the files


def _matches(path: Path) -> bool:
    """Whether ``path`` is a picture, or a folder with pictures in it or in its sub-folders."""
    return holds_files(path, *_SUFFIXES) if path.is_dir() else path.suffix.lower() in _SUFFIXES


def _open(place: Place, interface: tuple[IOSpec, ...]) -> Source:
    """One sample a picture; b pictures where the model fixes the batch at b.

    Raises:
        DataError: Pillow is missing, the model has several inputs or one that takes no pictures, or the
            preprocessing does not fit it.
    """
    name = the_input(place.path, interface, "images")
    _pillow("Image")
    try:
        pixels = pixels_for(place.preprocess, interface[0])
    except DataError as error:
        raise DataError(f"{place.text}: {error.message}", hint=error.hint) from error
    found = class_folder(place.path, *_SUFFIXES) if place.path.is_dir() else ClassFolder(files=(place.path,))

    def read(file: Path) -> dict[str, Array]:
        return {name: pixels.values(_picture(file, pixels))}

    items = Items(place.text, found.files, read, root=place.path, detail=pixels.summary)
    items.labels, items.label_names = found.labels, found.names
    items.warnings = (*found.warnings, *(f"{place.text}: {warning}" for warning in pixels.warnings))
    return batched(items, interface)


def _pillow(module: str) -> Any:
    try:
        return importlib.import_module(f"PIL.{module}")
    except ImportError as error:
        raise DataError(
            "reading images needs Pillow, which is not installed", hint="pip install 'qconvert[images]'"
        ) from error


def _picture(file: Path, pixels: Pixels) -> NDArray[np.uint8]:
    """The pixels of a file, resized and cropped: [H, W, C]."""
    images, operations = _pillow("Image"), _pillow("ImageOps")
    try:
        with warnings.catch_warnings():
            # a picture beyond Pillow's limit of pixels warns, one beyond twice the limit is refused: bombs both
            warnings.simplefilter("ignore")  # of odd metadata, which do not matter here
            warnings.simplefilter("error", images.DecompressionBombWarning)
            with images.open(file, formats=_FORMATS) as opened:
                picture = operations.exif_transpose(opened)
                picture = _converted(picture, "L" if pixels.channels == "gray" else "RGB", images)
        size = pixels.resized(picture.width, picture.height)
        if size != picture.size:
            if size[0] * size[1] > images.MAX_IMAGE_PIXELS:
                raise ValueError(f"{picture.width}x{picture.height} would be resized to {size[0]}x{size[1]}")
            method = images.Resampling[pixels.interpolation.upper()]
            picture = picture.resize(size, method)
    except (images.DecompressionBombWarning, images.DecompressionBombError) as error:
        raise DataError(
            f"{file} is refused: it has more than {images.MAX_IMAGE_PIXELS:,} pixels",
            hint="a decompression bomb, or a picture to shrink first",
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # on damaged bytes Pillow raises OSError, SyntaxError, ValueError, struct.error and more
        if isinstance(error, OSError) and error.strerror:
            raise DataError(f"{file} cannot be read: {error.strerror}", hint="check its permissions") from error
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise DataError(
            f"{file} is no sound image: {reason}", hint="remove it, or save it again as PNG, JPEG, BMP or WebP"
        ) from error
    array = np.asarray(_cropped(file, picture, pixels), dtype=np.uint8)
    return array[:, :, np.newaxis] if array.ndim == 2 else array


def _converted(picture: Image, mode: str, images: Any) -> Image:
    if picture.mode.startswith(("I", "F")):  # 16 bits; convert() would clip them at 255
        wide = np.asarray(picture).astype(np.float64)
        picture = images.fromarray(np.clip(np.rint(wide / 257), 0, 255).astype(np.uint8))
    elif picture.mode == "P" and "transparency" in picture.info:
        picture = picture.convert("RGBA")  # a palette with transparency cannot be converted in one step
    elif picture.mode == "RGBX":
        picture = picture.convert("RGB")
    return picture if picture.mode == mode else picture.convert(mode)


def _cropped(file: Path, picture: Image, pixels: Pixels) -> Image:
    crop = pixels.crop
    if crop is None or (crop.width, crop.height) == picture.size:
        return picture
    if crop.width > picture.width or crop.height > picture.height:
        raise DataError(
            f"{file} is {picture.width}x{picture.height}, smaller than the crop of {crop}",
            hint="resize first: --preprocess resize=...,crop=...",
        )
    left, top = round((picture.width - crop.width) / 2), round((picture.height - crop.height) / 2)
    return picture.crop((left, top, left + crop.width, top + crop.height))


SOURCES.add(
    "images",
    SourceFactory(
        description="a folder of .png, .jpg, .bmp or .webp images, or of class sub-folders with images "
        "(models with one input; needs the extra [images])",
        matches=_matches,
        open=_open,
        preprocesses=True,
    ),
)

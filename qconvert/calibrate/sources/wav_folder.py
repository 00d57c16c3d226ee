"""A folder of .wav files, or of class sub-folders with them, which then are labels.

    clips/                 all files must have the sampling rate of the first
    clips/:rate=16000      all files must have this one

Channels are averaged. Integers become float32 in [-1, 1): 16 bits are divided by 32768. Where the model fixes the
length, what is longer is cut at the end, and what is shorter filled up with zeros there. Nothing is resampled.
"""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qconvert.calibrate.folder import class_folder, holds_files
from qconvert.calibrate.place import Place
from qconvert.calibrate.source import SOURCES, Array, Items, Source, SourceFactory
from qconvert.calibrate.sources._batches import batched
from qconvert.calibrate.sources._single import the_input
from qconvert.errors import DataError
from qconvert.graph.session import IOSpec

_SUFFIX = ".wav"
_BELOW_ONE = np.nextafter(np.float32(1), np.float32(0))
_HINT = "save it as integer PCM of 8, 16, 24 or 32 bits"


def _matches(path: Path) -> bool:
    """Whether ``path`` is a folder with .wav files in it or in its sub-folders."""
    return holds_files(path, _SUFFIX)


def _open(place: Place, interface: tuple[IOSpec, ...]) -> Source:
    """One sample a file.

    Raises:
        DataError: the model has several inputs or one that takes no waveform, or the rate given is no number.
    """
    name = the_input(place.path, interface, ".wav files")
    spec = interface[0]
    shape = _shape(place, spec)
    length = next((size for size in shape if size != 1 and isinstance(size, int)), None)
    found = class_folder(place.path, _SUFFIX)
    rate, warnings = _rate(place, found.files[0])

    def read(file: Path) -> dict[str, Array]:
        signal = _signal(file, rate, length)
        if length is not None and len(signal) < length:
            signal = np.pad(signal, (0, length - len(signal)))
        return {name: signal.reshape([size if size == 1 else -1 for size in shape]).astype(spec.dtype, copy=False)}

    items = Items(place.text, found.files, read, root=place.path, detail=f"rate={rate},length={length}")
    items.labels, items.label_names = found.labels, found.names
    items.warnings = (*found.warnings, *warnings)
    return batched(items, interface) if len(spec.shape) > 1 else items  # the only axis is time


def _shape(place: Place, spec: IOSpec) -> tuple[int | str | None, ...]:
    """The shape of a row: one axis for time, 1 for a channel beside it."""
    rows = spec.shape[1:] if len(spec.shape) > 1 else spec.shape
    if (
        spec.dtype not in ("float16", "float32", "float64")
        or len(rows) not in (1, 2)
        or (len(rows) == 2 and 1 not in rows)
    ):
        raise DataError(
            f"{place.text}: input {spec.name!r} ({spec.dtype}, {list(spec.shape)}) takes no waveform: "
            "[N, samples], [N, 1, samples] or [N, samples, 1] is wanted",
            hint="compute the features that the model wants, and give them as .npz or .npy",
        )
    return (rows[0], 1) if rows[-1] == 1 and len(rows) == 2 else rows


def _rate(place: Place, first: Path) -> tuple[int, tuple[str, ...]]:
    if place.qualifier:
        key, _, value = place.qualifier.partition("=")
        if key != "rate" or not value.isdecimal() or not 0 < len(value) < 9:
            raise DataError(f"{place.text}: {place.qualifier!r} is not rate=HZ", hint=f"write {place.path}:rate=16000")
        return int(value), ()
    try:
        with wave.open(str(first), "rb") as stream:
            rate = stream.getframerate()
    except Exception:  # the sample itself is read, and complained of, when its turn comes
        raise DataError(
            f"{first}, the first file, does not tell a sampling rate: it is no sound .wav file",
            hint=f"remove it, or give the rate: {place.path}:rate=16000",
        ) from None
    said = f"{place.text}: the sampling rate of the first file, {rate} Hz, is taken to be the model's; "
    return rate, (f"{said}{place.path}:rate={rate} says so",)


def _signal(file: Path, rate: int, length: int | None) -> NDArray[np.float32]:
    """The file's waveform, mixed down: [frames], at most ``length`` of them."""
    try:
        with wave.open(str(file), "rb") as stream:
            channels, width, frames = stream.getnchannels(), stream.getsampwidth(), stream.getnframes()
            found = stream.getframerate()
            if found != rate:
                raise DataError(
                    f"{file} has a sampling rate of {found} Hz, wanted are {rate} Hz",
                    hint="resample it, qconvert does not; or correct rate=",
                )
            # held against the size before anything is allocated: a header can promise 4 GiB
            if frames * channels * width > file.stat().st_size:
                raise ValueError(f"truncated: its header declares {frames} frames")
            wanted = frames if length is None else min(frames, length)
            data = stream.readframes(wanted)
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}", hint="check its permissions") from error
    except Exception as error:  # wave raises wave.Error, EOFError, struct.error and more on damaged bytes
        reason = str(error).strip() or type(error).__name__
        raise DataError(f"{file} is no sound .wav file: {reason}", hint=_HINT) from error
    if len(data) != wanted * channels * width:
        raise DataError(f"{file} is no sound .wav file: truncated", hint=_HINT)
    if wanted == 0 and length is None:
        raise DataError(f"{file} holds no sound: it has 0 frames", hint="remove it")
    mixed = _decoded(data, width, file).reshape(-1, channels).mean(axis=1)
    signal: NDArray[np.float32] = np.minimum(mixed.astype(np.float32), _BELOW_ONE)  # 2147483647 / 2**31 rounds to 1
    return signal


def _decoded(data: bytes, width: int, file: Path) -> NDArray[np.float64]:
    """Integers of ``width`` bytes as fractions of full scale."""
    if width == 1:  # alone unsigned
        return (np.frombuffer(data, np.uint8).astype(np.float64) - 128) / 128
    if width in (2, 4):
        return np.frombuffer(data, f"<i{width}").astype(np.float64) / float(1 << (8 * width - 1))
    if width == 3:
        filled = np.zeros((len(data) // 3, 4), np.uint8)
        filled[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)  # as the upper bytes, so that the sign is right
        return filled.view("<i4")[:, 0].astype(np.float64) / 2.0**31
    raise DataError(f"{file} has {8 * width} bits a value", hint=_HINT)


SOURCES.add(
    "wav_folder",
    SourceFactory(
        description="a folder of .wav files, or of class sub-folders with them, FOLDER or FOLDER:rate=HZ "
        "(models with one input)",
        matches=_matches,
        open=_open,
        qualifier="rate=HZ",
    ),
)

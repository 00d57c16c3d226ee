"""One .safetensors file whose arrays stack all samples along axis 0. It is mapped by the safetensors library.

The library checks the header: offsets that leave the file, overlap, or contradict shape and type are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from qconvert.calibrate.place import Place
from qconvert.calibrate.source import SOURCES, Array, Source, SourceFactory
from qconvert.calibrate.sources._stack import Stack
from qconvert.errors import DataError
from qconvert.graph.session import IOSpec


class _Lazy:
    """As much of an array as a stack needs: its shape, and parts of it, read when they are asked for."""

    def __init__(self, part: Any) -> None:
        self._part = part
        self.shape = tuple(part.get_shape())
        self.ndim = len(self.shape)

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, at: int | slice) -> Array:
        if isinstance(at, slice):
            return cast(Array, self._part[at])
        return cast(Array, self._part[at : at + 1][0])


def _matches(path: Path) -> bool:
    """Whether ``path`` is a .safetensors file."""
    return path.is_file() and path.suffix.lower() == ".safetensors"


def _open(place: Place, interface: tuple[IOSpec, ...]) -> Source:
    """The rows of the file's arrays as samples.

    Raises:
        DataError: the file is damaged, or its arrays do not fit the model or each other.
    """
    return Stack(place.path, _arrays(place.path), interface)


def _arrays(path: Path) -> Mapping[str, Array]:
    from safetensors import safe_open

    try:
        stored: Any = safe_open(path, framework="numpy")  # its methods have no types
        # in the order of the file, which is the order of the bytes
        return {name: cast(Array, _Lazy(stored.get_slice(name))) for name in stored.offset_keys()}
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}", hint="check its permissions") from error
    except Exception as error:  # SafetensorError, and what the conversion to numpy raises on types it does not know
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise DataError(
            f"{path} is not a sound .safetensors file: {reason}", hint="write it again with safetensors.numpy.save_file"
        ) from error


SOURCES.add(
    "stacked_safetensors",
    SourceFactory(description="one .safetensors file, samples stacked along axis 0", matches=_matches, open=_open),
)

"""Reading .npy and .npz files that nobody vouches for.

Nothing is unpickled, and nothing is allocated on the word of a header: the size that a header declares is held against
the bytes that are there first. (``numpy.load`` allocates what the header of a member of an .npz declares, whatever
follows it.)
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from qconvert.errors import DataError

Array = NDArray[np.generic]
_Header = tuple[tuple[int, ...], bool, "np.dtype[np.generic]", int]


def map_npy(path: Path) -> Array:
    """The array of a .npy file, memory-mapped and read-only, of any shape.

    Raises:
        DataError: the file is missing, damaged, truncated, or holds pickled objects.
    """
    try:
        with path.open("rb") as stream:
            shape, fortran, dtype, nbytes = header_of(stream, str(path))
            offset = stream.tell()
        if offset + nbytes > path.stat().st_size:
            raise ValueError(f"truncated: the header declares {nbytes} bytes of data")
        if nbytes == 0:  # nothing to map, and mmap refuses an empty range
            return np.empty(shape, dtype)
        return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape, order="F" if fortran else "C")
    except DataError:
        raise
    except Exception as error:  # on damaged bytes numpy raises ValueError, SyntaxError, TokenError and more
        raise damaged(path, ".npy", error) from error


def read_npy(path: Path) -> Array:
    """The array of a .npy file, copied into memory, so that the file is not held open.

    Raises:
        DataError: as :func:`map_npy`.
    """
    return np.array(map_npy(path))


def read_npz(path: Path, only: Collection[str] | None = None) -> dict[str, Array]:
    """The arrays of an .npz file by name, or ``only`` those, read-only, in the order of the file.

    Raises:
        DataError: the file is missing, damaged, truncated, or holds pickled objects.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            named = {i.filename.removesuffix(".npy"): i for i in archive.infolist()}
            return {n: _member(archive, i, path) for n, i in named.items() if only is None or n in only}
    except DataError:
        raise
    except Exception as error:  # zipfile and zlib have no common base class for damaged bytes either
        raise damaged(path, ".npz", error) from error


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> Array:
    with archive.open(info) as stream:
        shape, fortran, dtype, nbytes = header_of(stream, f"{path}, array {info.filename.removesuffix('.npy')!r}")
        if stream.tell() + nbytes > info.file_size:
            raise ValueError(f"{info.filename} is truncated: its header declares {nbytes} bytes of data")
        # read() allocates for the bytes that exist, whatever the archive claims; at the end it verifies the checksum
        data = stream.read(nbytes)
    if len(data) < nbytes:
        raise ValueError(f"{info.filename} is truncated")
    if nbytes == 0:
        return np.empty(shape, dtype)
    return np.frombuffer(data, dtype=dtype).reshape(shape, order="F" if fortran else "C")


def header_of(stream: IO[bytes], origin: str) -> _Header:
    """(shape, Fortran order, type, bytes of data) that the header of a .npy stream declares.

    Raises:
        DataError: it holds pickled objects.
        ValueError: it is damaged.
    """
    version = npy.read_magic(stream)
    if version == (1, 0):
        shape, fortran, dtype = npy.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, fortran, dtype = npy.read_array_header_2_0(stream)
    else:  # version 3.0 exists only for structured types with non-ASCII field names
        raise ValueError(f"format version {version} is not supported")
    if dtype.hasobject:
        raise DataError(
            f"{origin} holds Python objects: pickled arrays are refused, they can run code when loaded",
            hint="save plain numeric arrays of one shape, without dtype=object",
        )
    if dtype.itemsize == 0 or any(size < 0 for size in shape):
        raise ValueError(f"impossible shape {shape} or type {dtype}")
    return shape, fortran, dtype, math.prod(shape) * dtype.itemsize


def damaged(path: Path, kind: str, error: Exception) -> DataError:
    """The error for a file that ``error`` was met in."""
    if isinstance(error, OSError) and error.strerror:
        return DataError(f"{path} cannot be read: {error.strerror}", hint="check that the file exists and may be read")
    reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
    return DataError(
        f"{path} is not a sound {kind} file: {reason}", hint="write it again with numpy.save, numpy.savez or similar"
    )

"""Arrays that stay on disk, so that memory does not grow with the number of samples.

An .npz file is a zip. A member that is stored as it is, as numpy.savez does, is mapped where it lies in the file; a
compressed one (numpy.savez_compressed) is unpacked into a temporary file first, and that is mapped. Either way every
byte is read once, in pieces, and the checksum verified. Small files are simply read.

Pages of a map that have been read count as memory of the process until they are let go: :func:`let_go`.
"""

from __future__ import annotations

import mmap
import struct
import tempfile
import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from qconvert.calibrate.sources._arrays import Array, damaged, header_of, read_npz
from qconvert.errors import DataError

# Below this the file is read: less than an image network's activations.
_SMALL = 8 << 20

_PIECE = 1 << 20

# A local file header: 30 bytes, of which the last four give the lengths of the name and the extra field behind it.
_LOCAL_HEADER, _LENGTHS = 30, 26


def map_npz(path: Path) -> dict[str, Array]:
    """All arrays of an .npz file by name, read-only, on disk where they are large.

    Raises:
        DataError: the file is missing, damaged, truncated, or holds pickled objects.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(i.file_size for i in archive.infolist()) < _SMALL:
                return read_npz(path)
            return {i.filename.removesuffix(".npy"): _member(archive, i, path) for i in archive.infolist()}
    except DataError:
        raise
    except Exception as error:  # zipfile and zlib have no common base class for damaged bytes
        raise damaged(path, ".npz", error) from error


def let_go(array: object) -> None:
    """Tell the system that what has been read of a mapped ``array`` is not needed in memory."""
    base: object = getattr(array, "base", None)
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> Array:
    name = info.filename.removesuffix(".npy")
    with archive.open(info) as stream:
        shape, fortran, dtype, nbytes = header_of(stream, f"{path}, array {name!r}")
        start = stream.tell()
        if start + nbytes > info.file_size:
            raise ValueError(f"{info.filename} is truncated: its header declares {nbytes} bytes of data")
        if nbytes == 0:
            return np.empty(shape, dtype)
        stored = info.compress_type == zipfile.ZIP_STORED
        with path.open("rb") if stored else tempfile.TemporaryFile(prefix="qconvert-") as file:
            if _copy(stream, None if stored else file) < nbytes:
                raise ValueError(f"{info.filename} is truncated")
            offset = _data_offset(file, info) + start if stored else 0
            mapped: Array = np.memmap(
                file,
                dtype=dtype,
                mode="r",
                offset=offset,
                shape=shape,
                order="F" if fortran else "C",
            )
            return mapped


def _copy(stream: IO[bytes], out: IO[bytes] | None) -> int:
    """Read the rest of ``stream``, which verifies its checksum at the end, into ``out`` if given; how many bytes."""
    count = 0
    while piece := stream.read(_PIECE):
        count += len(piece)
        if out is not None:
            out.write(piece)
    if out is not None:
        out.flush()
    return count


def _data_offset(file: IO[bytes], info: zipfile.ZipInfo) -> int:
    file.seek(info.header_offset + _LENGTHS)
    name, extra = struct.unpack("<HH", file.read(4))
    return info.header_offset + _LOCAL_HEADER + int(name) + int(extra)

"""Weights that are made one after the other and kept on disk until the model is written.

A :class:`Spool` is a file in a folder of its own; what is put there comes back as an external tensor, which is mapped
when it is read. So a conversion holds one weight at a time, however large the model.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qconvert.errors import OutputError

# Smaller constants stay in memory.
_LEAST = 4096
_ALIGN = 4096


@dataclass(slots=True, kw_only=True)
class Spool:
    """A file for weights in ``parent``; gone when the block that it is used in ends."""

    parent: Path
    _folder: Path | None = field(default=None, init=False)
    _size: int = field(default=0, init=False)

    def __enter__(self) -> Spool:
        try:
            self._folder = Path(tempfile.mkdtemp(prefix=".qconvert-", dir=self.parent))
        except OSError as error:
            raise _unwritable(self.parent, error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def tensor(self, array: NDArray[np.generic], dtype: ir.DataType | None, name: str) -> ir.TensorProtocol:
        """``array`` as a tensor, on disk if it is large.

        Raises:
            OutputError: the disk is full.
        """
        tensor = ir.Tensor(np.asarray(array, order="C"), dtype=dtype, name=name)
        if self._folder is None or tensor.nbytes < _LEAST:
            return tensor
        offset = -(-self._size // _ALIGN) * _ALIGN
        try:
            with (self._folder / "weights").open("ab") as file:
                file.truncate(offset)
                file.seek(offset)
                file.write(tensor.tobytes())
        except OSError as error:
            raise _unwritable(self.parent, error) from error
        self._size = offset + tensor.nbytes
        return ir.ExternalTensor(
            "weights",
            offset,
            tensor.nbytes,
            tensor.dtype,
            shape=ir.Shape(tensor.shape.numpy()),
            name=name,
            base_dir=self._folder,
        )


def _unwritable(parent: Path, error: OSError) -> OutputError:
    return OutputError(
        f"cannot keep weights in {parent} until the model is written: {error.strerror}",
        hint="choose another --output; its folder needs room for the model twice",
    )

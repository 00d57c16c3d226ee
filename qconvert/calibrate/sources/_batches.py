"""Rows to samples: where a model fixes its batch at b > 1, a sample is b rows one after the other.

input [8, 3, 32, 32], rows [3, 32, 32]     sample i = rows 8 i .. 8 i + 7, stacked; rows left over are dropped
"""

from __future__ import annotations

import numpy as np

from qconvert.calibrate.source import Array, Sample, Source
from qconvert.errors import DataError
from qconvert.graph.session import IOSpec


class Batches(Source):
    """A source whose samples are several rows of another one.

    Args:
        rows: the source of rows; each array lacks the batch axis.
        size: rows a sample.

    Raises:
        DataError: there are fewer rows than that.
    """

    def __init__(self, rows: Source, size: int) -> None:
        self.name = rows.name
        self._rows = rows
        self._size = size
        self._count = len(rows) // size
        if 0 < len(rows) < size:
            raise DataError(
                f"{rows.name} has {len(rows)} rows, the model's batch is {size}",
                hint=f"give at least {size} rows, better several times as many",
            )
        left = len(rows) - self._count * size
        self.warnings = rows.warnings
        if left:
            self.warnings += (
                f"{rows.name}: the last {left} of {len(rows)} rows fill no batch of {size} and are left out",
            )
        if rows.labels is not None:
            self.labels = rows.labels[: self._count * size].reshape(self._count, size)
        self.label_names = rows.label_names

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Sample:
        at = range(self._count)[index]
        parts = [self._rows[i] for i in range(at * self._size, (at + 1) * self._size)]
        arrays: dict[str, Array] = {}
        for name in parts[0].arrays:
            each = [part.arrays[name] for part in parts]
            if len({a.shape for a in each}) > 1:
                raise DataError(
                    f"{parts[0].origin} and the rows after it differ in shape; the model takes {self._size} at once",
                    hint="bring them to one size, or export the model with a symbolic batch",
                )
            arrays[name] = np.stack(each)
        return Sample(arrays=arrays, origin=f"{parts[0].origin} .. {parts[-1].origin}", stacked=True)

    def identity(self, index: int) -> str:
        """The identities of its rows."""
        at = range(self._count)[index]
        return "; ".join(self._rows.identity(i) for i in range(at * self._size, (at + 1) * self._size))


def batched(rows: Source, interface: tuple[IOSpec, ...]) -> Source:
    """``rows``, grouped where the inputs fix one batch beyond 1."""
    fixed = {spec.shape[0] for spec in interface if spec.shape and isinstance(spec.shape[0], int) and spec.shape[0] > 1}
    return Batches(rows, fixed.pop()) if len(fixed) == 1 else rows


def row_shape(spec: IOSpec) -> tuple[int | str | None, ...]:
    """The shape of a row of this input: without its batch axis."""
    return spec.shape[1:]

"""Stacked data: arrays that hold all samples along axis 0. What axis 0 means follows from the model's rank r.

    array of rank r + 1   [N, ...]        sample i = array[i]
    array of rank r       [N, ...]        sample i = array[i : i + 1], the leading axis being the model's batch axis
    ... and a fixed batch b > 1           sample i = array[i * b : (i + 1) * b]; rows that fill no batch are dropped

Each array decides for itself: a scalar input [] comes as [N] beside images [N, 3, H, W]. Where one input fixes the
batch at b, a symbolic batch of another input follows it. A shape of () is rank 0 or an unknown rank, ONNX Runtime tells
both alike: sample i = array[i].
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from qconvert.calibrate.fingerprint import fingerprint
from qconvert.calibrate.source import Array, Sample, Source, match_inputs
from qconvert.calibrate.sources._mapped import let_go
from qconvert.errors import DataError
from qconvert.graph.session import IOSpec


class Stack(Source):
    """A source over stacked arrays, in memory or mapped; samples are views or copies.

    Args:
        path: the file.
        arrays: the arrays by stored name, each [N, ...].
        interface: the model's inputs.
        detail: what else decides the arrays, for the listing.

    Raises:
        DataError: an input has no array, a rank does not fit, the arrays disagree on the number of samples, or there
            are fewer rows than the model's fixed batch.
    """

    def __init__(
        self, path: Path, arrays: Mapping[str, Array], interface: tuple[IOSpec, ...], *, detail: str = ""
    ) -> None:
        self.name = name = str(path)
        self._path = path
        self._detail = detail
        self._fingerprint = ""
        self.arrays = arrays
        matched = match_inputs(arrays, interface, name)
        used = {matched[spec.name]: spec for spec in interface}
        for key, spec in used.items():
            _check_rank(name, key, spec, arrays[key])
        fixed = {d for k, s in used.items() if (d := _batch(s, arrays[k])) > 1}
        common = fixed.pop() if len(fixed) == 1 else 1
        # rows a sample; 0 stands for array[i], which removes the axis
        self._rows = {k: _rows(s, arrays[k], common) for k, s in used.items()}
        counts = {k: len(arrays[k]) // max(1, rows) for k, rows in self._rows.items()}
        for key, rows in self._rows.items():
            if 0 < len(arrays[key]) < rows:
                raise DataError(
                    f"{name}: array {key!r} has {len(arrays[key])} rows, the model's batch for input "
                    f"{used[key].name!r} is {rows}",
                    hint=f"give at least {rows} rows, better several times as many",
                )
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{key!r} {count}" for key, count in counts.items())
            raise DataError(
                f"{name}: the arrays disagree on the number of samples: {listed}",
                hint="stack the same samples, in the same order, along axis 0 of every array",
            )
        self._count = min(counts.values())
        self.warnings = tuple(
            f"{name}: the last {left} of {len(arrays[k])} rows of {k!r} fill no batch of {rows} and are left out"
            for k, rows in self._rows.items()
            if (left := len(arrays[k]) - self._count * max(1, rows))
        )

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Sample:
        at = range(self._count)[index]
        arrays = dict(self.arrays)  # arrays that feed nothing stay, uncut, so that the user can be told about them
        for key, rows in self._rows.items():
            cut = arrays[key][at * rows : (at + 1) * rows] if rows else arrays[key][at]
            # an element of a vector is a numpy scalar; a part of a map is copied, and its pages are let go
            arrays[key] = np.array(cut) if isinstance(arrays[key], np.memmap) else np.asarray(cut)
            let_go(self.arrays[key])
        return Sample(arrays=arrays, origin=f"{self.name}[{at}]", stacked=True)

    def identity(self, index: int) -> str:
        """The whole file, and which of its samples."""
        if not self._fingerprint:
            self._fingerprint = f"{fingerprint(self._path)} {self._detail}".rstrip()
        return f"{self._fingerprint} [{range(self._count)[index]}]"


def _check_rank(name: str, key: str, spec: IOSpec, array: Array) -> None:
    rank = len(spec.shape)
    if array.ndim == 0 or (rank and array.ndim not in (rank, rank + 1)):
        wanted = f"rank {rank} or {rank + 1}" if rank else "rank 1 or more"
        sizes = ", ".join("?" if size is None else str(size) for size in spec.shape)
        told = f"the model takes {spec.name!r} as [{sizes}]; " if rank else ""
        raise DataError(
            f"{name}: array {key!r} for input {spec.name!r} has shape {list(array.shape)}; stacked data need {wanted}",
            hint=f"{told}stack samples along axis 0, or check that these are the data of this model",
        )


def _batch(spec: IOSpec, array: Array) -> int:
    """The batch size that the model fixes for an array whose axis 0 is the batch axis; 0 where it fixes none."""
    if not spec.shape or array.ndim != len(spec.shape):
        return 0
    return spec.shape[0] if isinstance(spec.shape[0], int) else 0


def _rows(spec: IOSpec, array: Array, common: int) -> int:
    if not spec.shape or array.ndim == len(spec.shape) + 1:
        return 0
    return _batch(spec, array) or common

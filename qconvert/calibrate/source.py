"""Where samples come from. ``open_source`` picks the kind of source that fits a path.

A kind of source is one file in ``qconvert/calibrate/sources``: it adds a :class:`SourceFactory` to ``SOURCES``. No list
of kinds or suffixes exists elsewhere: a path that two kinds claim is a mixture, one that none claims is unknown.

Sources read as late as they can: opening one lists files, or maps them; only the sample that is asked for is read.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from qconvert.errors import DataError
from qconvert.graph.session import IOSpec
from qconvert.registry import Registry

Array = NDArray[np.generic]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """One sample as stored, not yet checked against the model.

    Attributes:
        arrays: its arrays by the name under which they are stored.
        origin: where it lies, for messages: "calib/00012.npz", "calib.npz[12]".
        stacked: it was cut from arrays that stack all samples along axis 0; its ranks are then the model's already.
    """

    arrays: Mapping[str, Array]
    origin: str
    stacked: bool


class Source(Protocol):
    """Samples by number; every access reads afresh, nothing is kept."""

    @property
    def name(self) -> str:
        """The path as the user gave it."""
        ...

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know about the source (rows dropped); usually nothing."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFactory:
    """One kind of source.

    Attributes:
        description: what a path of this kind is, for messages: "a folder of .npz files, one sample a file".
        matches: whether a path is of this kind; looks at names only.
        open: the source; raises DataError when the files do not suit the model.
    """

    description: str
    matches: Callable[[Path], bool]
    open: Callable[[Path, tuple[IOSpec, ...]], Source]


SOURCES: Registry[SourceFactory] = Registry("data source")
SOURCES.discover("qconvert.calibrate.sources")


class Items:
    """A source in which every sample is a file or a folder of its own.

    Args:
        name: the path as the user gave it.
        paths: one path a sample, in order.
        read: reads the arrays of one of them.
    """

    def __init__(self, name: str, paths: tuple[Path, ...], read: Callable[[Path], Mapping[str, Array]]) -> None:
        self.name = name
        self.warnings: tuple[str, ...] = ()
        self._paths = paths
        self._read = read

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Sample:
        path = self._paths[index]
        return Sample(arrays=self._read(path), origin=str(path), stacked=False)


def open_source(path: Path | str, interface: tuple[IOSpec, ...]) -> Source:
    """The samples at ``path`` for a model with these inputs.

    Raises:
        DataError: nothing is there, no kind of source or more than one fits, the files are damaged, or the model has
            inputs that cannot be fed.
    """
    path = Path(path)
    check_interface(interface)
    kinds = "usable are: " + "; ".join(SOURCES.get(name).description for name in SOURCES.names())
    try:
        if not path.exists():
            raise DataError(f"there is no data at {path}: no such file or folder", hint=f"check the path; {kinds}")
        found = [name for name in SOURCES.names() if SOURCES.get(name).matches(path)]
        if len(found) == 1:
            return SOURCES.get(found[0]).open(path, interface)
        contents = _contents(path) if path.is_dir() else ""
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}", hint="check its permissions") from error
    if found:
        raise DataError(
            f"folder {path} mixes kinds of data: {' and '.join(found)} both fit ({contents})",
            hint="keep one kind in the folder and put the rest, labels too, somewhere else",
        )
    if path.is_dir():
        raise DataError(f"folder {path} has no usable data: it holds {contents}", hint=kinds)
    raise DataError(f"{path} is of an unknown kind: suffix {path.suffix!r}", hint=kinds)


def check_interface(interface: tuple[IOSpec, ...]) -> None:
    """Refuse models that no data can be fed to.

    Raises:
        DataError: there are no inputs, or one is not a tensor.
    """
    if not interface:
        raise DataError(
            "the model has no inputs: there is nothing to feed",
            hint="its result is a constant; qconvert calibrates models that read something",
        )
    for spec in interface:
        if not spec.is_tensor:
            raise DataError(
                f"input {spec.name!r} is {spec.dtype}: only tensors can be fed",
                hint="export the model with plain tensor inputs",
            )


def match_inputs(names: Iterable[str], interface: tuple[IOSpec, ...], origin: str) -> dict[str, str]:
    """Which stored array feeds which input: {input name: array name}, in the model's order.

    Arrays match by name. One array for a model of one input matches under any name ("arr_0"). Arrays that belong to no
    input are left out.

    Raises:
        DataError: an input has no array.
    """
    names = tuple(names)
    if len(interface) == 1 and len(names) == 1:
        return {interface[0].name: names[0]}
    for spec in interface:
        if spec.name in names:
            continue
        taken = {other.name for other in interface}
        near = difflib.get_close_matches(spec.name, [name for name in names if name not in taken], n=1)
        lead = f"is {near[0]!r} meant? " if near else ""
        inputs = ", ".join(repr(other.name) for other in interface)
        raise DataError(
            f"{origin} has no array for input {spec.name!r}; it holds {', '.join(map(repr, names)) or 'no arrays'}",
            hint=f"{lead}name the arrays after the model's inputs: {inputs}",
        )
    return {spec.name: spec.name for spec in interface}


def visible(folder: Path, pattern: str = "*") -> tuple[Path, ...]:
    """Entries of a folder that match ``pattern`` in any case and are not hidden, in natural order: 2 before 10."""
    wanted = re.compile(re.escape(pattern).replace(r"\*", ".*"), re.IGNORECASE)
    # Hidden entries are what systems leave behind: .DS_Store, ._sample.npz
    entries = (p for p in folder.iterdir() if not p.name.startswith(".") and wanted.fullmatch(p.name))
    return tuple(sorted(entries, key=lambda p: natural(p.name)))


def natural(name: str) -> tuple[list[str | int], str]:
    """Sort key in which runs of digits count as numbers; the name itself breaks ties (1 and 01)."""
    parts = re.split(r"(\d+)", name)  # text and digits alternate, so that like is compared with like
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name


def files_of(path: Path, suffix: str) -> tuple[Path, ...]:
    """The files with this suffix in a folder, in natural order; none when ``path`` is no folder."""
    return tuple(p for p in visible(path, f"*{suffix}") if p.is_file()) if path.is_dir() else ()


def _contents(folder: Path) -> str:
    counts = Counter("folders" if p.is_dir() else f"{p.suffix or 'suffixless'} files" for p in visible(folder))
    return ", ".join(f"{n} {what if n > 1 else what[:-1]}" for what, n in counts.most_common(6)) or "nothing"

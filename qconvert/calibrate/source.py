"""Where samples come from. ``open_source`` picks the kind of source that fits what the user wrote.

A kind of source is one file in ``qconvert/calibrate/sources``: it adds a :class:`SourceFactory` to ``SOURCES``. No list
of kinds or suffixes exists elsewhere: a path that two kinds claim is a mixture, one that none claims is unknown.

Sources read as late as they can: opening one lists files, or maps them; only the sample that is asked for is read.
"""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qconvert.calibrate.fingerprint import fingerprint, relative
from qconvert.calibrate.folder import visible
from qconvert.calibrate.place import Place, split_qualifier
from qconvert.calibrate.preprocess import Preprocess
from qconvert.errors import DataError
from qconvert.graph.session import IOSpec
from qconvert.registry import Registry

Array = NDArray[np.generic]
ClassNumbers = NDArray[np.int64]


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


class Source(ABC):
    """Samples by number; every access reads afresh, nothing is kept.

    Attributes:
        name: the path as the user gave it.
        warnings: what the user should know about the source (rows dropped); usually nothing.
        labels: class numbers where the source knows them, [N]; [N, b] where a sample is b rows, a batch that the model
            fixes.
        label_names: the name of each class.
    """

    name: str
    warnings: tuple[str, ...] = ()
    labels: ClassNumbers | None = None
    label_names: tuple[str, ...] | None = None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Sample: ...

    @abstractmethod
    def identity(self, index: int) -> str:
        """One line that identifies the content of a sample, wherever the data lie; made when asked for."""

    def listing(self) -> tuple[str, ...]:
        """The identity of every sample, in order."""
        return tuple(self.identity(i) for i in range(len(self)))


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFactory:
    """One kind of source.

    Attributes:
        description: what it is and how it is written, for messages: "a folder of .npz files, one sample a file".
        open: the source; raises DataError when the data do not suit the model.
        matches: whether a path is of this kind; looks at names only.
        scheme: for kinds that are no path, the word before the first colon: "random" for "random:20".
        qualifier: what may follow a path of this kind after a colon, "rate=HZ"; "" where nothing may.
        preprocesses: whether it turns images into numbers, as --preprocess says.
    """

    description: str
    open: Callable[[Place, tuple[IOSpec, ...]], Source]
    matches: Callable[[Path], bool] = lambda path: False
    scheme: str = ""
    qualifier: str = ""
    preprocesses: bool = False


SOURCES: Registry[SourceFactory] = Registry("data source")
SOURCES.discover("qconvert.calibrate.sources")


class Items(Source):
    """A source in which every sample is a file or a folder of its own.

    Args:
        name: the path as the user gave it.
        paths: one path a sample, in order.
        read: reads the arrays of one of them.
        root: what the names of the listing are relative to.
        detail: what else decides the arrays (a preprocessing), for the listing.
    """

    def __init__(
        self,
        name: str,
        paths: tuple[Path, ...],
        read: Callable[[Path], Mapping[str, Array]],
        *,
        root: Path | None = None,
        detail: str = "",
    ) -> None:
        self.name = name
        self._paths = paths
        self._read = read
        self._root = Path(name) if root is None else root
        self._detail = detail
        self._identities: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Sample:
        path = self._paths[index]
        return Sample(arrays=self._read(path), origin=str(path), stacked=False)

    def identity(self, index: int) -> str:
        """Name, size and digest of the file; for a folder, of each file in it."""
        if index not in self._identities:
            path = self._paths[index]
            files = [p for p in visible(path) if p.is_file()] if path.is_dir() else [path]
            lines = "; ".join(fingerprint(file, relative(file, self._root)) for file in files)
            self._identities[index] = f"{lines} {self._detail}".rstrip()
        return self._identities[index]


def open_source(
    text: Path | str, interface: tuple[IOSpec, ...], *, preprocess: Preprocess | None = None, seed: int = 0
) -> Source:
    """The samples at ``text`` for a model with these inputs.

    Args:
        text: a path, a path with a qualifier ("data.bin:float32:3x8x8"), or a scheme ("random:20").
        interface: the model's inputs.
        preprocess: what is done to images.
        seed: of what is random.

    Raises:
        DataError: nothing is there, no kind of source or more than one fits, the files are damaged, or the model has
            inputs that cannot be fed.
    """
    text = str(text)
    check_interface(interface)
    if not text:  # Path("") would be the current directory
        raise DataError("an empty path was given for the data", hint=f"give a path; {usable()}")
    try:
        found, place = _place(text, preprocess, seed)
        if len(found) == 1:
            return _open(found[0], place, interface)
        contents = _contents(place.path) if place.path.is_dir() else ""
    except OSError as error:
        raise DataError(f"{text} cannot be read: {error.strerror or error}", hint="check its permissions") from error
    if found:
        raise DataError(
            f"folder {place.path} mixes kinds of data: {' and '.join(found)} both fit ({contents})",
            hint="keep one kind in the folder and put the rest, labels too, somewhere else",
        )
    if place.path.is_dir():
        raise DataError(f"folder {place.path} has no usable data: it holds {contents}", hint=usable())
    raise DataError(f"{place.path} is of an unknown kind: suffix {place.path.suffix!r}", hint=usable())


def usable() -> str:
    """The kinds of source, for a hint."""
    return "usable are:" + "".join(f"\n  - {kind.description}" for kind in SOURCES)


def _check_path(text: str) -> str:
    """What to do about a path that is not there; "ramdom:20" may be no path at all."""
    looked = "check the path" if Path(text).is_absolute() else f"check the path; it is looked for in {Path.cwd()}"
    return f"{looked}; {usable()}" if ":" in text else looked


def _place(text: str, preprocess: Preprocess | None, seed: int) -> tuple[list[str], Place]:
    """The kinds that claim ``text``, and what it is made of."""
    place = Place(text=text, path=Path(text), preprocess=preprocess, seed=seed)
    scheme, colon, rest = text.partition(":")
    if colon and not place.path.exists():  # a file of that name wins
        named = [name for name in SOURCES.names() if SOURCES.get(name).scheme == scheme]
        if named:
            return named, place.qualified(place.path, rest)
    path, qualifier = split_qualifier(text)
    if not path.exists():
        raise DataError(f"there is no data at {text}: no such file or folder", hint=_check_path(text))
    return [name for name in SOURCES.names() if SOURCES.get(name).matches(path)], place.qualified(path, qualifier)


def _open(name: str, place: Place, interface: tuple[IOSpec, ...]) -> Source:
    kind = SOURCES.get(name)
    if place.qualifier and not (kind.qualifier or kind.scheme):
        raise DataError(
            f"{place.text}: nothing may follow the path, {place.path} is {kind.description}",
            hint=f"give {place.path}",
        )
    source = kind.open(place, interface)
    if place.preprocess is not None and not kind.preprocesses:
        source.warnings += (f"{place.text}: --preprocess is for images; these values are used as they are",)
    return source


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


def _contents(folder: Path) -> str:
    counts = Counter("folders" if p.is_dir() else f"{p.suffix or 'suffixless'} files" for p in visible(folder))
    return ", ".join(f"{n} {what if n > 1 else what[:-1]}" for what, n in counts.most_common(6)) or "nothing"

"""Looking into folders of samples: natural order, hidden files left out, class sub-folders."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qconvert.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClassFolder:
    """The files of a folder, or of its class sub-folders.

    Attributes:
        files: the files, class by class, in natural order within each.
        labels: the class number of each file, [N]; None without sub-folders.
        names: the sub-folders' names, class 0 first; None without sub-folders.
        warnings: what is odd about the sub-folders.
    """

    files: tuple[Path, ...]
    labels: NDArray[np.int64] | None = None
    names: tuple[str, ...] | None = None
    warnings: tuple[str, ...] = ()


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


def files_of(path: Path, *suffixes: str) -> tuple[Path, ...]:
    """The files with one of these suffixes in a folder, in natural order; none when ``path`` is no folder."""
    if not path.is_dir():
        return ()
    return tuple(p for p in visible(path) if p.name.lower().endswith(suffixes) and p.is_file())


def holds_files(path: Path, *suffixes: str) -> bool:
    """Whether a folder or one of its sub-folders holds a file with one of these suffixes."""
    return bool(files_of(path, *suffixes)) or any(_any_file(folder, suffixes) for folder in _folders(path))


def class_folder(path: Path, *suffixes: str) -> ClassFolder:
    """The files with these suffixes in ``path``, or in its sub-folders, each of which is then a class.

    Classes are numbered by name, sorted as text, as training frameworks do it; an empty one keeps its number.

    Raises:
        DataError: files lie beside sub-folders that hold files too.
    """
    own, folders = files_of(path, *suffixes), _folders(path)
    filled = {folder: files for folder in folders if (files := files_of(folder, *suffixes))}
    if own and filled:
        raise DataError(
            f"folder {path} holds {_count(own)} and {_count(filled, 'sub-folder')} with more of them: "
            "are the sub-folders classes?",
            hint="put every file into a sub-folder, the name of its class, or all into the folder itself",
        )
    if not filled:
        return ClassFolder(files=own)
    classes = sorted(folders, key=lambda p: p.name)
    return ClassFolder(
        files=tuple(file for folder in classes for file in filled.get(folder, ())),
        labels=np.repeat(np.arange(len(classes)), [len(filled.get(folder, ())) for folder in classes]),
        names=tuple(folder.name for folder in classes),
        warnings=tuple(_odd(path, classes, [folder for folder in classes if folder not in filled])),
    )


def _odd(path: Path, classes: list[Path], empty: list[Path]) -> Iterable[str]:
    if empty:
        yield f"{path}: no samples of {_count(empty, 'class', 'classes')}: {', '.join(p.name for p in empty[:5])}"
    by_number = sorted(classes, key=lambda p: natural(p.name))
    if by_number != classes:
        at = next(i for i, pair in enumerate(zip(classes, by_number, strict=True)) if pair[0] != pair[1])
        yield (
            f"{path}: classes are numbered by name as text, so class {at} is folder {classes[at].name!r} and not "
            f"{by_number[at].name!r}; pad the numbers with zeros if that is not how the model was trained"
        )


def _folders(path: Path) -> tuple[Path, ...]:
    return tuple(p for p in visible(path) if p.is_dir()) if path.is_dir() else ()


def _any_file(folder: Path, suffixes: tuple[str, ...]) -> bool:
    try:
        entries = list(folder.iterdir())
    except PermissionError:  # lost+found at the root of a disk: not a part of the data
        return False
    return any(p.name.lower().endswith(suffixes) and not p.name.startswith(".") and p.is_file() for p in entries)


def _count(things: Iterable[object], one: str = "file", many: str = "") -> str:
    count = len(list(things))
    return f"{count} {one if count == 1 else many or one + 's'}"

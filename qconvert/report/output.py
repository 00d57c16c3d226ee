"""Places to write to, checked before any work is done, and written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from qconvert.errors import OutputError


def check_output(path: Path, *, force: bool, inputs: Iterable[Path] = ()) -> None:
    """Refuse a place that cannot or must not be written.

    Raises:
        OutputError: no such folder, not writable, exists without ``force``, or is one of the ``inputs``.
    """
    parent = path.parent
    if not parent.is_dir():
        raise OutputError(f"cannot write {path}: there is no folder {parent}", hint=f"create it: mkdir -p {parent}")
    if path.is_dir():
        raise OutputError(f"cannot write {path}: it is a folder", hint="give a file name")
    if any(i.exists() and path.exists() and i.samefile(path) for i in inputs):
        raise OutputError(
            f"{path} is the model itself, or data that this run reads",
            hint="give another place; an original is never replaced",
        )
    if path.exists() and not force:
        raise OutputError(f"{path} exists", hint="give another --output, or --force to replace it")
    if not os.access(parent, os.W_OK):
        raise OutputError(f"cannot write to {parent}: no permission", hint="give another --output")


def check_distinct(places: Iterable[tuple[str, Path]]) -> None:
    """Refuse outputs of one run that would replace each other; each comes with the option that names it.

    Raises:
        OutputError: two are the same file.
    """
    taken: dict[Path, str] = {}
    for option, path in places:
        file = path.resolve()
        if file in taken:
            raise OutputError(f"{path} is named by {taken[file]} and by {option}", hint="give each a file of its own")
        taken[file] = option


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` in UTF-8, as :func:`write_bytes` does."""
    write_bytes(path, text.encode())


def append_text(path: Path, text: str) -> None:
    """Add ``text`` to the end of ``path``, which need not exist, in UTF-8.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}", hint="give another place") from error


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` through a temporary file beside it.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            # mkstemp makes private files; a report is as readable as any other new file
            mask = os.umask(0)
            os.umask(mask)
            Path(name).chmod(0o666 & ~mask)
            Path(name).replace(path)
        finally:
            Path(name).unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}", hint="give another place") from error

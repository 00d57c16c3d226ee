"""A folder of statistics files that are found again by what they were made from.

    key = SHA-256 of (model, graph, method, data listing, versions)

The listing names every sample by the content of its file, so a changed file is another key; nothing ever goes stale,
and nothing is deleted but by hand. Opt-in, because files in places that nobody asked for are a surprise.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from qconvert.errors import OutputError


def cache_file(folder: Path, parts: Iterable[str]) -> Path:
    """The file in ``folder`` for statistics made from ``parts``; the folder is made if need be.

    Raises:
        OutputError: the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot make the cache folder {folder}: {error.strerror}", hint="give another --cache"
        ) from error
    hashed = hashlib.sha256()
    for part in parts:
        hashed.update(f"{len(part)}:{part}".encode())
    return folder / f"{hashed.hexdigest()[:32]}.npz"

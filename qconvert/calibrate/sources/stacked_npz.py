"""One .npz file whose arrays stack all samples along axis 0. It stays on disk, unless it is small."""

from __future__ import annotations

from pathlib import Path

from qconvert.calibrate.place import Place
from qconvert.calibrate.source import SOURCES, Source, SourceFactory
from qconvert.calibrate.sources._mapped import map_npz
from qconvert.calibrate.sources._stack import Stack
from qconvert.graph.session import IOSpec


def _matches(path: Path) -> bool:
    """Whether ``path`` is an .npz file."""
    return path.is_file() and path.suffix.lower() == ".npz"


def _open(place: Place, interface: tuple[IOSpec, ...]) -> Source:
    """The rows of the file's arrays as samples.

    Raises:
        DataError: the file is damaged, or its arrays do not fit the model or each other.
    """
    return Stack(place.path, map_npz(place.path), interface)


SOURCES.add(
    "stacked_npz",
    SourceFactory(description="one .npz file, samples stacked along axis 0", matches=_matches, open=_open),
)

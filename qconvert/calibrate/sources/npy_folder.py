"""A folder of .npy files: each file is one sample of a model with one input."""

from __future__ import annotations

from pathlib import Path

from qconvert.calibrate.folder import files_of
from qconvert.calibrate.place import Place
from qconvert.calibrate.source import SOURCES, Array, Items, Source, SourceFactory
from qconvert.calibrate.sources._arrays import read_npy
from qconvert.calibrate.sources._single import the_input
from qconvert.graph.session import IOSpec


def _matches(path: Path) -> bool:
    """Whether ``path`` is a folder with .npy files."""
    return bool(files_of(path, ".npy"))


def _open(place: Place, interface: tuple[IOSpec, ...]) -> Source:
    """One sample a file, in natural order of the names.

    Raises:
        DataError: the model has several inputs.
    """
    name = the_input(place.path, interface)

    def read(file: Path) -> dict[str, Array]:
        return {name: read_npy(file)}

    return Items(place.text, files_of(place.path, ".npy"), read)


SOURCES.add(
    "npy_folder",
    SourceFactory(
        description="a folder of .npy files, one sample a file (models with one input)", matches=_matches, open=_open
    ),
)

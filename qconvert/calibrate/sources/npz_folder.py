"""A folder of .npz files: each file is one sample, its arrays named after the model's inputs."""

from __future__ import annotations

from pathlib import Path

from qconvert.calibrate.folder import files_of
from qconvert.calibrate.place import Place
from qconvert.calibrate.source import SOURCES, Items, Source, SourceFactory
from qconvert.calibrate.sources._arrays import read_npz
from qconvert.graph.session import IOSpec


def _matches(path: Path) -> bool:
    """Whether ``path`` is a folder with .npz files."""
    return bool(files_of(path, ".npz"))


def _open(place: Place, interface: tuple[IOSpec, ...]) -> Source:
    """One sample a file, in natural order of the names."""
    del interface
    return Items(place.text, files_of(place.path, ".npz"), read_npz)


SOURCES.add(
    "npz_folder",
    SourceFactory(description="a folder of .npz files, one sample a file", matches=_matches, open=_open),
)

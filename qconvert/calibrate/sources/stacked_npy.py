"""One .npy file that stacks all samples along axis 0, for a model with one input. It is memory-mapped."""

from __future__ import annotations

from pathlib import Path

from qconvert.calibrate.place import Place
from qconvert.calibrate.source import SOURCES, Source, SourceFactory
from qconvert.calibrate.sources._arrays import map_npy
from qconvert.calibrate.sources._single import the_input
from qconvert.calibrate.sources._stack import Stack
from qconvert.graph.session import IOSpec


def _matches(path: Path) -> bool:
    """Whether ``path`` is a .npy file."""
    return path.is_file() and path.suffix.lower() == ".npy"


def _open(place: Place, interface: tuple[IOSpec, ...]) -> Source:
    """The rows of the array as samples.

    Raises:
        DataError: the model has several inputs, the file is damaged, or its rank does not fit.
    """
    name = the_input(place.path, interface)
    return Stack(place.path, {name: map_npy(place.path)}, interface)


SOURCES.add(
    "stacked_npy",
    SourceFactory(
        description="one .npy file, samples stacked along axis 0 (models with one input)", matches=_matches, open=_open
    ),
)

"""Files that hold one array without a name can feed only a model with one input."""

from __future__ import annotations

from pathlib import Path

from qconvert.errors import DataError
from qconvert.graph.session import IOSpec


def the_input(path: Path, interface: tuple[IOSpec, ...]) -> str:
    """The name of the model's only input.

    Raises:
        DataError: it has several.
    """
    if len(interface) != 1:
        names = ", ".join(repr(spec.name) for spec in interface)
        raise DataError(
            f"{path}: .npy data carry no names, and the model has {len(interface)} inputs: {names}",
            hint="save .npz files whose arrays are named after the inputs",
        )
    return interface[0].name

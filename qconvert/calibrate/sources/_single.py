"""Files that hold one array without a name can feed only a model with one input."""

from __future__ import annotations

from pathlib import Path

from qconvert.errors import DataError
from qconvert.graph.session import IOSpec


def the_input(path: Path | str, interface: tuple[IOSpec, ...], what: str = ".npy data") -> str:
    """The name of the model's only input; ``what`` the data are, for the message.

    Raises:
        DataError: it has several.
    """
    if len(interface) != 1:
        names = ", ".join(repr(spec.name) for spec in interface)
        raise DataError(
            f"{path}: {what} carry no names, and the model has {len(interface)} inputs: {names}",
            hint="give each input its own data, input=path once for each, or save .npz files with an array for each",
        )
    return interface[0].name

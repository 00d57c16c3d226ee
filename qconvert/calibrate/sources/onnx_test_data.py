"""ONNX test data: folders test_data_set_0, test_data_set_1, ... with input_0.pb, input_1.pb, ...; or one such folder.

Each folder is one sample. input_i.pb is a TensorProto for the model's i-th input, whatever name is written in it:
exporters leave the name empty or stale. A TensorProto can point to other files ("external data"); such data is refused.
"""

from __future__ import annotations

import re
from pathlib import Path

import onnx
from onnx import numpy_helper

from qconvert.calibrate.folder import files_of, visible
from qconvert.calibrate.place import Place
from qconvert.calibrate.source import SOURCES, Array, Items, Source, SourceFactory
from qconvert.errors import DataError
from qconvert.graph.session import IOSpec


def _matches(path: Path) -> bool:
    """Whether ``path`` is or holds folders with input_*.pb."""
    return bool(_sets(path))


def _open(place: Place, interface: tuple[IOSpec, ...]) -> Source:
    """One sample a folder, in natural order of the names."""

    def read(folder: Path) -> dict[str, Array]:
        return {_input_name(file, interface): _tensor(file) for file in _inputs(folder)}

    return Items(place.text, _sets(place.path), read)


def _sets(path: Path) -> tuple[Path, ...]:
    if not path.is_dir():
        return ()
    if _inputs(path):
        return (path,)
    return tuple(folder for folder in visible(path, "test_data_set_*") if _inputs(folder))


def _inputs(folder: Path) -> tuple[Path, ...]:
    return tuple(file for file in files_of(folder, ".pb") if re.fullmatch(r"input_\d+", file.stem))


def _input_name(file: Path, interface: tuple[IOSpec, ...]) -> str:
    index = int(file.stem.removeprefix("input_"))
    return interface[index].name if index < len(interface) else file.stem


def _tensor(file: Path) -> Array:
    tensor = onnx.TensorProto()
    try:
        tensor.ParseFromString(file.read_bytes())
        if len(tensor.external_data) > 0 or tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise DataError(
                f"{file} keeps its values in another file: external data is refused in test data",
                hint="save the tensor with its values inside",
            )
        # The wire format has no types: a SequenceProto or OptionalProto parses as a TensorProto that has a "segment" or
        # no values, and to_array raises for both
        array: Array = numpy_helper.to_array(tensor)
        return array
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}", hint="check its permissions") from error
    except Exception as error:  # protobuf's DecodeError has no public base that onnx promises; to_array raises at will
        raise DataError(
            f"{file} does not hold a tensor: damaged, or a SequenceProto or OptionalProto",
            hint="save each input as one TensorProto: onnx.save_tensor(onnx.numpy_helper.from_array(x), path)",
        ) from error


SOURCES.add(
    "test_data_sets",
    SourceFactory(
        description="ONNX test data, a folder of test_data_set_*/input_*.pb or one of these",
        matches=_matches,
        open=_open,
    ),
)

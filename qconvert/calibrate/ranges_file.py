"""Statistics kept in a file, so that a model can be calibrated once, in shares, or on another machine.

An .npz file without pickled objects: ``header`` is a JSON text, and every statistic is a few arrays under its number
("3/counts"). The file is addressed by content: it names the model by the SHA-256 of its bytes, the graph that was
observed, the data by a digest of all samples, and the versions that made it. Equal runs write equal bytes, and so does
a merge of all shards: statistics merge exactly, and the digest of the data is a sum over the samples.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qconvert.calibrate.method import METHODS, serves
from qconvert.calibrate.sources._arrays import read_npz
from qconvert.calibrate.witness import MODULUS
from qconvert.errors import DataError
from qconvert.stats.statistic import Statistic, StatsTable

FORMAT = "qconvert statistics"
VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where statistics come from.

    Attributes:
        model: name of the model's file, for messages.
        model_sha256: SHA-256 of the model, data files included.
        graph_sha256: SHA-256 of the names and operators of the graph that was observed.
        method: the calibration method that they were collected for.
        data: sum modulo 2**256 of the digests of all samples, in hexadecimal digits.
        samples: how many samples.
        shards, parts: the numbers of the shards that are in it, of how many; () and 1 where it is whole.
        qconvert, onnxruntime, numpy: versions.
    """

    model: str
    model_sha256: str
    graph_sha256: str
    method: str
    data: str
    samples: int
    qconvert: str
    onnxruntime: str
    numpy: str
    shards: tuple[int, ...] = ()
    parts: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranges:
    """Statistics of a model.

    Attributes:
        origin: where they come from.
        tables: by graph: "" is the main graph, "If_12/then_branch" the branch of an If node.
    """

    origin: Origin
    tables: Mapping[str, StatsTable]


def ranges_to_bytes(ranges: Ranges) -> bytes:
    """The content of a statistics file."""
    arrays: dict[str, NDArray[np.generic]] = {}
    listed: list[dict[str, object]] = []
    for place in sorted(ranges.tables):
        table = ranges.tables[place]
        for tensor in sorted(table):
            number = len(listed)
            listed.append({"graph": place, "tensor": tensor, "kind": type(table[tensor]).__name__})
            arrays.update({f"{number}/{name}": array for name, array in table[tensor].to_arrays().items()})
    samples = {place: table.samples for place, table in ranges.tables.items()}
    header = {
        "format": FORMAT,
        "version": VERSION,
        **asdict(ranges.origin),
        "graph_samples": samples,
        "statistics": listed,
    }
    text = json.dumps(header, sort_keys=True, ensure_ascii=True).encode()
    out = io.BytesIO()
    np.savez_compressed(out, allow_pickle=False, header=np.frombuffer(text, np.uint8), **arrays)
    return out.getvalue()


def load_ranges(path: Path) -> Ranges:
    """Read a statistics file.

    Raises:
        DataError: it is missing, damaged, or of another format or version.
    """
    header, origin = _header(path)
    try:
        tables = {place: StatsTable(samples=int(n)) for place, n in header["graph_samples"].items()}
        kinds = {type(m.needs()).__name__: type(m.needs()) for m in METHODS}
        own: dict[str, dict[str, NDArray[np.generic]]] = {}
        for name, array in read_npz(path).items():
            number, _, part = name.partition("/")
            own.setdefault(number, {})[part] = array
        for i, entry in enumerate(header["statistics"]):
            tables[entry["graph"]].entries[entry["tensor"]] = kinds[entry["kind"]].from_arrays(own.get(str(i), {}))
    except DataError:
        raise
    except Exception as error:  # whatever damaged arrays make numpy or a statistic raise
        raise _damaged(path) from error
    return Ranges(origin=origin, tables=tables)


def load_origin(path: Path) -> Origin:
    """What a statistics file says of where it comes from; errors are those of :func:`load_ranges`."""
    return _header(path)[1]


def _header(path: Path) -> tuple[dict[str, Any], Origin]:
    if not path.is_file():
        raise DataError(f"there is no statistics file at {path}", hint="`qconvert calibrate` writes one")
    arrays = read_npz(path, only=("header",))
    if "header" not in arrays or arrays["header"].dtype != np.uint8:
        raise DataError(
            f"{path} holds no statistics of qconvert", hint="give a file that `qconvert calibrate` or `merge` wrote"
        )
    try:
        header = json.loads(arrays["header"].tobytes())
        if header["format"] != FORMAT:
            raise _damaged(path)
        version = header["version"]
        if version != VERSION:
            raise DataError(
                f"{path} is of version {version!r}, this qconvert reads {VERSION}", hint="calibrate again, or update"
            )
        values = {f.name: header[f.name] for f in fields(Origin)}
        origin = Origin(**{**values, "shards": tuple(values["shards"])})
        int(origin.data, 16)
    except DataError:
        raise
    except Exception as error:  # whatever a damaged header makes json raise
        raise _damaged(path) from error
    return header, origin


def _damaged(path: Path) -> DataError:
    return DataError(f"{path} is not a sound statistics file", hint="write it again with `qconvert calibrate`")


def merge_ranges(files: Sequence[tuple[Path, Ranges]]) -> Ranges:
    """The statistics of all samples of several files.

    Raises:
        DataError: they do not belong together, or a shard comes twice.
    """
    (first_path, first), *others = files
    for path, ranges in others:
        _check_same(first_path, first.origin, path, ranges.origin)
    seen: dict[int, Path] = {}
    for path, ranges in files:
        for shard in ranges.origin.shards:
            if shard in seen:
                raise DataError(
                    f"shard {shard} of {ranges.origin.parts} is in {seen[shard]} and in {path}",
                    hint="give every shard once",
                )
            seen[shard] = path
    origin = first.origin
    whole = set(seen) == set(range(1, origin.parts + 1))
    total = sum(int(r.origin.data, 16) for _, r in files) % MODULUS
    merged = replace(
        origin,
        data=f"{total:064x}",
        samples=sum(r.origin.samples for _, r in files),
        shards=() if whole else tuple(sorted(seen)),
        parts=1 if whole else origin.parts,
    )
    return Ranges(origin=merged, tables=_merged_tables([r.tables for _, r in files]))


def check_ranges(path: Path, origin: Origin, *, model: Path, model_sha256: str, graph_sha256: str) -> None:
    """Refuse statistics of another model.

    Raises:
        DataError: they are of another model, or of another form of it.
    """
    if origin.model_sha256 != model_sha256:
        raise DataError(
            f"{path} holds the ranges of another model: {origin.model} with SHA-256 {origin.model_sha256[:12]}, while "
            f"{model} has {model_sha256[:12]}",
            hint="calibrate this model, or give the file that the ranges were made from",
        )
    if origin.graph_sha256 != graph_sha256:
        raise DataError(
            f"{path} was made from another form of {model}: it was prepared in another way",
            hint="calibrate again, with the same --target: it was made by "
            f"qconvert {origin.qconvert} and ONNX Runtime {origin.onnxruntime}",
        )


def _check_same(a_path: Path, a: Origin, b_path: Path, b: Origin) -> None:
    for field, what in (
        ("model_sha256", "are of different models"),
        ("graph_sha256", "are of different forms of the model"),
        ("method", "were made for different methods"),
        ("parts", "are shards of different divisions"),
        ("qconvert", "were made by different versions of qconvert"),
        ("onnxruntime", "were made by different versions of ONNX Runtime"),
    ):
        x, y = getattr(a, field), getattr(b, field)
        if x != y:
            raise DataError(f"{a_path} and {b_path} {what}: {x} and {y}", hint="calibrate both in the same way")


def _merged_tables(tables: Sequence[Mapping[str, StatsTable]]) -> dict[str, StatsTable]:
    """By graph: the tensors that are in every table that has the graph at all, merged."""
    merged = {}
    for place in sorted({p for t in tables for p in t}):
        parts = [t[place] for t in tables if place in t]
        common = [name for name in parts[0] if all(name in p for p in parts)]
        merged[place] = StatsTable(
            entries={n: reduce(_merge, (p[n] for p in parts)) for n in common}, samples=sum(p.samples for p in parts)
        )
    return merged


def _merge(a: Statistic, b: Statistic) -> Statistic:
    if type(a) is not type(b):
        raise DataError("the files hold different kinds of statistics", hint="calibrate both with the same --method")
    return a.merge(b)


def lacking(table: StatsTable, tensors: Sequence[str], method: str) -> tuple[str, ...]:
    """Those of ``tensors`` for which ``table`` has nothing that ``method`` can use."""
    wanted = METHODS.get(method)
    return tuple(t for t in tensors if t not in table or not serves(wanted, table[t]))

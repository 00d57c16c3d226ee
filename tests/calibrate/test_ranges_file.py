"""Statistics files: they come back as they went, merge, and refuse what does not belong together."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qconvert.calibrate.method import METHODS
from qconvert.calibrate.ranges_file import (
    Origin,
    Ranges,
    check_ranges,
    lacking,
    load_ranges,
    merge_ranges,
    ranges_to_bytes,
)
from qconvert.errors import DataError
from qconvert.stats.statistic import StatsTable

ORIGIN = Origin(
    model="m.onnx",
    model_sha256="a" * 64,
    graph_sha256="b" * 64,
    method="percentile",
    data=f"{2**256 - 1:064x}",
    samples=3,
    qconvert="1",
    onnxruntime="2",
    numpy="3",
    shards=(1,),
    parts=2,
)


def ranges(seed: int = 0, method: str = "percentile", **origin: object) -> Ranges:
    rng = np.random.default_rng(seed)
    table = StatsTable(samples=3)
    for name in ("x", "a/b:0", "é"):
        table.entries[name] = METHODS.get(method).needs()
        table[name].update(rng.normal(0, 1 + seed, 500).astype(np.float32))
    values = {"method": method, **origin}
    return Ranges(origin=replace(ORIGIN, **values), tables={"": table, "If_1/then_branch": table})


def written(path: Path, content: Ranges) -> Path:
    path.write_bytes(ranges_to_bytes(content))
    return path


@pytest.mark.parametrize("method", METHODS.names())
def test_what_is_written_is_read(method: str, tmp_path: Path) -> None:
    made = ranges(method=method)
    read = load_ranges(written(tmp_path / "r.npz", made))
    assert read.origin == made.origin
    assert ranges_to_bytes(read) == ranges_to_bytes(made)
    assert not lacking(read.tables[""], ("x", "a/b:0", "é"), method)


def test_merging_adds_samples_and_digests(tmp_path: Path) -> None:
    one, two = ranges(0, data=f"{2**256 - 1:064x}"), ranges(1, shards=(2,), data=f"{5:064x}")
    merged = merge_ranges([(tmp_path / "1", one), (tmp_path / "2", two)])
    assert (merged.origin.samples, int(merged.origin.data, 16)) == (6, 4)
    assert (merged.origin.shards, merged.origin.parts) == ((), 1)
    both = merged.tables[""]["x"].extremes
    assert both.total == 1000
    assert both.hi == max(r.tables[""]["x"].extremes.hi for r in (one, two))


def test_a_merge_of_some_shards_says_which(tmp_path: Path) -> None:
    some = [(tmp_path / str(i), ranges(i, shards=(i,), parts=4)) for i in (3, 1)]
    assert merge_ranges(some).origin.shards == (1, 3)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model_sha256": "c" * 64}, "different models"),
        ({"graph_sha256": "c" * 64}, "different forms"),
        ({"method": "minmax"}, "different methods"),
        ({"parts": 3}, "different divisions"),
        ({"onnxruntime": "9"}, "versions of ONNX Runtime"),
        ({"shards": (1,)}, "shard 1 of 2"),
    ],
)
def test_what_does_not_belong_together_is_not_merged(change: dict[str, object], says: str, tmp_path: Path) -> None:
    other = ranges(1, **{"shards": (2,), **change})
    with pytest.raises(DataError, match=says):
        merge_ranges([(tmp_path / "1.npz", ranges(0)), (tmp_path / "2.npz", other)])


def test_a_file_of_another_model_is_refused_with_the_reason() -> None:
    with pytest.raises(DataError, match=r"another model: m\.onnx with SHA-256 aaaa") as caught:
        check_ranges(Path("r.npz"), ORIGIN, model=Path("n.onnx"), model_sha256="d" * 64, graph_sha256="b" * 64)
    assert "calibrate" in caught.value.hint
    with pytest.raises(DataError, match="another form"):
        check_ranges(Path("r.npz"), ORIGIN, model=Path("m.onnx"), model_sha256="a" * 64, graph_sha256="d" * 64)


def test_what_a_method_cannot_use_is_lacking() -> None:
    table = ranges(method="minmax").tables[""]
    assert lacking(table, ("x", "y"), "percentile") == ("x", "y")
    assert lacking(table, ("x", "y"), "minmax") == ("y",)
    assert lacking(ranges(method="percentile").tables[""], ("x",), "minmax") == ()


def _header(path: Path, **changes: object) -> None:
    with np.load(path) as stored:
        arrays = {k: stored[k] for k in stored.files}
    header = {**json.loads(arrays["header"].tobytes()), **changes}
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez(path, **arrays)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda p: p.write_bytes(p.read_bytes()[:200]), "not a sound"),
        (lambda p: np.savez(p, x=np.zeros(3)), "holds no statistics"),
        (lambda p: np.savez(p, header=np.frombuffer(b"{", np.uint8)), "not a sound statistics file"),
        (lambda p: _header(p, version=99), "version 99"),
        (lambda p: _header(p, format="other"), "not a sound statistics file"),
        (lambda p: _header(p, statistics=[{"graph": "", "tensor": "x", "kind": "os.system"}]), "not a sound"),
        (lambda p: _header(p, data="zz"), "not a sound"),
        (lambda p: _header(p, samples=None, graph_samples={"": "many"}), "not a sound"),
        (lambda p: p.unlink(), "no statistics file"),
    ],
)
def test_damaged_files_are_refused(damage: object, says: str, tmp_path: Path) -> None:
    path = written(tmp_path / "r.npz", ranges())
    damage(path)  # type: ignore[operator]
    with pytest.raises(DataError, match=says) as caught:
        load_ranges(path)
    assert str(path) in caught.value.message

"""Models that are not run: converted one weight at a time, with weights in data files before and after."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnxruntime as ort
import pytest

from qconvert.errors import RecipeError
from qconvert.pipeline import QuantizeJob
from qconvert.quantizing import quantize
from qconvert.recipe.recipe import Recipe

pytestmark = pytest.mark.slow

T = TypeVar("T")
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "large_model.py"


def transformer(folder: Path, megabytes: float) -> Path:
    spec = importlib.util.spec_from_file_location("large_model", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = module.make_transformer(folder, int(megabytes * 1e6), width=256, vocabulary=1024)
    assert isinstance(made, Path)
    return made


def logits(path: Path) -> np.ndarray:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    result = session.run(None, {"ids": np.arange(12).reshape(1, 12)})[0]
    assert isinstance(result, np.ndarray)
    return result


@pytest.mark.parametrize("scheme", ["w4", "w8", "fp16", "bf16", "nf4"])
def test_a_model_with_data_files_becomes_one_with_data_files(scheme: str, tmp_path: Path) -> None:
    source = transformer(tmp_path, 16)
    target = tmp_path / "out.onnx"
    job = QuantizeJob(model=source, output=target, recipe=Recipe(scheme=scheme), measure=False, shard=1 << 20)
    report = quantize(job)
    assert report.accuracy is None
    assert not report.verification.checker
    assert not report.verification.interface
    shards = sorted(tmp_path.glob("out.onnx.data*"))
    assert len(shards) > 1
    assert all(f.stat().st_size <= 1 << 20 for f in shards)
    assert not list(tmp_path.glob(".qconvert*"))
    share = {"w4": 0.17, "w8": 0.27, "fp16": 0.51, "bf16": 0.51, "nf4": 0.15}[scheme]
    assert report.output.bytes < share * report.model.bytes
    a, b = logits(source), logits(target)
    most = {"w4": 0.05, "w8": 1e-3, "fp16": 1e-4, "bf16": 1e-3, "nf4": 0.05}[scheme]
    assert ((a - b) ** 2).sum() < most * (a**2).sum()


def test_memory_is_bounded_by_the_largest_weight(tmp_path: Path) -> None:
    peaks = []
    for megabytes in (12, 48):
        folder = tmp_path / str(megabytes)
        folder.mkdir()
        source = transformer(folder, megabytes)
        job = QuantizeJob(
            model=source, output=folder / "out.onnx", recipe=Recipe(scheme="w4"), measure=False, shard=1 << 30
        )
        tracemalloc.start()
        quantize(job)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # the graph itself takes some: its nodes and names
    assert peaks[1] - peaks[0] < 0.1 * 36e6


def test_what_static_int8_cannot_do_is_refused(tmp_path: Path) -> None:
    source = transformer(tmp_path, 4)
    job = QuantizeJob(model=source, output=tmp_path / "out.onnx", recipe=Recipe(scheme="int8"), measure=False)
    with pytest.raises(RecipeError, match="no-measure"):
        quantize(job)


class Watcher:
    """Remembers (label, total, sum of sizes) of every stage."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, int | None, int]] = []

    def track(
        self, items: Iterable[T], *, label: str, total: int | None = None, size: Callable[[T], int] | None = None
    ) -> Iterator[T]:
        done = 0
        for item in items:
            done += size(item) if size else 1
            yield item
        self.stages.append((label, total, done))

    def note(self, text: str) -> None:
        del text


@pytest.mark.parametrize("scheme", ["w4", "fp16", "bf16", "dynamic", "nf4", "palette:16", "fp8"])
def test_progress_is_told_in_bytes(scheme: str, tmp_path: Path) -> None:
    source, watcher = transformer(tmp_path, 4), Watcher()
    job = QuantizeJob(
        model=source, output=tmp_path / "out.onnx", recipe=Recipe(scheme=scheme), measure=False, shard=1 << 30
    )
    quantize(job, watcher)
    (first, read, converted), (second, written, wrote) = watcher.stages
    assert (first, second) == (scheme, "write")
    assert read == converted == pytest.approx((tmp_path / "model.onnx.data").stat().st_size, rel=0.05)
    assert written == wrote == pytest.approx((tmp_path / "out.onnx.data").stat().st_size, rel=0.05)


KILLED = """
import os, signal, sys
from pathlib import Path
from qconvert.pipeline import QuantizeJob
from qconvert.quantizing import quantize
from qconvert.recipe.recipe import Recipe

class Killer:
    def track(self, items, *, label, total=None, size=None):
        for i, item in enumerate(items):
            if label == "write" and i == 4:
                os.kill(os.getpid(), signal.SIGKILL)
            yield item
    def note(self, text):
        pass

job = QuantizeJob(model=Path(sys.argv[1]), output=Path(sys.argv[2]), recipe=Recipe(scheme="w8"), measure=False,
                  shard=1 << 20, force=True)
quantize(job, Killer())
"""


def test_a_kill_while_writing_leaves_the_old_files(tmp_path: Path) -> None:
    source, target = transformer(tmp_path, 4), tmp_path / "out.onnx"
    job = QuantizeJob(model=source, output=target, recipe=Recipe(scheme="w4"), measure=False, shard=1 << 20)
    quantize(job)
    before = {f.name: f.read_bytes() for f in tmp_path.glob("out.onnx*")}
    ran = subprocess.run([sys.executable, "-c", KILLED, source, target], check=False, capture_output=True)
    assert ran.returncode == -signal.SIGKILL, ran.stderr
    assert {f.name: f.read_bytes() for f in tmp_path.glob("out.onnx*")} == before
    logits(target)

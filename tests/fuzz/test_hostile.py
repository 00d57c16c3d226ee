"""Malformed input of every kind ends in exit code 2, a message and no file, in 10 s and 1 GB. `make fuzz` does more.

All of it in one test: parts that run apart would each start a worker, which takes as long as twenty cases.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fuzz.hostile import BLIND, CALIBRATE, CHECK, CONVERT, EVALUATE, HOSTILE, INSPECT, QUANTIZE, Hostile
from fuzz.judge import broken_promise, contents
from fuzz.lines import OUT
from fuzz.seeds import fill
from fuzz.worker import Worker, worker

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run() -> Iterator[Worker]:
    with worker() as one:
        yield one


def test_all_of_it_is_refused(run: Worker, tmp_path: Path) -> None:
    seeds = tmp_path / "seeds"
    seeds.mkdir()
    fill(seeds, run)
    found = {hostile.name: complaint(hostile, run, seeds, tmp_path / "here") for hostile in HOSTILE}
    assert {name: text for name, text in found.items() if text} == {}
    assert len(found) == len(HOSTILE) >= 50


def test_what_it_was_made_from_works(run: Worker, tmp_path: Path) -> None:
    """So that it is the damage that is refused."""
    fill(tmp_path, run)
    for line in (QUANTIZE, CALIBRATE, EVALUATE, INSPECT, CHECK, BLIND, CONVERT, "compare qdq.onnx qdq.onnx --data pb"):
        ended = run.run(line.split(), tmp_path, seconds=30.0)
        assert ended.code == 0, f"{line}: {ended.err}"
        (tmp_path / OUT).unlink(missing_ok=True)


def complaint(hostile: Hostile, run: Worker, seeds: Path, folder: Path) -> str:
    """What is wrong with the refusal of ``hostile``, "" if nothing is."""
    shutil.copytree(seeds, folder)
    hostile.damage(folder)
    before = contents(folder)
    ended = run.run(hostile.line.split(), folder, seconds=30.0)
    broken = broken_promise(ended, before, contents(folder))
    shutil.rmtree(folder)
    unsaid = [word for word in hostile.says if word not in ended.err]
    return broken or (f"does not say {unsaid}: {ended.err}" if unsaid else "")

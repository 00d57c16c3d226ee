"""Contenders as processes of their own, timed from the outside, and what the benchmarks share besides.

An installed package has its bytecode, so that of qconvert is written before anything is timed.
"""

from __future__ import annotations

import compileall
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

# In a process of its own: what this one has held counts as memory of those that it starts.
_MAKE = """
import sys
from pathlib import Path
import numpy as np
sys.path.insert(0, sys.argv[1])
from resnet50 import write_resnet50
folder, size, count, stacked = Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
model = folder / "resnet50.onnx"
if not model.exists():
    write_resnet50(model, size=size)
shape = (count, 3, size, size)
mapped = np.lib.format.open_memmap(folder / "data.npy", mode="w+", dtype=np.float32, shape=shape)
random = np.random.default_rng(0)
for i in range(count):
    mapped[i] = random.normal(0, 1, shape[1:])
mapped.flush()
if stacked == "npz":
    np.savez(folder / "data.npz", image=mapped)
"""

# Samples stacked along axis 0 of a .npy or .npz, or one in each .npz of a folder; ONNX Runtime's own threads.
PLAIN = """
import sys, time
from pathlib import Path
import numpy as np, onnxruntime as ort
session = ort.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
names = [i.name for i in session.get_inputs()]
path = Path(sys.argv[2])
if path.is_dir():
    feeds = [dict(np.load(p)) for p in sorted(path.iterdir())]
else:
    data = np.load(path)
    arrays = {n: data[n] for n in names} if path.suffix == ".npz" else {names[0]: np.load(path, mmap_mode="r")}
    count = len(arrays[names[0]])
    feeds = ({n: np.ascontiguousarray(a[i : i + 1]) for n, a in arrays.items()} for i in range(count))
start, processor = time.perf_counter(), time.process_time()
for feed in feeds:
    session.run(None, feed)
print(time.perf_counter() - start, time.process_time() - processor)
"""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One finished process.

    Attributes:
        wall, processor: seconds from start to end, and those of all its threads.
        own, own_processor: the same of its part that counts, as it printed them; 0 where it did not.
        peak_mb: memory.
        failed: whether it did.
    """

    wall: float
    processor: float
    own: float
    own_processor: float
    peak_mb: float
    failed: bool = False


def run(command: Sequence[str]) -> Run:
    """Run ``command`` to its end."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - start
    words = said.strip().splitlines()[-1].split() if said.strip() else []
    own = [float(w) for w in words] if all(w.replace(".", "", 1).isdecimal() for w in words) else []
    own += [0.0] * (2 - len(own))
    return Run(
        wall=wall,
        processor=usage.ru_utime + usage.ru_stime,
        own=own[0],
        own_processor=own[1],
        peak_mb=usage.ru_maxrss / 1024,
        failed=process.returncode != 0,
    )


def in_turn(commands: Mapping[str, Sequence[str]], rounds: int) -> dict[str, list[Run]]:
    """Every command ``rounds`` times, each round beginning with another one; no runs of one that fails."""
    compileall.compile_dir(str(files("qconvert")), quiet=1)
    done: dict[str, list[Run]] = {name: [] for name in commands}
    order = list(commands)
    for turn in range(rounds):
        for name in order[turn % len(order) :] + order[: turn % len(order)]:
            done[name].append(run(commands[name]))
    return {name: [] if any(r.failed for r in runs) else runs for name, runs in done.items()}


def plain(model: Path, data: Path) -> list[str]:
    """The command of plain FP32 inference, which prints the seconds that the samples took."""
    return [sys.executable, "-c", PLAIN, str(model), str(data)]


def qconvert(*arguments: object) -> list[str]:
    """A command of qconvert."""
    return [sys.executable, "-m", "qconvert", *map(str, arguments)]


def make(folder: Path, size: int, count: int, stacked: str) -> tuple[Path, Path]:
    """(model, data): a network of ResNet-50's shape, and random images in a stacked .npy or .npz."""
    here = str(Path(__file__).parent)
    subprocess.run([sys.executable, "-c", _MAKE, here, str(folder), str(size), str(count), stacked], check=True)
    return folder / "resnet50.onnx", folder / f"data.{stacked}"


def show(rows: Sequence[Mapping[str, object]]) -> None:
    """Print ``rows`` as a Markdown table."""
    columns = list(rows[0])
    print("| " + " | ".join(columns) + " |")
    print("|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(str(row.get(c, "")) for c in columns) + " |", flush=True)

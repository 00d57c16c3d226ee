"""Time and memory of ``qconvert calibrate``, beside plain FP32 inference and ONNX Runtime's calibrators.

    python benchmarks/calibration.py                                    # a network of ResNet-50's shape, 64 images
    python benchmarks/calibration.py --model m.onnx --data calib.npz    # any model, samples stacked along axis 0
    python benchmarks/calibration.py --memory                           # peak memory with 10 and with 1000 samples

Every contender is a process of its own, and they take turns: one round runs each once. Time is wall time of the whole
process, start-up included, except for ONNX Runtime's calibrators, of which only the calibration counts; ratios are
medians over the rounds. Peak memory is what the operating system counts for the finished process. Without --model a
network is made, with random weights, in a temporary folder.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

METHODS = ("minmax", "mean-minmax", "moving-average", "percentile", "mse", "entropy", "auto")

PEERS = ("MinMax", "Percentile")

# In a process of its own: what this one has held counts as memory of those that it starts.
MAKE = """
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

PLAIN = """
import sys, time
import numpy as np, onnxruntime as ort
session = ort.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
names = [i.name for i in session.get_inputs()]
data = np.load(sys.argv[2])
arrays = {n: data[n] for n in names} if sys.argv[2].endswith("npz") else {names[0]: np.load(sys.argv[2], mmap_mode="r")}
start = time.perf_counter()
for i in range(len(arrays[names[0]])):
    session.run(None, {n: np.ascontiguousarray(a[i : i + 1]) for n, a in arrays.items()})
print(time.perf_counter() - start)
"""

ORT = """
import sys, time
import numpy as np
from onnxruntime.quantization.calibrate import CalibrationDataReader, CalibrationMethod, create_calibrator
model, data, method = sys.argv[1:4]
stored = np.load(data)
arrays = {k: stored[k] for k in stored.files}
class Reader(CalibrationDataReader):
    def __init__(self): self.i = 0
    def get_next(self):
        i, self.i = self.i, self.i + 1
        return {k: a[i : i + 1] for k, a in arrays.items()} if i < len(next(iter(arrays.values()))) else None
start = time.perf_counter()
calibrator = create_calibrator(
    model, calibrate_method=CalibrationMethod[method], augmented_model_path=sys.argv[4], use_external_data_format=False
)
calibrator.set_execution_providers(["CPUExecutionProvider"])
calibrator.collect_data(Reader())
calibrator.compute_data()
print(time.perf_counter() - start)
"""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One finished process: wall seconds, the seconds that it printed itself, peak memory in MB."""

    wall: float
    own: float
    peak_mb: float


def run(command: list[str]) -> Run:
    """Run ``command`` to its end."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"failed with {process.returncode}: {' '.join(command[:6])}")
    last = said.strip().splitlines()[-1] if said.strip() else ""
    own = float(last) if last.replace(".", "", 1).isdecimal() else 0.0
    return Run(wall=time.perf_counter() - start, own=own, peak_mb=usage.ru_maxrss / 1024)


def contenders(model: Path, data: Path, folder: Path, methods: list[str], peers: list[str]) -> dict[str, list[str]]:
    """Name -> command."""
    qconvert = str(Path(sys.executable).with_name("qconvert"))
    found = {"plain inference": [sys.executable, "-c", PLAIN, str(model), str(data)]}
    for method in methods:
        out = folder / f"{method}.npz"
        arguments = ["--calib", str(data), "-o", str(out), "--method", method, "--force", "-q"]
        found[f"qconvert {method}"] = [qconvert, "calibrate", str(model), *arguments]
    for peer in peers:
        found[f"ONNX Runtime {peer}"] = [
            sys.executable, "-c", ORT, str(model), str(data), peer, str(folder / "augmented.onnx")
        ]  # fmt: skip
    return found


def time_table(model: Path, data: Path, folder: Path, args: argparse.Namespace) -> list[dict[str, object]]:
    """A row for each contender."""
    commands = contenders(model, data, folder, args.methods, args.peers)
    runs: dict[str, list[Run]] = {name: [] for name in commands}
    order = list(commands)
    for turn in range(args.rounds):
        for name in order[turn % len(order) :] + order[: turn % len(order)]:
            runs[name].append(run(commands[name]))
    rows = []
    plain = runs["plain inference"]
    for name, done in runs.items():
        seconds = [r.own if name.startswith(("plain", "ONNX")) else r.wall for r in done]
        # of a qconvert run, 2 s may be start-up; the rest is set against the samples' plain inference
        over = [
            (s - (2.0 if name.startswith("qconvert") else 0.0)) / p.own for s, p in zip(seconds, plain, strict=True)
        ]
        rows.append(
            {
                "contender": name,
                "seconds": round(statistics.median(seconds), 2),
                "times plain, beyond 2 s": round(max(0.0, statistics.median(over)), 2),
                "peak MB": round(statistics.median([r.peak_mb for r in done])),
                "of plain": round(
                    statistics.median([r.peak_mb / p.peak_mb for r, p in zip(done, plain, strict=True)]), 2
                ),
            }
        )
    return rows


def make(folder: Path, size: int, count: int, stacked: str) -> tuple[Path, Path]:
    """(model, data): a network of ResNet-50's shape, and random images in a stacked .npy or .npz."""
    here = str(Path(__file__).parent)
    subprocess.run([sys.executable, "-c", MAKE, here, str(folder), str(size), str(count), stacked], check=True)
    return folder / "resnet50.onnx", folder / f"data.{stacked}"


def memory_table(folder: Path, args: argparse.Namespace) -> list[dict[str, object]]:
    """Peak memory with few and many samples, which lie in a .npy file."""
    rows = []
    for count in (10, 1000):
        model, data = make(folder, args.size, count, "npy")
        for name, command in contenders(model, data, folder, args.methods, []).items():
            rows.append({"contender": name, "samples": count, "peak MB": round(run(command).peak_mb)})
    return rows


def show(rows: list[dict[str, object]]) -> None:
    """Print ``rows`` as a Markdown table."""
    columns = list(rows[0])
    print("| " + " | ".join(columns) + " |")
    print("|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(str(row[c]) for c in columns) + " |")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--data", type=Path, help=".npz, samples stacked along axis 0")
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--methods", type=lambda text: text.split(","), default=list(METHODS))
    parser.add_argument(
        "--peers", type=lambda text: [p for p in text.split(",") if p], default=["MinMax", "Percentile"]
    )
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, data = args.model, args.data
        if model is None and not args.memory:
            model, data = make(folder, args.size, args.samples, "npz")
        rows = memory_table(folder, args) if args.memory else time_table(model, data, folder, args)
    show(rows)
    if args.json is not None:
        args.json.write_text(json.dumps(rows, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()

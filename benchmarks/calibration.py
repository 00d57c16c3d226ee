"""Time and memory of ``qconvert calibrate``, beside plain FP32 inference and ONNX Runtime's calibrators.

    python benchmarks/calibration.py                                    # a network of ResNet-50's shape, 64 images
    python benchmarks/calibration.py --model m.onnx --data calib.npz    # any model, samples stacked along axis 0
    python benchmarks/calibration.py --model m.onnx --data calib.npz --ragged    # sequences of different lengths
    python benchmarks/calibration.py --memory                           # peak memory with 10 and with 1000 samples

Every contender is a process of its own, and they take turns: one round runs each once. Time is wall time of the whole
process, start-up included, except for plain inference and ONNX Runtime's calibrators, of which only the samples and
the calibration count; ratios are medians over the rounds. qconvert runs a sample in each thread, plain inference and
ONNX Runtime's calibrators use ONNX Runtime's threads within operators: as many as there are cores in either case. On a
machine that others use, too, the processor's seconds of all threads say more than the clock. Peak memory is what the
operating system counts for the finished process. Without --model a network is made, with random weights, in a temporary
folder.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from processes import Run, in_turn, make, plain, qconvert, run, show

METHODS = ("minmax", "mean-minmax", "moving-average", "percentile", "mse", "entropy", "auto")

PEERS = ("MinMax", "Percentile")

# What one run of qconvert may take to start, s; the rest is set against the plain inference of the samples.
START = 2.0

ORT = """
import sys, time
from pathlib import Path
import numpy as np
from onnxruntime.quantization.calibrate import CalibrationDataReader, CalibrationMethod, create_calibrator
model, data, method = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
if data.is_dir():
    feeds = [dict(np.load(p)) for p in sorted(data.iterdir())]
else:
    stored = np.load(data)
    arrays = {k: stored[k] for k in stored.files}
    feeds = ({k: a[i : i + 1] for k, a in arrays.items()} for i in range(len(next(iter(arrays.values())))))
class Reader(CalibrationDataReader):
    def __init__(self): self.feeds = iter(feeds)
    def get_next(self): return next(self.feeds, None)
start, processor = time.perf_counter(), time.process_time()
calibrator = create_calibrator(
    model, calibrate_method=CalibrationMethod[method], augmented_model_path=sys.argv[4], use_external_data_format=False
)
calibrator.set_execution_providers(["CPUExecutionProvider"])
calibrator.collect_data(Reader())
calibrator.compute_data()
print(time.perf_counter() - start, time.process_time() - processor)
"""


def contenders(
    model: Path, data: Path, folder: Path, methods: Sequence[str], peers: Sequence[str]
) -> dict[str, list[str]]:
    """Name -> command."""
    found = {"plain inference": plain(model, data)}
    for method in methods:
        out = folder / f"{method}.npz"
        found[f"qconvert {method}"] = qconvert(
            "calibrate", model, "--calib", data, "-o", out, "--method", method, "--force", "-q"
        )
    for peer in peers:
        augmented = str(folder / "augmented.onnx")
        found[f"ONNX Runtime {peer}"] = [sys.executable, "-c", ORT, str(model), str(data), peer, augmented]
    return found


def time_table(runs: Mapping[str, Sequence[Run]]) -> list[dict[str, object]]:
    """A row for each contender."""
    rows: list[dict[str, object]] = []
    base = runs["plain inference"]
    took = {n: [r.own if n.startswith(("plain", "ONNX")) else r.wall for r in done] for n, done in runs.items()}
    ours = [max(seconds) for seconds in zip(*(t for n, t in took.items() if n.startswith("qconvert")), strict=True)]
    for name, done in runs.items():
        if not done:
            rows.append({"contender": name, "seconds": "failed"})
            continue
        start = START if name.startswith("qconvert") else 0.0
        over = [(s - start) / p.own for s, p in zip(took[name], base, strict=True)]
        peaks = [r.peak_mb / p.peak_mb for r, p in zip(done, base, strict=True)]
        rows.append(
            {
                "contender": name,
                "seconds": round(statistics.median(took[name]), 2),
                "times plain, beyond 2 s": round(max(0.0, statistics.median(over)), 2),
                "times our slowest": round(statistics.median(s / o for s, o in zip(took[name], ours, strict=True)), 2),
                "processor s": round(statistics.median(r.own_processor or r.processor for r in done), 2),
                "peak MB": round(statistics.median(r.peak_mb for r in done)),
                "of plain": round(statistics.median(peaks), 2),
            }
        )
    return rows


def memory_table(folder: Path, args: argparse.Namespace) -> list[dict[str, object]]:
    """Peak memory with few and many samples, which lie in a .npy file."""
    rows: list[dict[str, object]] = []
    for count in (10, 1000):
        model, data = make(folder, args.size, count, "npy")
        for name, command in contenders(model, data, folder, args.methods, []).items():
            rows.append({"contender": name, "samples": count, "peak MB": round(run(command).peak_mb)})
    return rows


def ragged(data: Path, folder: Path) -> Path:
    """A folder with a .npz for each sample of ``data``, cut along axis 1 to a length of its own, from an eighth on."""
    arrays = dict(np.load(data))
    random = np.random.default_rng(0)
    folder.mkdir()
    for i in range(len(next(iter(arrays.values())))):
        longest = min(a.shape[1] for a in arrays.values() if a.ndim > 1)
        length = int(random.integers(max(1, longest // 8), longest + 1))
        cut = {n: a[i : i + 1, :length] if a.ndim > 1 else a[i : i + 1] for n, a in arrays.items()}
        np.savez(folder / f"{i:05}.npz", **cut)
    return folder


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--data", type=Path, help=".npz, samples stacked along axis 0")
    parser.add_argument("--ragged", action="store_true", help="cut each sample along axis 1 to a length of its own")
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--methods", type=lambda text: text.split(","), default=list(METHODS))
    parser.add_argument("--peers", type=lambda text: [p for p in text.split(",") if p], default=list(PEERS))
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, data = args.model, args.data
        if model is None and not args.memory:
            model, data = make(folder, args.size, args.samples, "npz")
        if args.ragged:
            data = ragged(data, folder / "ragged")
        if args.memory:
            rows = memory_table(folder, args)
        else:
            commands = contenders(model, data, folder, args.methods, args.peers)
            rows = time_table(in_turn(commands, args.rounds))
    show(rows)
    if args.json is not None:
        args.json.write_text(json.dumps(rows, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()

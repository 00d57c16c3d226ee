"""What ``qconvert quantize`` costs, beside plain FP32 inference over the calibration samples.

    python benchmarks/cost.py                                    # a network of ResNet-50's shape, 64 images
    python benchmarks/cost.py --model m.onnx --data calib.npz    # any model, samples stacked along axis 0

The bounds are 10 times plain inference and 10 s for a run without options, and 3 times and 2 s with ``--effort fast``.
Plain inference and both runs are processes of their own that take turns; of plain inference only the samples count, of
qconvert everything from start to end. Plain inference uses ONNX Runtime's default threads, and so does qconvert, but
where it collects statistics, which runs a sample in each of as many threads. Ratios are medians over the rounds. On a
machine that others use, too, the processor's seconds of all threads say more than the clock.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from processes import in_turn, make, plain, qconvert, show

# effort -> (how many times plain inference, s)
BOUNDS = {"default": (10.0, 10.0), "fast": (3.0, 2.0)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--data", type=Path, help=".npz, samples stacked along axis 0")
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--efforts", type=lambda text: text.split(","), default=list(BOUNDS))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, data = args.model, args.data
        if model is None:
            model, data = make(folder, args.size, args.samples, "npz")
        commands = {"plain": plain(model, data)}
        for effort in args.efforts:
            out = folder / f"{effort}.onnx"
            commands[effort] = qconvert(
                "quantize", model, "--calib", data, "-o", out, "--effort", effort, "--force", "-q"
            )
        runs = in_turn(commands, args.rounds)
    base = runs.pop("plain")
    samples = [r.own for r in base]
    processor = statistics.median(r.own_processor for r in base)
    rows: list[dict[str, object]] = [
        {
            "run": "plain inference",
            "seconds": round(statistics.median(samples), 2),
            "processor s": round(processor, 2),
        }
    ]
    for effort, done in runs.items():
        if not done:
            raise SystemExit(f"qconvert quantize --effort {effort} failed")
        times, more = BOUNDS[effort]
        walls = [r.wall for r in done]
        rows.append(
            {
                "run": f"--effort {effort}",
                "seconds": round(statistics.median(walls), 2),
                "bound": round(statistics.median(times * p + more for p in samples), 2),
                "of the bound": round(
                    statistics.median(w / (times * p + more) for w, p in zip(walls, samples, strict=True)), 2
                ),
                "processor s": round(statistics.median(r.processor for r in done), 2),
                "peak MB": round(statistics.median(r.peak_mb for r in done)),
            }
        )
    show([{**dict.fromkeys(rows[-1], ""), **row} for row in rows])


if __name__ == "__main__":
    main()

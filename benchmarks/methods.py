"""``--method auto`` against ``--method minmax`` in end-to-end SQNR, on any folder of models with data.

    python benchmarks/methods.py --models FOLDER --data FOLDER

For every NAME.onnx of the first folder that has NAME/calib.npz in the second (and eval.npz, else held-out samples of
calib.npz are measured on): SQNR of the outputs in dB of the method alone, with the search of ranges that comes with
auto, and with all of recovery on both sides. Placement is the target's table, so that figures repeat.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
from pathlib import Path

from processes import qconvert, show

# name of the comparison -> (method, passes) of auto and of minmax
COMPARED = {
    "alone": (("auto", "none"), ("minmax", "none")),
    "with its search": (("auto", "ranges"), ("minmax", "none")),
    "all of recovery": (("auto", "auto"), ("minmax", "auto")),
}


def sqnr(model: Path, data: Path, method: str, recover: str, folder: Path) -> float:
    """dB of the model that a run makes."""
    options = ["--method", method, "--recover", recover, "--placement", "static", "--force", "--json"]
    evaluation = data / "eval.npz"
    if evaluation.exists():
        options += ["--eval", str(evaluation)]
    command = qconvert("quantize", model, "--calib", data / "calib.npz", "-o", folder / "q.onnx", *options)
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(json.loads(said)["accuracy"]["comparison"]["fidelity"]["sqnr_db"])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--compare", type=lambda text: text.split(","), default=list(COMPARED))
    args = parser.parse_args()
    found = [p for p in sorted(args.models.glob("*.onnx")) if (args.data / p.stem / "calib.npz").exists()]
    if not found:
        raise SystemExit(f"no NAME.onnx in {args.models} has a NAME/calib.npz in {args.data}")
    rows: list[dict[str, object]] = []
    gains: dict[str, list[float]] = {name: [] for name in args.compare}
    with tempfile.TemporaryDirectory() as name:
        for model in found:
            row: dict[str, object] = {"model": model.stem}
            known: dict[tuple[str, str], float] = {}
            for compared in args.compare:
                for pair in COMPARED[compared]:
                    if pair not in known:
                        known[pair] = sqnr(model, args.data / model.stem, *pair, Path(name))
                ours, theirs = (known[pair] for pair in COMPARED[compared])
                gains[compared].append(ours - theirs)
                row[compared] = f"{ours:.2f} - {theirs:.2f} = {ours - theirs:+.2f}"
            rows.append(row)
            print(row, flush=True)
    for title, of in (("mean", statistics.mean), ("worst", min)):
        rows.append({"model": title, **{c: f"{of(g):+.2f}" for c, g in gains.items()}})
    show(rows)


if __name__ == "__main__":
    main()

"""Damages files at random and looks what qconvert does: it must refuse (2) or work (0), in time, in little memory.

    python tests/fuzz --seconds 300 --seed 1         as many as there is time for
    python tests/fuzz --seed 1 --only 4711           one of them again, with its files kept

Every attempt is a function of the seed and its number. Exit code 1 if any attempt broke a promise.
"""

from __future__ import annotations

import argparse
import collections
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fuzz.judge import broken_promise, contents
from fuzz.lines import LINES
from fuzz.mutations import MUTATIONS
from fuzz.seeds import fill
from fuzz.worker import worker

KEEP = Path(tempfile.gettempdir()) / "qconvert-fuzz"


def main() -> int:
    """Run attempts; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first attempt")
    parser.add_argument("--only", type=int, help="the number of one attempt")
    parser.add_argument("--kind", default="", help="only seeds whose name contains this")
    given = parser.parse_args()
    codes: collections.Counter[int] = collections.Counter()
    slowest, largest, broken = 0.0, 0.0, 0
    kinds = [(seed, line) for seed, lines in LINES.items() for line in lines if given.kind in seed]
    started = time.perf_counter()
    number = given.first if given.only is None else given.only
    with tempfile.TemporaryDirectory(prefix="qconvert-fuzz-") as scratch, worker() as run:
        folder = Path(scratch)
        fill(folder, run)
        while time.perf_counter() - started < given.seconds:
            rng = np.random.default_rng([given.seed, number])
            seed, line = kinds[int(rng.integers(0, len(kinds)))]
            name = list(MUTATIONS)[int(rng.integers(0, len(MUTATIONS)))]
            bad = MUTATIONS[name]((folder / seed).read_bytes(), rng)
            good = (folder / seed).read_bytes()
            (folder / seed).write_bytes(bad)
            before = contents(folder)
            ended = run.run(
                [*line, *(("--force",) if line[0] != "inspect" and "-o" in line else ())], folder, seconds=30
            )
            complaint = broken_promise(ended, before, contents(folder), may_work=True)
            codes[ended.code] += 1
            slowest, largest = max(slowest, ended.seconds), max(largest, ended.megabytes)
            if complaint:
                broken += 1
                print(f"attempt {number}: {name} {seed}: qconvert {' '.join(line)}\n  {complaint}", flush=True)
                KEEP.mkdir(exist_ok=True)
                (KEEP / f"{given.seed}-{number}-{Path(seed).name}").write_bytes(bad)
            (folder / seed).write_bytes(good)
            (folder / "out.onnx").unlink(missing_ok=True)
            number += 1
            if given.only is not None:
                print(ended)
                break
    print(f"{sum(codes.values())} attempts, exit codes {dict(codes)}, {broken} broken promises; ", end="")
    print(f"slowest {slowest:.1f} s, largest {largest:.0f} MB")
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())

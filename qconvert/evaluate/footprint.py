"""Load time and peak memory of a model, each measured in a process of its own.

Memory of a process only grows until it ends, so a second model in the same process hides behind the first. A fresh
process loads the model, runs it once, and says how high its memory rose; then it loads the model again for the time.

    model_mb = peak after one run - resident memory once the libraries were loaded
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np

import qconvert.graph
from qconvert.errors import ModelError
from qconvert.graph.session import Feed, open_session

# The first load of a process pays for ONNX Runtime's own start; these come after it, while they stay within the time.
_LOADS, _LOADS_SECONDS = 3, 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """What it takes to have a model ready.

    Attributes:
        load_ms: milliseconds to make a session of the file, the median of up to three loads.
        peak_mb: most memory (1e6 bytes) that a process held which loaded the model and ran it once; 0 where the system
            does not tell.
        model_mb: the part of it that came with the model; the rest is Python and ONNX Runtime.
    """

    load_ms: float
    peak_mb: float
    model_mb: float


def measure_footprint(model: Path, feed: Feed, *, threads: int = 0) -> Footprint:
    """Load ``model`` in a fresh process and run it once on ``feed``.

    Raises:
        ModelError: the process failed; says what it said last.
    """
    # the package that runs here is the one that must run there
    root = str(Path(next(iter(qconvert.graph.__path__))).parents[1])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    with tempfile.TemporaryDirectory(prefix="qconvert-") as folder:
        # by number: a name may hold what a file's name may not
        arrays = {str(i): np.asarray(value) for i, value in enumerate(feed.values())}
        np.savez(Path(folder) / "feed.npz", **arrays)  # type: ignore[arg-type]
        (Path(folder) / "names.json").write_text(json.dumps(list(feed)), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", "qconvert.evaluate.footprint", str(model), folder, str(threads)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise ModelError(
            f"{model} could not be loaded and run in a process of its own: {last}",
            hint="it may need more memory than there is",
        )
    return Footprint(**json.loads(done.stdout))


def peak_mb() -> float:
    """Most memory this program has held, in units of 1e6 bytes; 0 where the system does not tell (Windows)."""
    # getrusage would count what the process was before it became this program
    peak = _status("VmHWM")
    if peak is not None:
        return peak
    try:
        import resource
    except ImportError:
        return 0.0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most * (1 if sys.platform == "darwin" else 1024) / 1e6  # bytes on macOS, KiB elsewhere


def _status(entry: str) -> float | None:
    """An entry of Linux's /proc/self/status, in units of 1e6 bytes."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    found = re.search(rf"^{entry}:\s+(\d+) kB$", status.read_text(encoding="ascii", errors="replace"), re.MULTILINE)
    return int(found[1]) * 1024 / 1e6 if found is not None else None


def _child(model: Path, folder: Path, threads: int) -> Footprint:
    """What the fresh process does."""
    with np.load(folder / "feed.npz", allow_pickle=False) as stored:
        names = json.loads((folder / "names.json").read_text(encoding="utf-8"))
        feed = {name: stored[str(i)] for i, name in enumerate(names)}
    resident = _status("VmRSS")
    before = peak_mb() if resident is None else resident
    open_session(model, threads=threads).run(feed)
    peak = peak_mb()
    times: list[float] = []
    start = perf_counter()
    while len(times) < _LOADS and (not times or perf_counter() - start < _LOADS_SECONDS):
        begin = perf_counter()
        open_session(model, threads=threads)
        times.append((perf_counter() - begin) * 1e3)
    return Footprint(load_ms=median(times), peak_mb=peak, model_mb=max(0.0, peak - before))


if __name__ == "__main__":
    _found = _child(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
    sys.stdout.write(json.dumps({"load_ms": _found.load_ms, "peak_mb": _found.peak_mb, "model_mb": _found.model_mb}))

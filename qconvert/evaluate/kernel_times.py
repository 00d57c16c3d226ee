"""What each node of the optimized graph costs, from ONNX Runtime's profiler."""

from __future__ import annotations

import json
import math
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

from qconvert.graph.model import Model
from qconvert.graph.session import Feed, open_session
from qconvert.graph.signature import session_of

_SUFFIX = "_kernel_time"
_FEWEST_RUNS = 3


def kernel_times(
    source: Path | Model,
    feed: Feed,
    *,
    runs: int = 9,
    seconds: float = math.inf,
    least: float = 0.0,
    threads: int = 1,
    optimized_path: Path | None = None,
) -> dict[str, float]:
    """Node of the optimized graph -> milliseconds a run, typical of all runs but the first.

    The profiler counts whole microseconds, so several runs are averaged.

    Args:
        source: a file, or a model in memory.
        feed: what to run it on.
        runs: most runs that count, but for ``least``; three are always made.
        seconds: time after which no further run begins.
        least: seconds in which runs go on, however many: of short ones 20 are over before the processor is warm.
        threads: intra-op threads.
        optimized_path: where to save the graph whose nodes are timed.

    Raises:
        ModelError: ONNX Runtime cannot load the model, or not run it on ``feed``.
    """
    with tempfile.TemporaryDirectory(prefix="qconvert-") as folder:
        prefix = Path(folder) / "profile"
        session = (
            session_of(source, threads=threads, profile_prefix=prefix, optimized_path=optimized_path)
            if isinstance(source, Model)
            else open_session(source, threads=threads, profile_prefix=prefix, optimized_path=optimized_path)
        )
        session.run(feed)
        start, done = perf_counter(), 0
        while (taken := perf_counter() - start) < least or (done < runs and (done < _FEWEST_RUNS or taken <= seconds)):
            session.run(feed)
            done += 1
        events = json.loads(session.end_profiling().read_text(encoding="utf-8"))
    times: defaultdict[str, list[float]] = defaultdict(list)
    for event in events:
        name = str(event.get("name", ""))
        if event.get("cat") == "Node" and name.endswith(_SUFFIX):
            times[name.removesuffix(_SUFFIX)].append(float(event["dur"]) / 1e3)
    return {name: _typical(found[1:] or found) for name, found in times.items()}


def _typical(times: Sequence[float]) -> float:
    """The mean of the faster half of ``times`` without its fastest quarter: other processes only ever add time."""
    ordered = sorted(times)
    middle = ordered[len(ordered) // 8 : (len(ordered) + 1) // 2]
    return math.fsum(middle) / len(middle)

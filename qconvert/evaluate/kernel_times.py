"""What each node of the optimized graph costs, from ONNX Runtime's profiler."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from pathlib import Path
from statistics import median

from qconvert.graph.session import Feed, open_session

_SUFFIX = "_kernel_time"


def kernel_times(path: Path, feed: Feed, *, runs: int = 9, threads: int = 1) -> dict[str, float]:
    """Node of the optimized graph -> milliseconds a run, the median of ``runs`` after one that does not count.

    Raises:
        ModelError: ONNX Runtime cannot load the model, or not run it on ``feed``.
    """
    with tempfile.TemporaryDirectory(prefix="qconvert-") as folder:
        session = open_session(path, threads=threads, profile_prefix=Path(folder) / "profile")
        for _ in range(runs + 1):
            session.run(feed)
        events = json.loads(session.end_profiling().read_text(encoding="utf-8"))
    times: defaultdict[str, list[float]] = defaultdict(list)
    for event in events:
        name = str(event.get("name", ""))
        if event.get("cat") == "Node" and name.endswith(_SUFFIX):
            times[name.removesuffix(_SUFFIX)].append(float(event["dur"]) / 1e3)
    return {name: median(found[1:] or found) for name, found in times.items()}

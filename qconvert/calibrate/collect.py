"""The one pass over the data that serves every request for statistics.

The canonical FP32 model is run with exactly the requested tensors as outputs; each sample's activations go into the
statistics and are dropped, so memory does not grow with the number of samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from qconvert.graph.model import Model
from qconvert.graph.session import Feed
from qconvert.graph.signature import session_of
from qconvert.progress import Progress, Silent
from qconvert.stats.statistic import StatRequest, StatsTable


def collect(
    model: Model,
    requests: Sequence[StatRequest],
    feeds: Iterable[Feed],
    *,
    total: int | None = None,
    progress: Progress | None = None,
    threads: int = 0,
) -> StatsTable:
    """Run ``feeds`` through ``model`` and gather every requested statistic.

    Args:
        model: canonical FP32 model.
        requests: what to gather; a tensor may be an input of the model.
        feeds: checked inputs, one sample each.
        total: number of feeds, for the progress bar.
    """
    table = StatsTable(entries={r.tensor: r.make() for r in requests})
    inputs = {v.name for v in model.ir.graph.inputs}
    watched = [t for t in table if t not in inputs]
    session = session_of(model, outputs=watched, threads=threads) if watched else None
    watch = (progress or Silent()).track(feeds, label="calibrating", total=total)
    for feed in watch:
        for name in table:
            if name in inputs:
                table[name].update(np.asarray(feed[name], np.float32))
        if session is not None:
            wanted = {i.name for i in session.inputs}
            results = session.run({k: v for k, v in feed.items() if k in wanted}, watched)
            for name, array in zip(watched, results, strict=True):
                table[name].update(np.asarray(array, np.float32))
        table.samples += 1
    return table

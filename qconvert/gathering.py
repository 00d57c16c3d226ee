"""Where the statistics of a run come from: a pass over the data, a statistics file, or the cache."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from qconvert import __version__
from qconvert.calibrate.cache import cache_file
from qconvert.calibrate.gather import Gatherer
from qconvert.calibrate.ranges_file import Ranges, check_ranges, load_ranges
from qconvert.errors import DataError
from qconvert.graph.build_view import view_of
from qconvert.graph.digest import graph_digest
from qconvert.graph.prepare.canonical import Prepared
from qconvert.inputs import ConversionJob, Data


def kept_statistics(job: ConversionJob, data: Data, prepared: Prepared, digest: Callable[[], str]) -> Path | None:
    """Where the statistics of this run are kept, if the user wants that.

    Raises:
        OutputError: the folder cannot be made.
    """
    if job.cache is None or job.calib is None:
        return None
    versions = (__version__, version("onnxruntime"), version("numpy"))
    graph = graph_digest(view_of(prepared.model))
    # the budget decides where a wide model is cut, which may change last bits
    what = (digest(), graph, job.recipe.method, str(job.options.budget), *versions)
    return cache_file(job.cache, (*what, job.calib.preprocess or "", *data.calibration.listing()))


def gatherer_of(
    job: ConversionJob, ranges: Ranges | None, prepared: Prepared, kept: Path | None, digest: Callable[[], str]
) -> Gatherer:
    """Where the run gets its statistics: ``ranges``, or the cache's file ``kept`` if it is there, or the data.

    Raises:
        DataError: the ranges are of another model, or of another form of it.
    """
    if ranges is None or job.ranges is None:
        if kept is not None and kept.exists():
            with contextlib.suppress(DataError):  # a damaged file is as good as none, and is written anew
                found = load_ranges(kept)
                return Gatherer(options=job.options, stored=found.tables, origin=found.origin)
        return Gatherer(options=job.options)
    check_ranges(
        job.ranges,
        ranges.origin,
        model=job.model,
        model_sha256=digest(),
        graph_sha256=graph_digest(view_of(prepared.model)),
    )
    return Gatherer(options=job.options, stored=ranges.tables, origin=ranges.origin, collects=job.calib is not None)


def source_of(job: ConversionJob, ranges: Ranges | None) -> str:
    """Where the ranges come from, for the report."""
    if ranges is None or job.ranges is None:
        return job.calib.name if job.calib is not None else ""
    missing = (
        f", shards {', '.join(map(str, ranges.origin.shards))} of {ranges.origin.parts}" if ranges.origin.shards else ""
    )
    return f"{job.ranges}{missing}"

"""A model's optimized graph with the time of each of its nodes."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from qconvert.evaluate.kernel_times import kernel_times
from qconvert.graph.build_view import view_of
from qconvert.graph.model import Model
from qconvert.graph.optimized import renamed, structure
from qconvert.graph.session import Feed
from qconvert.graph.view import GraphView
from qconvert.measure.attribution import marked


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One model as ONNX Runtime runs it here.

    Attributes:
        run: the optimized graph.
        us: node of ``run`` -> microseconds; 0 for one that the profile does not show.
    """

    run: GraphView
    us: Mapping[str, float]

    @property
    def total_us(self) -> float:
        """All kernels together."""
        return sum(self.us.values())


def profile(model: Model, feed: Feed, *, runs: int, seconds: float, least: float = 0.0) -> Profile:
    """Time every kernel of ``model`` on one thread.

    Args:
        model: to profile.
        feed: what to run it on.
        runs, seconds: most runs, and time after which no further one begins.
        least: seconds in which runs go on, however many.

    Raises:
        ModelError: ONNX Runtime cannot load the model, or not run it on ``feed``.
    """
    with tempfile.TemporaryDirectory(prefix="qconvert-") as folder:
        saved = Path(folder) / "optimized.onnx"
        named = renamed(model, marked)
        milliseconds = kernel_times(named, feed, runs=runs, seconds=seconds, least=least, optimized_path=saved)
        run = view_of(structure(saved))
    return Profile(run=run, us={name: 1e3 * milliseconds.get(name, 0.0) for name in run.nodes})

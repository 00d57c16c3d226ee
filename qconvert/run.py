"""What the stages of one conversion have in common."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from qconvert.calibrate.gather import Gatherer
from qconvert.graph.session import Feed
from qconvert.plan.model import NodeTimes
from qconvert.progress import Progress, Silent
from qconvert.recipe.recipe import Recipe


class Feeds(Protocol):
    """Inputs of one graph, one sample each, read when asked for; they can be gone through again and again."""

    def __iter__(self) -> Iterator[Feed]:
        """All of them, in order."""
        ...

    def feed(self, i: int) -> Feed:
        """The i-th; IndexError when there is none."""
        ...


@dataclass(slots=True, kw_only=True)
class Stopwatch:
    """Wall time of each stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of the block to ``name``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The conversion of one graph: the main graph of a model, or a branch made a model of its own.

    Attributes:
        recipe: the choices.
        samples: calibration inputs of the graph.
        source: where they come from, for the report.
        place: which graph it is: "" the main one, "If_12/then_branch" a branch.
        gatherer: gives the statistics; by default all are collected from ``samples``.
        times: what nodes were measured to take, for the plan to tell.
        watch, progress: told what goes on.
    """

    recipe: Recipe
    samples: Feeds
    source: str = ""
    place: str = ""
    gatherer: Gatherer = field(default_factory=Gatherer)
    times: Mapping[str, NodeTimes] = field(default_factory=dict)
    watch: Stopwatch = field(default_factory=Stopwatch)
    progress: Progress = field(default_factory=Silent)

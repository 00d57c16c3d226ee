"""The data set that the user described, open and checked: ``open_data_set``."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qconvert.calibrate.feeds import FeedSet, feeds
from qconvert.calibrate.joined import Joined, assigned
from qconvert.calibrate.place import split_qualifier
from qconvert.calibrate.preprocess import parse_preprocess
from qconvert.calibrate.source import Source, check_interface, open_source
from qconvert.errors import DataError, RecipeError
from qconvert.graph.session import IOSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSpec:
    """A data set as the user describes it.

    Attributes:
        sources: one source of all inputs ("calib/", "data.bin:float32:3x8x8", "random:20"), or "input=source" for each.
        samples: use that many, spread over the whole set; None for all.
        seed: of the choice of samples, and of random data.
        preprocess: what is done to images: a preset, a line, or a YAML file (``qconvert/calibrate/preprocess.py``).
        skip_bad: how many bad samples may be passed over.
    """

    sources: tuple[str, ...]
    samples: int | None = None
    seed: int = 0
    preprocess: str | None = None
    skip_bad: int = 0

    def __post_init__(self) -> None:
        if self.samples is not None and self.samples < 1:
            raise RecipeError(f"--samples {self.samples} leaves nothing to use", hint="give 1 or more")
        if self.skip_bad < 0 or self.seed < 0:
            raise RecipeError("--skip-bad and --seed cannot be negative", hint="give 0 or more")

    @property
    def name(self) -> str:
        """The sources as one text, for reports."""
        return ", ".join(self.sources)

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files and folders among the sources that exist, which a run may not replace."""
        found = (_path_in(text) for text in self.sources)
        return tuple(path for path in found if path is not None)


def _path_in(text: str) -> Path | None:
    """The path in "path", "path:qualifier" or "input=path:qualifier"; None where none exists."""
    tails = [text, *(text[at + 1 :] for at, letter in enumerate(text) if letter == "=")]
    try:
        paths = (split_qualifier(tail)[0] for tail in tails if tail)
        return next((path for path in paths if path.exists()), None)
    except OSError:  # a name too long to exist
        return None


def open_data_set(spec: DataSpec, interface: tuple[IOSpec, ...]) -> FeedSet:
    """Open a data set for a model with these inputs; the first good sample is read and checked.

    Raises:
        DataError: there is nothing to open, it does not suit the model, it is empty, or its first samples are bad.
        RecipeError: the preprocessing means nothing.
    """
    check_interface(interface)
    source = _source(spec, interface)
    indices = None
    if spec.samples is not None and spec.samples < len(source):
        indices = spread(len(source), spec.samples, spec.seed)
    return feeds(source, interface, skip_bad=spec.skip_bad, indices=indices)


def _source(spec: DataSpec, interface: tuple[IOSpec, ...]) -> Source:
    preprocess = parse_preprocess(spec.preprocess) if spec.preprocess is not None else None
    try:
        parts = assigned(spec.sources, interface)
    except OSError as error:
        raise DataError(f"{spec.name} cannot be read: {error.strerror or error}", hint="check the paths") from error
    if not parts:
        return open_source(spec.sources[0], interface, preprocess=preprocess, seed=spec.seed)
    return Joined(
        {
            one: open_source(text, (one,), preprocess=preprocess, seed=spec.seed + place)
            for place, (one, text) in enumerate(parts.items())
        }
    )


def spread(total: int, count: int, seed: int) -> tuple[int, ...]:
    """``count`` of ``total`` numbers, ascending: one drawn from each of ``count`` equal stretches.

    So data in order of class or time are covered from end to end.
    """
    edges = [k * total // count for k in range(count + 1)]
    random = np.random.default_rng(seed)
    return tuple(int(random.integers(low, high)) for low, high in itertools.pairwise(edges))

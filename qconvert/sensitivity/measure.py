"""How much noise each source of error makes in the outputs, and each group of nodes.

    noise(S) = mean over outputs o of  sum_i |y_io(S) - y_io|^2 / sum_i |y_io|^2,   i over samples

for the model with the sources S switched on and nothing else; y without any. SQNR = -10 log10(noise). Outputs are taken
before a last Softmax or Sigmoid (:mod:`qconvert.graph.tails`), unless asked for as they are. A sample costs a run for
each group, two for each source (one for a weight that is not clipped), one with everything and one with nothing: runs
grow as the groups do. Where nobody wants to read them (``sources_only``), groups cost none, and a source one; and where
little noise does not matter (``negligible``), neighbours that together make no more than that share it evenly, for one
run of them all.

Samples come in rounds, each doubling them: until, for the sources that make nine tenths of the noise, the standard
error of the noise is a quarter of it, and within limits of samples and of work. Everything is deterministic.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from qconvert.errors import ModelError
from qconvert.evaluate.fidelity import sqnr_db
from qconvert.graph.session import Feed
from qconvert.graph.tails import as_squashed, before_squashing
from qconvert.plan.model import QuantPlan
from qconvert.progress import Progress
from qconvert.recover.outputs import energy, mixed, part
from qconvert.recover.recovery import Subject
from qconvert.recover.work import run_work
from qconvert.sensitivity.sources import NodeGroup, Source
from qconvert.sensitivity.switchboard import Part, Switchboard

Energies = NDArray[np.float64]

# sources that are measured together before each is measured by itself
_BUNDLE = 8

# work a second of two cores, in multiplications
_SPEED = 5e10


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureOptions:
    """What bounds the cost.

    Attributes:
        least, most: samples.
        held: bytes of samples that are kept in memory.
        operations: work in multiplications, which decides how many; 1e12 take about 20 s of two cores.
        dearest: work beyond which groups alone are measured, on one sample, and then the sources of the worst of them
            as far as it goes; beyond which groups alone are too dear, and nothing is measured.
        share: of the noise, that of the sources whose noise must be known well.
        error: standard error of a noise, as a share of it, that is good enough.
        sources_only: no groups, and the noise of a source in one, as rounding.
        squashed: outputs are taken as the user gets them, behind a last Softmax, too.
        negligible: with it, noise of a bundle of sources that need not be told apart.
    """

    least: int = 2
    most: int = 16
    held: int = 64 << 20
    operations: float = 2e12
    dearest: float = math.inf
    share: float = 0.9
    error: float = 0.25
    sources_only: bool = False
    squashed: bool = False
    negligible: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceNoise:
    """Noise that one source makes, as a share of the outputs' power: by rounding and by clipping."""

    rounding: float
    clipping: float

    @property
    def noise(self) -> float:
        """Of both."""
        return self.rounding + self.clipping


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What was found.

    Attributes:
        sources: noise of each source, in their order.
        groups: noise of each group with all its sources, in their order; none where only sources were measured.
        together: noise of all sources at once.
        samples, runs: how many samples were used, and how often the model was run.
        known: the sources that were measured, by number; None for all. The noise of others is 0.
    """

    sources: tuple[SourceNoise, ...]
    groups: tuple[float, ...]
    together: float
    samples: int
    runs: int
    known: frozenset[int] | None = None

    @property
    def summed(self) -> float:
        """Sum of the noises of all sources."""
        return math.fsum(n.noise for n in self.sources)

    @property
    def additivity_db(self) -> float:
        """That sum against the noise of all together, in dB; 0 where errors add up, or not all are known."""
        known = self.known is None and self.summed > 0 and self.together > 0
        return sqnr_db(self.summed, self.together) if known else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Setting:
    """Something to switch on; made when it is needed, because weights are large."""

    make: Callable[[], Feed]
    errors: list[list[float]] = field(default_factory=list)

    def noise(self, power: Energies) -> Energies:
        """[samples], each as a share of the mean power [outputs]."""
        errors = np.asarray(self.errors, np.float64)
        shares = np.divide(errors, power, out=np.zeros_like(errors), where=power > 0)
        return np.asarray(shares.mean(axis=1) if shares.size else np.zeros(len(errors)))


def measure(
    subject: Subject,
    plan: QuantPlan,
    sources: Sequence[Source],
    groups: Sequence[NodeGroup],
    options: MeasureOptions,
    progress: Progress,
) -> Measured:
    """Run the samples of ``subject`` with every source and group switched on by itself.

    Raises:
        ModelError: it is dearer than ``options`` allow.
    """
    tails = as_squashed(subject.model) if options.squashed else before_squashing(subject.model)
    board = Switchboard.of(tails, subject.graph, plan, subject.changes, sources)
    if options.sources_only:
        groups = ()
        parts = {
            (i, Part.ROUNDING): _Setting(make=partial(_one_part, board, s, Part.BOTH)) for i, s in enumerate(sources)
        }
    else:
        parts = {
            (i, p): _Setting(make=partial(_one_part, board, s, p))
            for i, s in enumerate(sources)
            for p in (Part.ROUNDING, Part.CLIPPING)
            if board.setting(s, p) is not None
        }
    chosen: frozenset[int] = frozenset()
    alone = [_Setting(make=partial(all_of, board, [sources[i] for i in g.sources])) for g in groups]
    together = _Setting(make=partial(all_of, board, sources))
    settings = [*parts.values(), *alone, together]

    least, once = options.least, run_work(subject)
    dear = least * once * (len(settings) + 1) > options.dearest
    if dear:
        least, settings = 1, [*alone, together]
        if (work := once * (len(settings) + 1)) > options.dearest:
            raise ModelError(f"it would take about {work / _SPEED:.0f} s", hint="`qconvert sensitivity` takes its time")

    feeds = mixed(list(subject.samples.first(_most_samples(subject, once * (len(settings) + 1), least, options))))
    runs = _Runs(board=board, progress=progress)
    runs.add(feeds[:least])
    if dear:
        runs.through(settings)
        left = int(options.dearest / once) - runs.count
        chosen = _worst(groups, [float(s.noise(runs.power).mean()) for s in alone], parts, left)
        parts = {(i, p): setting for (i, p), setting in parts.items() if i in chosen}
        runs.through([*parts.values()])
    even = _negligible(runs, sources, options.negligible)
    parts = {(i, p): setting for (i, p), setting in parts.items() if i not in even}
    settings = [*parts.values(), *alone, together]
    runs.through(settings)
    while (
        not dear
        and runs.samples < len(feeds)
        and not _known_well([s.noise(runs.power) for s in parts.values()], options)
    ):
        runs.add(feeds[runs.samples : 2 * runs.samples])
        runs.through(settings)
    noise = {key: float(s.noise(runs.power).mean()) for key, s in parts.items()}
    return Measured(
        sources=tuple(
            SourceNoise(
                rounding=even.get(i, noise.get((i, Part.ROUNDING), 0.0)), clipping=noise.get((i, Part.CLIPPING), 0.0)
            )
            for i in range(len(sources))
        ),
        groups=tuple(float(s.noise(runs.power).mean()) for s in alone),
        together=float(together.noise(runs.power).mean()),
        samples=runs.samples,
        runs=runs.count,
        known=chosen if dear else None,
    )


def _worst(
    groups: Sequence[NodeGroup], noises: Sequence[float], parts: Iterable[tuple[int, Part]], most: int
) -> frozenset[int]:
    """The sources of those groups that make most noise, as far as ``most`` runs of ``parts`` go."""
    runs = Counter(source for source, _ in parts)
    chosen: frozenset[int] = frozenset()
    for i in sorted(range(len(groups)), key=lambda i: -noises[i]):
        more = chosen | set(groups[i].sources)
        if sum(runs[s] for s in more) > most:
            break
        chosen = more
    return chosen


@dataclass(slots=True, kw_only=True)
class _Runs:
    """Samples, and what comes of them with nothing switched on.

    Attributes:
        board, progress: what runs, and who is told.
        count: runs so far.
    """

    board: Switchboard
    progress: Progress
    count: int = 0
    _feeds: list[Feed] = field(default_factory=list)
    _expected: list[list[NDArray[np.float32]]] = field(default_factory=list)

    @property
    def samples(self) -> int:
        """How many there are."""
        return len(self._feeds)

    @property
    def power(self) -> Energies:
        """Mean sum of squares of each output, [outputs]."""
        powers = np.asarray([[energy(a) for a in arrays] for arrays in self._expected], np.float64)
        return np.asarray(powers.mean(axis=0))

    def add(self, feeds: Sequence[Feed]) -> None:
        """Take in more samples."""
        self._feeds += feeds
        self._expected += [[part(a) for a in self.board.run(feed, {})] for feed in feeds]
        self.count += len(feeds)

    def through(self, settings: Sequence[_Setting]) -> None:
        """Run the samples that ``settings`` have not seen."""
        for setting in self.progress.track(settings, label="sensitivity", total=len(settings)):
            on = setting.make()
            seen = len(setting.errors)
            for feed, expected in zip(self._feeds[seen:], self._expected[seen:], strict=True):
                outputs = self.board.run(feed, on)
                setting.errors.append([energy(part(y) - r) for y, r in zip(outputs, expected, strict=True)])
                self.count += 1


def _negligible(runs: _Runs, sources: Sequence[Source], noise: float) -> dict[int, float]:
    """Source -> its share of the noise of its bundle, for bundles that make no more than ``noise``."""
    if not noise:
        return {}
    bundles = [range(i, min(i + _BUNDLE, len(sources))) for i in range(0, len(sources), _BUNDLE)]
    settings = [_Setting(make=partial(all_of, runs.board, [sources[i] for i in bundle])) for bundle in bundles]
    runs.through(settings)
    found = [float(s.noise(runs.power).mean()) for s in settings]
    return {i: n / len(bundle) for bundle, n in zip(bundles, found, strict=True) if n <= noise for i in bundle}


def all_of(board: Switchboard, sources: Sequence[Source]) -> Feed:
    """Inputs that switch on all of ``sources``."""
    on: dict[str, NDArray[np.generic]] = {}
    for source in sources:
        on |= board.setting(source) or {}
    return on


def _one_part(board: Switchboard, source: Source, part: Part) -> Feed:
    return board.setting(source, part) or {}


def _most_samples(subject: Subject, each: float, least: int, options: MeasureOptions) -> int:
    """How many samples of so much work ``each`` the ``options`` allow."""
    first = next(iter(subject.samples))
    size = sum(np.asarray(a).nbytes for a in first.values())
    affordable = int(options.operations / max(1.0, each))
    return min(options.most, max(least, min(affordable, options.held // max(1, size))))


def _known_well(noises: Sequence[Energies], options: MeasureOptions) -> bool:
    """Whether the largest of ``noises``, [samples] each, are known to within the error that is good enough."""
    ranked = sorted(((float(n.mean()), n) for n in noises), key=lambda pair: -pair[0])
    total, seen = sum(mean for mean, _ in ranked), 0.0
    for mean, values in ranked:
        if seen >= options.share * total:
            break
        seen += mean
        if values.size < 2 or not math.isfinite(mean):
            return False
        if float(values.std(ddof=1)) / math.sqrt(values.size) > options.error * mean:
            return False
    return True

"""The one pass over the data that serves every request for statistics.

The canonical FP32 model is run with exactly the requested tensors as outputs; each sample's activations go into the
statistics and are dropped, so memory does not grow with the number of samples.

The result does not depend on anything but the set of samples. Each thread runs whole samples on its own, with ONNX
Runtime confined to that thread, and has its own statistics; these are merged at the end, which is exact
(:mod:`qconvert.stats.statistic`). So neither the number of threads nor the order of samples changes a bit, nor does a
batch, which is used only where it gives the same bits (:mod:`qconvert.calibrate.batching`). The budget alone, which
decides where a wide model is cut into parts (:mod:`qconvert.graph.segments`), may change an activation's last bits.
A model that draws random numbers runs in one thread, sample by sample: its results depend on the order of the draws.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from qconvert.calibrate.batching import Batching, can_batch, shapes_of, try_batch
from qconvert.errors import InternalError
from qconvert.graph.footprint import value_bytes
from qconvert.graph.memory import give_back
from qconvert.graph.model import Model
from qconvert.graph.segments import Observer
from qconvert.graph.session import Feed
from qconvert.machine import cores
from qconvert.progress import Progress, Silent
from qconvert.stats.statistic import Statistic, StatRequest, StatsTable

# Activations of one run that are held at once. ResNet-50 at 224 x 224 makes 64 MB of them, a BERT layer 1 MB.
DEFAULT_BUDGET = 32 << 20

# More samples in a run, or more activations, gain nothing on the models tried, and take memory: what a batch saves is
# the cost of starting a run, which is small beside that of a large one.
_MAX_BATCH, _BATCH_BYTES = 16, 8 << 20

# More threads than this compete for memory bandwidth more than they gain.
_MAX_THREADS = 8

# The share of samples at the end that are asked whether they still widen the ranges, and how many there must be.
_LAST_SHARE, _LAST_LEAST = 10, 3

# A range grows where the last samples add this much to its width.
_GROWTH = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectOptions:
    """How the pass is run; none of it changes the statistics, save the budget, which may change last bits.

    Attributes:
        threads: samples that are run at the same time; 0 means one for each processor.
        batch: the most samples in one run; 0 lets qconvert choose.
        budget: bytes of activations that one run may hold at once.
    """

    threads: int = 0
    batch: int = 0
    budget: int = DEFAULT_BUDGET

    @property
    def workers(self) -> int:
        """Threads that run samples."""
        return self.threads or min(_MAX_THREADS, cores())


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What the pass gave.

    Attributes:
        table: the statistics.
        growing: tensors whose range the last tenth of the samples still widened by more than 2 %.
        batch, parts, threads: how the model was run.
    """

    table: StatsTable
    growing: tuple[str, ...] = ()
    batch: int = 1
    parts: int = 1
    threads: int = 1


def collect(
    model: Model,
    requests: Sequence[StatRequest],
    feeds: Iterable[Feed],
    *,
    total: int | None = None,
    progress: Progress | None = None,
    options: CollectOptions | None = None,
) -> Collected:
    """Run ``feeds`` through ``model`` and gather every requested statistic.

    Args:
        model: canonical FP32 model.
        requests: what to gather; a tensor may be an input of the model.
        feeds: checked inputs, one sample each.
        total: number of feeds, for the progress bar and for telling the last tenth; None where it is not known.
        progress: told how far along the pass is.
        options: threads, batch, memory.
    """
    options = options or CollectOptions()
    if model.is_random():
        options = replace(options, threads=1, batch=1)
    inputs = {v.name for v in model.ir.graph.inputs}
    names = tuple(dict.fromkeys(r.tensor for r in requests))
    watched = [t for t in names if t not in inputs]
    watch = (progress or Silent()).track(feeds, label="calibrating", total=total)
    items = enumerate(watch)
    ahead = list(itertools.islice(items, 1))
    observer: Observer | None = None
    batching = Batching()
    if watched and ahead:
        sizes = value_bytes(model, watched, ahead[0][1])
        give_back()
        observer = Observer(model, watched, sizes=sizes, budget=options.budget, threads=1)
        ahead += _read_ahead(items, observer, ahead[0][1], sizes, options, total)
        batching = try_batch(observer, [f for _, f in ahead]) if len(ahead) > 1 else batching
    last = total - total // _LAST_SHARE if total and total // _LAST_SHARE >= _LAST_LEAST else None
    job = _Job(requests=tuple(requests), observer=observer, direct=tuple(t for t in names if t in inputs), last=last)
    job.go_through(batching.groups(itertools.chain(ahead, items)), options.workers)
    head, tail = job.merged()
    return Collected(
        table=head if tail is None else _merge(head, tail),
        growing=_growing(head, tail),
        batch=batching.size,
        parts=observer.parts if observer is not None else 1,
        threads=options.workers,
    )


def _read_ahead(
    items: Iterator[tuple[int, Feed]],
    observer: Observer,
    first: Feed,
    sizes: Mapping[str, int],
    options: CollectOptions,
    total: int | None,
) -> list[tuple[int, Feed]]:
    """Samples to try a batch on together with ``first``: none where a batch is out of the question."""
    held = max(1, sum(sizes.values()))
    size = min(options.batch or min(_MAX_BATCH, _BATCH_BYTES // held), options.budget // held, (total or 0) // 4)
    if observer.parts > 1 or size < 2 or not can_batch(observer.inputs, first):
        return []
    found: list[tuple[int, Feed]] = []
    for item in items:
        found.append(item)
        if len(found) == size - 1 or shapes_of(item[1]) != shapes_of(first):
            break
    return found


@dataclass(slots=True, kw_only=True)
class _Job:
    """The pass itself: samples in, a pair of tables for each thread out.

    Attributes:
        requests: what to gather.
        observer: runs the model; None where only inputs are asked for.
        direct: requested tensors that are inputs.
        last: samples from this number on go into the second table; None where there is no second one.
        counting: held by the thread that counts. Two that did would wait for the interpreter at every other call of
            numpy (a pass over 224 sentences of MiniLM took 2.4 s instead of 1.8).
    """

    requests: tuple[StatRequest, ...]
    observer: Observer | None
    direct: tuple[str, ...]
    last: int | None
    own: threading.local = field(default_factory=threading.local)
    tables: list[tuple[StatsTable, StatsTable]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    counting: threading.Lock = field(default_factory=threading.Lock)

    def go_through(self, groups: Iterator[tuple[tuple[int, ...], Feed]], workers: int) -> None:
        """Run every group, with at most ``workers`` at the same time and as many more waiting."""
        if workers == 1:
            for numbers, feed in groups:
                self.take(numbers, feed)
            return
        waiting: list[Future[None]] = []
        with ThreadPoolExecutor(workers) as pool:
            try:
                for numbers, feed in groups:
                    waiting.append(pool.submit(self.take, numbers, feed))
                    if len(waiting) > 2 * workers:
                        waiting.pop(0).result()
                for future in waiting:
                    future.result()
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def take(self, numbers: tuple[int, ...], feed: Feed) -> None:
        """One run: the samples ``numbers``, stacked in ``feed``."""
        first, second = self._tables()
        split = sum(1 for n in numbers if self.last is None or n < self.last)
        for name in self.direct:
            _add(first[name], second[name], feed[name], len(numbers), split)
        if self.observer is not None:
            for values in self.observer.run_parts(feed):
                with self.counting:
                    for name, value in values:
                        _add(first[name], second[name], value, len(numbers), split)
        first.samples += split
        second.samples += len(numbers) - split

    def _tables(self) -> tuple[StatsTable, StatsTable]:
        """This thread's tables."""
        found: tuple[StatsTable, StatsTable] | None = getattr(self.own, "tables", None)
        if found is None:
            found = self._empty(), self._empty()
            self.own.tables = found
            with self.lock:
                self.tables.append(found)
        return found

    def _empty(self) -> StatsTable:
        return StatsTable(entries={r.tensor: r.make() for r in self.requests})

    def merged(self) -> tuple[StatsTable, StatsTable | None]:
        """(all samples but the last, the last ones); the second is None if they were not kept apart."""
        head, tail = self._empty(), self._empty()
        for first, second in self.tables:
            head, tail = _merge(head, first), _merge(tail, second)
        return head, tail if tail.samples else None


def _add(first: Statistic, second: Statistic, value: NDArray[np.generic], count: int, split: int) -> None:
    """Put ``value`` [count * b, ...] of ``count`` samples into ``first``, from sample ``split`` on into ``second``."""
    rows = np.asarray(value, np.float32).reshape(count, -1)
    if split:
        first.update_many(rows[:split])
    if split < count:
        second.update_many(rows[split:])


def _merge(a: StatsTable, b: StatsTable) -> StatsTable:
    if a.entries.keys() != b.entries.keys():
        raise InternalError("statistics of different tensors cannot be merged")
    return StatsTable(entries={t: a[t].merge(b[t]) for t in a}, samples=a.samples + b.samples)


def _growing(head: StatsTable, tail: StatsTable | None) -> tuple[str, ...]:
    """Tensors whose range the last samples widen."""
    if tail is None:
        return ()
    found = []
    for name in head:
        a, b = head[name].extremes, tail[name].extremes
        if not a.empty and not b.empty and max(a.lo - b.lo, 0.0) + max(b.hi - a.hi, 0.0) > _GROWTH * (a.hi - a.lo):
            found.append(name)
    return tuple(found)

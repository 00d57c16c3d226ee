"""Samples turned into feeds: every array checked against the model's input and brought into the form that it wants.

Batch axis, for an input of rank r: an array of rank r is used as it is, one of rank r - 1 gets a leading axis of 1
(stacked data have been cut to rank r by their source). Fixed dimensions must match, symbolic ones accept anything.

Types: only conversions that lose nothing which matters. Floats become float32, since data are prepared in double or
kept in half precision; integers become wider ones, or int32 and int64 where the values fit. An image in uint8 never
turns into floats here: whether the model wants 0..1, -1..1 or a mean subtracted is not for us to guess.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from qconvert.calibrate.ledger import Ledger
from qconvert.calibrate.source import Array, ClassNumbers, Sample, Source, check_interface, match_inputs
from qconvert.errors import DataError
from qconvert.graph.session import IOSpec

_INTEGERS = "iu"
_HOLDOUT_SHARE = 8
_HOLDOUT_MOST = 32  # enough to rank methods by; more would only slow every comparison down
_HOLDOUT_LEAST_SAMPLES = 4  # below, each sample is worth more for calibration than for a measurement
_PERMUTED_RANKS = range(2, 6)  # ranks for which all permutations are tried for a hint


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FeedSet:
    """Feeds for one model, read and checked when asked for.

    A feed has the number of its sample in the set; bad samples keep theirs, so ``len`` counts them too. They are passed
    over, as far as the ledger allows, or raise.

    Attributes:
        source: where the samples come from.
        interface: the model's inputs.
        indices: the samples of the source that belong to the set, in order.
        allow_nonfinite: let NaN and Inf pass.
        warnings: what the user should know: arrays ignored, rows dropped.
        ledger: the bad samples, shared by all views of the set.
    """

    source: Source
    interface: tuple[IOSpec, ...]
    indices: Sequence[int]
    allow_nonfinite: bool = False
    warnings: tuple[str, ...] = ()
    ledger: Ledger = field(default_factory=Ledger)

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[dict[str, Array]]:
        return (feed for _, feed in self.items())

    def items(self) -> Iterator[tuple[int, dict[str, Array]]]:
        """(number, feed) of every good sample: ``feed(number)`` and ``labels[number]`` belong to it.

        Raises:
            DataError: as :meth:`feed`; or no sample is good.
        """
        number = None
        for number, (_, feed) in self._good(0):
            yield number, feed
        if number is None and len(self):
            raise self._none_good()

    def feed(self, i: int) -> dict[str, Array]:
        """The i-th feed: {input name: native, contiguous array of the input's type and shape}; the next good one where
        sample i is bad and may be passed over.

        Raises:
            DataError: the sample is damaged or does not fit the model; says which file and input, what was expected
                and what came. Where bad samples may be passed over: it is one too many, or none is good from here on.
            IndexError: there is no such feed.
        """
        return self.first(i)[1]

    def first(self, start: int = 0) -> tuple[Sample, dict[str, Array]]:
        """The first good sample from number ``start`` on, as stored and as a feed. Raises as :meth:`feed`."""
        for _, found in self._good(range(len(self))[start]):
            return found
        raise self._none_good()

    def _good(self, start: int) -> Iterator[tuple[int, tuple[Sample, dict[str, Array]]]]:
        for number in range(start, len(self)):
            try:
                sample = self.source[self.indices[number]]
                feed = _feed(sample, self.interface, self.allow_nonfinite)
            except DataError as error:
                self.ledger.enter(self.indices[number], error)
                continue
            yield number, (sample, feed)

    def _none_good(self) -> DataError:
        return DataError(
            f"{self.source.name}: no usable sample is left, {len(self.skipped)} were bad, the first: "
            f"{next(iter(self.skipped), '')}",
            hint="repair the data, or give more",
        )

    @property
    def skipped(self) -> tuple[str, ...]:
        """What was wrong with each bad sample met so far, in this set or another view of it: a line that names the
        file. Each counts once, however often it is read."""
        return self.ledger.lines

    @property
    def labels(self) -> ClassNumbers | None:
        """The class number of each sample, [N], or [N, b] where the model fixes the batch; None where unknown."""
        known = self.source.labels
        return None if known is None else known[np.asarray(self.indices, np.intp)]

    @property
    def label_names(self) -> tuple[str, ...] | None:
        """The names of the classes, class 0 first; None where unknown."""
        return self.source.label_names

    def listing(self) -> tuple[str, ...]:
        """What identifies each sample: a line with the relative name, size and SHA-256 of its file, or of the file that
        holds it and its number there. The same wherever the data lie. Made when asked for; reads the files.
        """
        return tuple(self.source.identity(i) for i in self.indices)

    def take(self, indices: Iterable[int]) -> FeedSet:
        """A view of the feeds with these numbers, in this order; nothing is read."""
        return replace(self, indices=tuple(self.indices[i] for i in indices))


def feeds(
    source: Source,
    interface: tuple[IOSpec, ...],
    *,
    allow_nonfinite: bool = False,
    skip_bad: int = 0,
    indices: Sequence[int] | None = None,
) -> FeedSet:
    """All feeds of a source. The first is read and checked now, so that most mistakes show before any work is done.

    Args:
        source: where the samples come from.
        interface: the model's inputs.
        allow_nonfinite: let NaN and Inf pass.
        skip_bad: how many bad samples may be passed over.
        indices: the samples that are wanted; by default all.

    Raises:
        DataError: the source is empty, the model cannot be fed, or the first sample does not fit.
    """
    check_interface(interface)
    if len(source) == 0:
        raise DataError(f"{source.name} holds no samples", hint="give at least one sample, better 100 or more")
    made = FeedSet(
        source=source,
        interface=interface,
        indices=range(len(source)) if indices is None else indices,
        allow_nonfinite=allow_nonfinite,
        ledger=Ledger(limit=skip_bad),
    )
    first, _ = made.first()
    used = set(match_inputs(first.arrays, interface, first.origin).values())
    extra = ", ".join(repr(name) for name in first.arrays if name not in used)
    ignored = (f"{source.name}: arrays that belong to no input of the model are ignored: {extra}",) if extra else ()
    return replace(made, warnings=(*source.warnings, *ignored))


def split(feedset: FeedSet, holdout: int | None = None) -> tuple[FeedSet, FeedSet]:
    """(calibration, held out): two views that share no sample, the held-out ones spread evenly over the set.

    Args:
        feedset: with fewer than 4 feeds, none is held out.
        holdout: how many to hold out; by default an eighth, at least 1 and at most 32.

    Raises:
        DataError: ``holdout`` is negative or leaves nothing to calibrate on.
    """
    total = len(feedset)
    if holdout is not None and not 0 <= holdout < max(total, 1):
        raise DataError(
            f"cannot hold out {holdout} of {total} samples", hint="hold out fewer than there are, or give more samples"
        )
    count = min(_HOLDOUT_MOST, max(1, total // _HOLDOUT_SHARE)) if holdout is None else holdout
    if total < _HOLDOUT_LEAST_SAMPLES:
        count = 0
    held = [(2 * j + 1) * total // (2 * count) for j in range(count)]
    chosen = set(held)
    return feedset.take(i for i in range(total) if i not in chosen), feedset.take(held)


def _feed(sample: Sample, interface: tuple[IOSpec, ...], allow_nonfinite: bool) -> dict[str, Array]:
    matched = match_inputs(sample.arrays, interface, sample.origin)
    return {spec.name: _adapt(spec, sample.arrays[matched[spec.name]], sample, allow_nonfinite) for spec in interface}


def _adapt(spec: IOSpec, array: Array, sample: Sample, allow_nonfinite: bool) -> Array:
    where = f"{sample.origin}: input {spec.name!r}"
    shaped = _shaped(where, spec, array, sample.stacked)
    typed = _typed(where, spec, shaped)
    if not allow_nonfinite and _is_float(typed.dtype):
        bad = typed.size - int(np.count_nonzero(np.isfinite(typed)))
        if bad:
            raise DataError(
                f"{where} has {bad} NaN or Inf among {typed.size} values",
                hint="remove the sample, or repair how it was prepared",
            )
    return typed


def _shaped(where: str, spec: IOSpec, array: Array, stacked: bool) -> Array:
    rank = len(spec.shape)
    if rank == 0:  # rank 0 or an unknown rank: ONNX Runtime tells both alike, so the model itself must judge
        return array
    shaped = array[np.newaxis] if array.ndim == rank - 1 else array
    if shaped.ndim == rank and _fits(shaped.shape, spec.shape):
        return shaped
    raise DataError(
        f"{where} expects {_words(spec.shape)}, came {_words(array.shape)}",
        hint=_shape_hint(shaped.shape, spec.shape, stacked),
    )


def _fits(shape: Sequence[int], wanted: Sequence[int | str | None]) -> bool:
    return all(not isinstance(w, int) or s == w for s, w in zip(shape, wanted, strict=True))


def _shape_hint(shape: tuple[int, ...], wanted: tuple[int | str | None, ...], stacked: bool) -> str:
    rank = len(wanted)
    if len(shape) == rank + 1 and not stacked:
        return "a folder holds one sample a file; to use the rows of one file as samples, give the path of that file"
    if len(shape) == rank and rank in _PERMUTED_RANKS:
        for order in itertools.permutations(range(rank)):
            if _fits([shape[axis] for axis in order], wanted):
                layout = " (channels last, while the model wants channels first, or the reverse)" if rank == 4 else ""
                return f"the axes look transposed{layout}: try x.transpose{order} on a sample with its batch axis"
    if len(shape) == rank and not stacked and _fits(shape[1:], wanted[1:]):
        return "the batch is fixed by the model; to use the rows of one file as samples, give the path of that file"
    return "prepare the data as the model expects it, or export the model with symbolic dimensions"


def _typed(where: str, spec: IOSpec, array: Array) -> Array:
    have, want = array.dtype, spec.dtype
    if want == "str":
        if have.kind == "U" or (have.kind == "O" and all(isinstance(item, str) for item in array.flat)):
            return np.require(array, requirements=["C"])
    elif have.name == want:
        return np.require(array, dtype=have.newbyteorder("="), requirements=["C", "ALIGNED"])
    elif want == "float32" and _is_float(have):
        with np.errstate(over="ignore"):  # what does not fit becomes Inf and is reported as such
            return np.require(array, dtype=np.float32, requirements=["C", "ALIGNED"])
    elif have.kind in _INTEGERS and _integers_fit(array, want):
        return np.require(array, dtype=np.dtype(want), requirements=["C", "ALIGNED"])
    raise DataError(f"{where} expects {want}, came {have.name}", hint=_type_hint(have, want))


def _integers_fit(array: Array, want: str) -> bool:
    if want not in {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}:
        return False
    target = np.dtype(want)
    if np.can_cast(array.dtype, target, casting="safe"):
        return True
    if want not in ("int32", "int64"):  # indices and masks; narrower types are data whose scale matters
        return False
    limits = np.iinfo(want)
    return array.size == 0 or (int(array.min()) >= limits.min and int(array.max()) <= limits.max)


def _type_hint(have: np.dtype[np.generic], want: str) -> str:
    if have.kind in "iub" and want.startswith(("float", "bfloat", "double")):
        return "convert and normalise the data as the model expects"
    if _is_float(have) and "int" in want:
        return "the model wants integers (indices, tokens or raw pixels): save them before any scaling"
    if have.kind in _INTEGERS and "int" in want:
        return f"the values may not fit: save the array as {want}"
    return f"save the array as {want}"


def _is_float(dtype: np.dtype[np.generic]) -> bool:
    return dtype.name.startswith(("float", "bfloat"))  # bfloat16 of ml_dtypes has kind V


def _words(shape: Sequence[int | str | None]) -> str:
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"

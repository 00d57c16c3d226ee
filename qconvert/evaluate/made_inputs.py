"""Inputs for measurements: made from a model's signature, or batches cut from data.

Made inputs serve timing alone. Floats are uniform in [0, 1), codes of 8 bits are uniform over their range, and other
integers are 1, which is a valid index, token and mask nearly everywhere.

Symbolic dimensions need sizes: the first axis of an input is the batch, others take a size that is usual for the rank
unless the user gives one. An unnamed dimension is called "input:axis".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from qconvert.calibrate.feeds import FeedSet
from qconvert.errors import DataError, ModelError, RecipeError
from qconvert.graph.session import Feed, IOSpec
from qconvert.registry import suggest

# (pixels of an image's side, tokens or steps of a sequence), in the order in which they are worth trying: a model with
# 64 positions takes no 128 tokens
USUAL_SIZES = ((224, 128), (64, 64), (32, 16), (1, 1))
# Feeds that a measurement goes through; more would hold more memory, and few tell an unusual sample as well.
MOST_FEEDS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeFeed:
    """A feed made from a signature.

    Attributes:
        feed: inputs by name.
        assumed: sizes that nobody gave, by symbolic dimension.
    """

    feed: Feed
    assumed: Mapping[str, int] = field(default_factory=dict)


def common_interface(interfaces: Mapping[str, tuple[IOSpec, ...]]) -> tuple[IOSpec, ...]:
    """The inputs that all models take: where one has a fixed size and another a symbolic one, the fixed size.

    Args:
        interfaces: inputs by model, for messages; order of inputs may differ.

    Raises:
        ModelError: the models take different inputs; names the differences.
    """
    (first, expected), *others = interfaces.items()
    merged = {spec.name: spec for spec in expected}
    problems: list[str] = []
    for model, specs in others:
        got = {spec.name: spec for spec in specs}
        problems += [f"{model} has no input {name!r}" for name in merged if name not in got]
        problems += [f"{first} has no input {name!r}" for name in got if name not in merged]
        for name in (n for n in merged if n in got):
            a, b = merged[name], got[name]
            shape = _meet(a.shape, b.shape)
            if a.dtype != b.dtype:
                problems.append(f"input {name!r} is {a.dtype} in {first}, {b.dtype} in {model}")
            elif shape is None:
                problems.append(f"input {name!r} has shape {_words(a.shape)} in {first}, {_words(b.shape)} in {model}")
            else:
                merged[name] = IOSpec(name=name, dtype=a.dtype, shape=shape)
    if problems:
        raise ModelError(
            f"the models take different inputs: {'; '.join(dict.fromkeys(problems))}",
            hint="compare models of one interface; a model with other inputs needs a run of its own",
        )
    return tuple(merged.values())


def _meet(a: tuple[int | str | None, ...], b: tuple[int | str | None, ...]) -> tuple[int | str | None, ...] | None:
    """The shape that fits both, None when there is none; () is an unknown rank and fits all."""
    if not a or not b:
        return a or b
    if len(a) != len(b) or any(isinstance(x, int) and isinstance(y, int) and x != y for x, y in zip(a, b, strict=True)):
        return None
    return tuple(y if isinstance(y, int) else x for x, y in zip(a, b, strict=True))


def _words(shape: Sequence[int | str | None]) -> str:
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"


def make_feed(
    interface: tuple[IOSpec, ...],
    *,
    batch: int | None = None,
    dims: Mapping[str, int] | None = None,
    usual: tuple[int, int] = USUAL_SIZES[0],
    seed: int = 0,
) -> MadeFeed:
    """One feed for ``interface``.

    Args:
        interface: the inputs; tensors all.
        batch: size of symbolic first axes; 1 when None.
        dims: sizes of symbolic dimensions by name.
        usual: sizes of the other symbolic dimensions: of inputs of rank 4, of all others.
        seed: of the random values.

    Raises:
        RecipeError: ``dims`` names a dimension that the model does not have.
        ModelError: an input is no tensor, or the batch is fixed to another size.
    """
    given, assumed = dict(dims or {}), {}
    batches, others = _symbols(interface)
    valid = [*batches, *others]
    for name in given:
        if name not in valid:
            hint = suggest(name, valid) if valid else "every dimension of the model has a fixed size"
            raise RecipeError(f"the model has no symbolic dimension {name!r}", hint=hint)
    check_batch(interface, batch)
    for name in batches:
        if name not in given:
            given[name] = batch or 1
            if batch is None:
                assumed[name] = 1
    for name, rank in others.items():
        if name not in given:
            given[name] = assumed[name] = usual[0] if rank == 4 else usual[1]
    rng = np.random.default_rng(seed)
    feed = {}
    for spec in interface:
        if not spec.is_tensor:
            raise ModelError(f"input {spec.name!r} is {spec.dtype}: only tensors can be fed")
        shape = tuple(d if isinstance(d, int) else given[_symbol(spec, i)] for i, d in enumerate(spec.shape))
        feed[spec.name] = _values(spec, shape, rng)
    return MadeFeed(feed=feed, assumed=assumed)


def check_batch(interface: tuple[IOSpec, ...], batch: int | None) -> None:
    """Refuse a batch that the model cannot take.

    Raises:
        ModelError: an input's first axis is fixed to another size.
    """
    if batch is None:
        return
    for spec in interface:
        if spec.shape and isinstance(spec.shape[0], int) and spec.shape[0] != batch:
            raise ModelError(
                f"input {spec.name!r} has a fixed batch: its shape is {_words(spec.shape)}, --batch is {batch}",
                hint=f"leave --batch out or give {spec.shape[0]}, or export the model with a symbolic batch",
            )


def _symbol(spec: IOSpec, axis: int) -> str:
    size = spec.shape[axis]
    return size if isinstance(size, str) else f"{spec.name}:{axis}"


def _symbols(interface: tuple[IOSpec, ...]) -> tuple[list[str], dict[str, int]]:
    """(symbols that are batches, other symbols -> rank of the input that has them)."""
    batches: dict[str, None] = {}
    others: dict[str, int] = {}
    for spec in interface:
        for axis, size in enumerate(spec.shape):
            if isinstance(size, int):
                continue
            if axis:
                others.setdefault(_symbol(spec, axis), len(spec.shape))
            else:
                batches[_symbol(spec, axis)] = None
    # a name that stands on other axes too ("sequence" of [sequence] and of [batch, sequence]) is no batch
    return [name for name in batches if name not in others], others


def _values(spec: IOSpec, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.generic]:
    if spec.dtype == "str":
        return np.full(shape, "a")
    if spec.dtype == "bfloat16":
        raise ModelError(
            f"input {spec.name!r} is bfloat16, which numpy cannot make", hint="export the model with float32 inputs"
        )
    dtype = np.dtype(spec.dtype)
    if dtype.kind == "f":
        return rng.random(shape, np.float32).astype(dtype)
    if dtype.kind in "iu" and dtype.itemsize == 1:
        limits = np.iinfo(dtype)
        return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    return np.ones(shape, dtype)


def data_feeds(samples: FeedSet, *, batch: int | None = None, most: int = MOST_FEEDS) -> list[Feed]:
    """Up to ``most`` feeds of ``samples``, spread evenly over them; with a batch, each of that many samples.

    Raises:
        DataError: the samples differ in shape and cannot be stacked.
        ModelError: the batch is fixed to another size.
    """
    check_batch(samples.interface, batch)
    if batch is None:
        count = min(most, len(samples))
        return [samples.feed((2 * i + 1) * len(samples) // (2 * count)) for i in range(count)]
    rows = _rows(samples)
    count = min(most, max(1, len(samples) // batch))
    return [_stack([next(rows) for _ in range(batch)], samples) for _ in range(count)]


def _rows(samples: FeedSet) -> Iterator[Feed]:
    """Feeds of one row each, from the first on, again and again."""
    while True:
        for feed in samples:
            rows = {value.shape[0] for value in feed.values() if value.ndim}
            for row in range(rows.pop() if len(rows) == 1 else 1):
                yield {n: v[row : row + 1] if v.ndim else v for n, v in feed.items()}


def _stack(rows: Sequence[Feed], samples: FeedSet) -> Feed:
    try:
        return {
            name: np.concatenate([row[name] for row in rows]) if rows[0][name].ndim else rows[0][name]
            for name in rows[0]
        }
    except ValueError as error:
        raise DataError(
            f"the samples of {samples.source.name} differ in shape and cannot make a batch of {len(rows)}",
            hint="leave --batch out, or pad the samples to one shape",
        ) from error

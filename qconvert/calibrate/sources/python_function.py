"""python:MODULE:FUNCTION, samples out of a function of the user: it is called without arguments and yields dictionaries
``{input: array}``, or arrays for a model with one input.

This runs the user's code, which is what the user asks for by naming it; nothing else ever does. The current directory
can be imported from. What the code prints goes to stderr.

One sample is in memory at a time. The function is called once to count the samples, and again whenever one is asked for
that lies behind; it must yield the same ones each time, which is checked.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from qconvert.calibrate.place import Place
from qconvert.calibrate.source import SOURCES, Array, Sample, Source, SourceFactory
from qconvert.calibrate.sources._single import the_input
from qconvert.errors import DataError
from qconvert.graph.session import IOSpec

_MOST = 1_000_000
_FORM = "python:MODULE:FUNCTION"


class FunctionSource(Source):
    """What a function yields, by number."""

    def __init__(self, text: str, function: Callable[[], object], interface: tuple[IOSpec, ...]) -> None:
        self.name = text
        self._function = function
        self._interface = interface
        self._iterator: Iterator[dict[str, Array]] | None = None
        self._next = 0
        self._latest: dict[str, Array] = {}  # the sample before self._next, which is often asked for again
        self._digests: list[str] = []
        for sample in self._all():
            self._digests.append(_digest(sample))
            if len(self._digests) > _MOST:
                raise DataError(
                    f"{text} yields more than {_MOST:,} samples: does it end?", hint="let it yield a few hundred"
                )

    def __len__(self) -> int:
        return len(self._digests)

    def __getitem__(self, index: int) -> Sample:
        at = range(len(self))[index]
        if self._iterator is None or at < self._next - 1:
            self._iterator, self._next = self._all(), 0
        while self._next <= at:
            try:
                self._latest = next(self._iterator)
            except (StopIteration, DataError) as error:
                self._iterator = None  # a generator that ended or failed goes no further
                if isinstance(error, DataError):
                    raise
                raise self._unsteady(f"it ended after {self._next}") from error
            self._next += 1
        if _digest(self._latest) != self._digests[at]:
            raise self._unsteady(f"sample {at} has changed")
        return Sample(arrays=self._latest, origin=self._origin(at), stacked=False)

    def identity(self, index: int) -> str:
        """A digest of the sample's arrays."""
        return f"python [{range(len(self))[index]}] sha256:{self._digests[index]}"

    def _all(self) -> Iterator[dict[str, Array]]:
        iterator = self._run(lambda: iter(self._function()))  # type: ignore[call-overload]
        at = 0
        ended = object()
        while (given := self._run(lambda: next(iterator, ended))) is not ended:
            yield self._arrays(given, at)
            at += 1

    def _run(self, call: Callable[[], Any]) -> Any:
        with user_code(self.name):
            return call()

    def _arrays(self, given: object, at: int) -> dict[str, Array]:
        if not isinstance(given, Mapping):
            given = {the_input(self._origin(at), self._interface, "arrays without names"): given}
        with user_code(self._origin(at)):  # __array__ is the user's too
            return {str(name): self._array(str(name), value) for name, value in given.items()}

    def _array(self, name: str, value: object) -> Array:
        """A copy, since buffers may be used again. Whole numbers in plain lists have no type: [1, 2] may be floats."""
        array = np.array(value)
        wanted = next((spec.dtype for spec in self._interface if spec.name == name), "")
        if isinstance(value, (list, tuple, int)) and array.dtype == np.int64 and wanted in ("float32", "float64"):
            return array.astype(wanted)
        return array

    def _origin(self, at: int) -> str:
        return f"{self.name}[{at}]"

    def _unsteady(self, what: str) -> DataError:
        return DataError(
            f"{self.name} yields other samples when it is called again: {what}",
            hint="make it repeatable: seed what is random, and read from where it began",
        )


@contextlib.contextmanager
def user_code(where: str) -> Iterator[None]:
    """Run code of the user: from the current directory, its output on stderr, its failures as DataErrors."""
    here, writes = str(Path.cwd()), sys.dont_write_bytecode
    sys.path.insert(0, here)
    sys.dont_write_bytecode = True  # no __pycache__ beside the user's module
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except (Exception, SystemExit) as error:
        if isinstance(error, DataError):
            raise
        frames = traceback.extract_tb(error.__traceback__)
        own = next((f for f in reversed(frames) if f.filename != __file__ and not f.filename.startswith("<")), None)
        place = f", {Path(own.filename).name} line {own.lineno}" if own is not None else ""
        reason = traceback.format_exception_only(error)[-1].strip()[:300]
        hint = "run the function by itself to see all of it"
        if isinstance(error, ModuleNotFoundError):
            hint = f"modules are looked for in the current directory, {here}, and among what is installed"
        raise DataError(f"{where} failed{place}: {reason}", hint=hint) from error
    finally:
        sys.dont_write_bytecode = writes
        with contextlib.suppress(ValueError):
            sys.path.remove(here)


def _digest(arrays: Mapping[str, Array]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype} {array.shape};".encode())
        if array.dtype.hasobject:  # texts, or what feeds refuse
            digest.update(repr([x if isinstance(x, str) else type(x).__name__ for x in array.flat]).encode())
        else:
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _open(place: Place, interface: tuple[IOSpec, ...]) -> Source:
    """What the function yields.

    Raises:
        DataError: there is no such module or function, its code fails, or it yields no arrays.
    """
    module, _, name = place.qualifier.partition(":")
    if not module or not name:
        raise DataError(
            f"{place.text} is not {_FORM}", hint="write python:calibration:samples for samples() in calibration.py"
        )
    with user_code(place.text):
        importlib.invalidate_caches()
        loaded = importlib.import_module(module)
    function = getattr(loaded, name, None)
    if not callable(function):
        found = ", ".join(n for n in vars(loaded) if not n.startswith("_") and callable(getattr(loaded, n))) or "none"
        raise DataError(f"{place.text}: module {module!r} has no function {name!r}", hint=f"it has: {found}")
    return FunctionSource(place.text, function, interface)


SOURCES.add(
    "python",
    SourceFactory(
        description=f"{_FORM}, a function of yours that yields {{input: array}} (runs your code)",
        open=_open,
        scheme="python",
    ),
)

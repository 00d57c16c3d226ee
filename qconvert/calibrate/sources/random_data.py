"""random:N, seeded samples out of the model's signature, for checks of shape and speed.

Floats are standard normal; int8 and uint8 take their whole range; wider integers are 0 or 1, which is within every
table and mask. A symbolic first axis is 1, any other 32.
"""

from __future__ import annotations

import numpy as np

from qconvert.calibrate.place import Place
from qconvert.calibrate.source import SOURCES, Array, Sample, Source, SourceFactory
from qconvert.errors import DataError
from qconvert.graph.session import IOSpec

_FREE_SIZE = 32  # five halvings of an image or a sequence still leave 1
_LARGEST = 1 << 31  # bytes of one array; a signature can ask for anything
WARNING = "random data: ranges and accuracy mean nothing; for shape and speed checks only"


class RandomData(Source):
    """``count`` samples; each is made from the seed and its number alone."""

    def __init__(self, text: str, count: int, seed: int, interface: tuple[IOSpec, ...]) -> None:
        self.name = text
        self.warnings = (WARNING,)
        self._count, self._seed = count, seed
        self._interface = interface

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Sample:
        at = range(self._count)[index]
        made = {
            spec.name: _made(spec, np.random.default_rng([self._seed, at, i])) for i, spec in enumerate(self._interface)
        }
        return Sample(arrays=made, origin=f"{self.name}[{at}]", stacked=True)

    def identity(self, index: int) -> str:
        """The seed and the sample's number."""
        return f"random seed={self._seed} [{range(self._count)[index]}]"


def _made(spec: IOSpec, random: np.random.Generator) -> Array:
    shape = _shape(spec)
    if spec.dtype == "bool" or spec.dtype.startswith(("int", "uint")):
        dtype = np.dtype(spec.dtype)
        low, high = (np.iinfo(dtype).min, np.iinfo(dtype).max) if spec.dtype in ("int8", "uint8") else (0, 1)
        return random.integers(low, high, shape, dtype=np.int64, endpoint=True).astype(dtype)
    if spec.dtype in ("float16", "float32", "float64"):
        return random.standard_normal(shape).astype(spec.dtype)
    raise DataError(
        f"input {spec.name!r} is {spec.dtype}, for which no random values are made", hint="give samples of your own"
    )


def _shape(spec: IOSpec) -> tuple[int, ...]:
    return tuple(s if isinstance(s, int) else 1 if axis == 0 else _FREE_SIZE for axis, s in enumerate(spec.shape))


def _open(place: Place, interface: tuple[IOSpec, ...]) -> Source:
    """N samples.

    Raises:
        DataError: N is no number above 0, or an input is too large or of a type without random values.
    """
    if not place.qualifier.isdecimal() or not 0 < len(place.qualifier) < 8 or int(place.qualifier) == 0:
        raise DataError(
            f"{place.text}: {place.qualifier!r} is no number of samples", hint="write random:20 for 20 samples"
        )
    for spec in interface:
        if np.prod(_shape(spec), dtype=float) * 8 > _LARGEST:
            raise DataError(f"input {spec.name!r} is too large for random data: {_shape(spec)}", hint="give samples")
    return RandomData(place.text, int(place.qualifier), place.seed, interface)


SOURCES.add(
    "random",
    SourceFactory(
        description="random:N, N random samples, for checks of shape and speed only", open=_open, scheme="random"
    ),
)

"""One source for each input of a model, ``input_ids=ids.npy`` and ``mask=masks.npy``: sample i is sample i of each."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path

from qconvert.calibrate.place import split_qualifier
from qconvert.calibrate.source import Array, Sample, Source, match_inputs
from qconvert.errors import DataError
from qconvert.graph.session import IOSpec


class Joined(Source):
    """Sources that feed one input each.

    Args:
        parts: input -> its source.

    Raises:
        DataError: they differ in the number of samples.
    """

    def __init__(self, parts: Mapping[IOSpec, Source]) -> None:
        self._parts = parts
        self.name = ", ".join(f"{spec.name}={source.name}" for spec, source in parts.items())
        counts = {spec.name: len(source) for spec, source in parts.items()}
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{name!r} {count}" for name, count in counts.items())
            raise DataError(
                f"the inputs' data differ in the number of samples: {listed}",
                hint="sample i of each belongs together: give the same samples in the same order",
            )
        self._count = min(counts.values())
        self.warnings = tuple(w for source in parts.values() for w in source.warnings)
        labelled = [source for source in parts.values() if source.labels is not None]
        if len(labelled) == 1:  # two sets of labels may be of different things
            self.labels, self.label_names = labelled[0].labels, labelled[0].label_names

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Sample:
        at = range(self._count)[index]
        samples = {spec: source[at] for spec, source in self._parts.items()}
        arrays: dict[str, Array] = {}
        for spec, sample in samples.items():
            arrays[spec.name] = sample.arrays[match_inputs(sample.arrays, (spec,), sample.origin)[spec.name]]
        return Sample(
            arrays=arrays,
            origin=", ".join(sample.origin for sample in samples.values()),
            stacked=any(sample.stacked for sample in samples.values()),
        )

    def identity(self, index: int) -> str:
        """The identities of its parts, each with its input."""
        return "; ".join(f"{spec.name}={source.identity(index)}" for spec, source in self._parts.items())


def assigned(texts: Sequence[str], interface: tuple[IOSpec, ...]) -> dict[IOSpec, str]:
    """Which of the texts "name=source" feeds which input; {} for a single source of all inputs.

    A path with "=" in its name that exists as written is a path.

    Raises:
        DataError: a text names no input, an input is named twice or not at all, or there are several sources without
            names.
    """
    if not texts:
        raise DataError("no data were given", hint="give a path, or random:20 for checks of shape and speed")
    found: dict[IOSpec, str] = {}
    for text in texts:
        spec = _named(text, interface)
        if spec is None and len(texts) == 1:
            return {}
        if spec is None:
            raise _unnamed(text, interface)
        if spec in found:
            raise DataError(f"two sources feed input {spec.name!r}: {found[spec]} and {text}", hint="give one for each")
        found[spec] = text[len(spec.name) + 1 :]
    missing = [spec.name for spec in interface if spec not in found]
    if missing:
        raise DataError(
            f"no data were given for {'input' if len(missing) == 1 else 'inputs'} {', '.join(map(repr, missing))}",
            hint=f"add {' '.join(f'{name}=PATH' for name in missing)}",
        )
    return {spec: found[spec] for spec in interface}


def _named(text: str, interface: tuple[IOSpec, ...]) -> IOSpec | None:
    if "=" not in text or split_qualifier(text)[0].exists():
        return None
    fitting = [spec for spec in interface if text.startswith(f"{spec.name}=")]
    if fitting:
        return max(fitting, key=lambda spec: len(spec.name))
    name, _, rest = text.partition("=")
    if rest and (split_qualifier(rest)[0].exists() or Path(rest).exists()):  # a name that no input has
        raise _unnamed(text, interface, name)
    return None


def _unnamed(text: str, interface: tuple[IOSpec, ...], name: str = "") -> DataError:
    names = [spec.name for spec in interface]
    near = difflib.get_close_matches(name, names, n=1)
    lead = f"is {near[0]!r} meant? " if near else ""
    return DataError(
        f"{text}: the model has no input {name!r}" if name else f"{text} does not say which input it feeds",
        hint=f"{lead}write input=path, with the inputs {', '.join(map(repr, names))}",
    )

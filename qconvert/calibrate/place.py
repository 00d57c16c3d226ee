"""What the user wrote for a source, taken apart: a path, what follows it after a colon, and how to prepare the data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from qconvert.calibrate.preprocess import Preprocess


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A source as written, with the choices that decide its samples.

    Attributes:
        text: all of it, for messages.
        path: the part that is a path.
        qualifier: what follows: "float32:3x8x8" of "data.bin:float32:3x8x8", "20" of "random:20".
        preprocess: what is done to images; None where the user left that open.
        seed: of what is random.
    """

    text: str
    path: Path
    qualifier: str = ""
    preprocess: Preprocess | None = None
    seed: int = 0

    def qualified(self, path: Path, qualifier: str) -> Place:
        """The same with this path and qualifier."""
        return replace(self, path=path, qualifier=qualifier)


def split_qualifier(text: str) -> tuple[Path, str]:
    """(path, qualifier): the longest part before a colon that exists; all of ``text`` if it exists, or nothing does."""
    if Path(text).exists():
        return Path(text), ""
    at = len(text)
    while (at := text.rfind(":", 0, at)) > 0:
        if Path(text[:at]).exists():
            return Path(text[:at]), text[at + 1 :]
    return Path(text), ""

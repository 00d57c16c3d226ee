"""Progress protocol: stages report steps, whoever runs them decides what a person sees."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")


class Progress(Protocol):
    """Receives the progress of long stages and notes for the log."""

    def track(self, items: Iterable[T], *, label: str, total: int | None = None) -> Iterator[T]:
        """Yield ``items`` while showing how far along they are."""
        ...

    def note(self, text: str) -> None:
        """Something worth a line in verbose mode."""
        ...


class Silent:
    """The progress of a run that nobody watches."""

    def track(self, items: Iterable[T], *, label: str, total: int | None = None) -> Iterator[T]:
        """Yield ``items`` unchanged."""
        del label, total
        yield from items

    def note(self, text: str) -> None:
        """Drop the note."""
        del text

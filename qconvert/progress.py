"""Progress protocol: stages report steps, whoever runs them decides what a person sees."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")


class Progress(Protocol):
    """Receives the progress of long stages and notes for the log."""

    def track(
        self,
        items: Iterable[T],
        *,
        label: str,
        total: int | None = None,
        size: Callable[[T], int] | None = None,
    ) -> Iterator[T]:
        """Yield ``items`` while showing how far along they are.

        Args:
            items: what is worked on, one after the other.
            label: what is done with them.
            total: how many there are; with ``size``, their bytes.
            size: bytes of one, where these tell better than numbers how much is left.
        """
        ...

    def note(self, text: str) -> None:
        """Something worth a line in verbose mode."""
        ...


class Silent:
    """The progress of a run that nobody watches."""

    def track(
        self,
        items: Iterable[T],
        *,
        label: str,
        total: int | None = None,
        size: Callable[[T], int] | None = None,
    ) -> Iterator[T]:
        """Yield ``items`` unchanged."""
        del label, total, size
        yield from items

    def note(self, text: str) -> None:
        """Drop the note."""
        del text

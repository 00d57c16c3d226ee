"""Registry[T]: things that are found by name, each defined in a file of its own.

A package that holds plug-ins (``ops``, ``targets``, ``calibrate.methods``, ...) calls :meth:`Registry.discover` once;
adding a file is then all it takes to add an entry.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

from qconvert.errors import InternalError, RecipeError

T = TypeVar("T")


class Registry(Generic[T]):
    """Named entries of one kind.

    Args:
        kind: what the entries are, in the singular, for messages ("calibration method").
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}
        self._package: str | None = None

    def add(self, name: str, entry: T) -> T:
        """Register ``entry`` under ``name``; a second entry of the same name is a defect."""
        if name in self._entries:
            raise InternalError(f"two entries of kind {self.kind} are called {name!r}")
        self._entries[name] = entry
        return entry

    def discover(self, package: str) -> None:
        """Import every module of ``package`` on first look-up, so that each can register its entries."""
        self._package = package

    def get(self, name: str) -> T:
        """The entry called ``name``.

        Raises:
            RecipeError: there is none; the hint lists the valid names, the nearest first.
        """
        self._load()
        if name not in self._entries:
            raise RecipeError(f"unknown {self.kind} {name!r}", hint=suggest(name, self.names()))
        return self._entries[name]

    def find(self, name: str) -> T | None:
        """The entry called ``name``, or None."""
        self._load()
        return self._entries.get(name)

    def names(self) -> tuple[str, ...]:
        """All names, sorted."""
        self._load()
        return tuple(sorted(self._entries))

    def __iter__(self) -> Iterator[T]:
        return iter(self._entries[n] for n in self.names())

    def __contains__(self, name: object) -> bool:
        self._load()
        return name in self._entries

    def __len__(self) -> int:
        self._load()
        return len(self._entries)

    def _load(self) -> None:
        if self._package is None:
            return
        package, self._package = self._package, None
        for module in pkgutil.iter_modules(importlib.import_module(package).__path__, package + "."):
            importlib.import_module(module.name)


def suggest(name: str, valid: Sequence[str]) -> str:
    """A hint that names the nearest valid name, then all of them."""
    near = difflib.get_close_matches(name, valid, n=1)
    lead = f"did you mean {near[0]!r}? " if near else ""
    return f"{lead}valid names: {', '.join(valid)}"

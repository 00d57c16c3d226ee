"""Modules that are imported when they are first used, though somebody else imports them at the top of a file.

onnx-ir imports sympy to do arithmetic on symbolic dimensions. sympy takes a third of the time in which qconvert is
imported, and most models never need it. What is sure to be needed, but late, can be imported beside other work.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType


@contextmanager
def deferred(*names: str) -> Iterator[None]:
    """Imports of the modules ``names`` in this block load them when an attribute is asked for.

    A module that is loaded already stays as it is, and one that is not there is missing as ever.
    """
    finder = _Deferring(frozenset(names))
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


def ahead(*names: str) -> None:
    """Begin to import the modules ``names`` in a thread of its own; an import of one of them waits for it.

    That saves the time in which others do without the interpreter, as ONNX Runtime does.
    """

    def work() -> None:
        for name in names:
            with suppress(ImportError):  # whoever needs it will be told
                importlib.import_module(name)

    threading.Thread(target=work, name="imports", daemon=True).start()


class _Deferring:
    """A finder that finds ``names`` only, where the interpreter would, and defers them."""

    def __init__(self, names: frozenset[str]) -> None:
        self.names = names

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """None for what is not to be deferred: the next finder is asked."""
        if fullname not in self.names:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = importlib.util.LazyLoader(spec.loader)
        return spec

"""How a notebook shows a result: results know that they can be shown, and the layer of reports, above, knows how."""

from __future__ import annotations

from collections.abc import Callable

_VIEWS: list[Callable[[Shown], str]] = []


class Shown:
    """A result that a notebook shows as HTML, once something has called :func:`show_with`; before, as plain text."""

    __slots__ = ()

    def _repr_html_(self) -> str | None:
        """The HTML; None where nobody knows how, which notebooks take for "as text"."""
        return _VIEWS[-1](self) if _VIEWS else None


def show_with(view: Callable[[Shown], str]) -> None:
    """Let ``view`` make the HTML of every result from now on."""
    _VIEWS.append(view)

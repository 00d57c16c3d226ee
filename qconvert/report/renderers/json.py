"""The report as a JSON document, for scripts and CI; ``report/schema/`` describes it."""

from __future__ import annotations

import json
from dataclasses import dataclass

from qconvert.report.document import to_document
from qconvert.report.renderer import register
from qconvert.report.result import Result


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonRenderer:
    """One JSON document, indented, keys in the order of the dataclasses; plain ASCII, for every terminal and locale."""

    name: str = "json"
    suffixes: tuple[str, ...] = (".json",)

    def render(self, result: Result) -> str:
        """The document with a newline at its end."""
        return json.dumps(to_document(result), indent=2, allow_nan=False) + "\n"


JSON = JsonRenderer()
register(JSON)

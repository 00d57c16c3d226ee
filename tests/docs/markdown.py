"""What a test needs of a Markdown page: its fenced blocks, the commands in them, its links."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field

_FENCE = re.compile(
    r"(?:^ *<!-- (?P<mark>not run|exit): (?P<value>[^\n]*?) -->\n)?"
    r"^(?P<indent> *)```(?P<kind>bash|console)\n(?P<body>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command line of a page.

    Attributes:
        line: where it stands.
        text: the command, continuation lines included; a whole ``bash`` block counts as one.
        shown: the output that the page shows, a line each; None where it shows none.
        exit_code: what it must exit with.
        not_run: why it is not run, "" when it is.
    """

    line: int
    text: str
    shown: tuple[str, ...] | None = None
    exit_code: int = 0
    not_run: str = ""


@dataclass(kw_only=True)
class _Session:
    text: list[str] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)
    line: int = 0


def commands(page: str) -> list[Command]:
    """Every command of the bash and console blocks of ``page``, in order.

    ``<!-- not run: why -->`` on the line before a block leaves it out, ``<!-- exit: 2 -->`` gives its exit code.
    """
    found = []
    for match in _FENCE.finditer(page):
        line = page.count("\n", 0, match.start("body")) + 1
        mark, value, body = match["mark"], match["value"], textwrap.dedent(match["body"])
        code = int(value) if mark == "exit" else 0
        why = value if mark == "not run" else ""
        if match["kind"] == "bash":
            found.append(Command(line=line, text=body, exit_code=code, not_run=why))
            continue
        for part in _sessions(body, line):
            text, shown = "\n".join(part.text), tuple(part.shown)
            found.append(Command(line=part.line, text=text, shown=shown, exit_code=code, not_run=why))
    return found


def _sessions(body: str, first: int) -> Iterator[_Session]:
    """A console block cut at its prompts: "$ command", lines that continue it after a backslash, then its output."""
    now: _Session | None = None
    for number, row in enumerate(body.splitlines(), start=first):
        if row.startswith("$ "):
            if now is not None:
                yield now
            now = _Session(text=[row[2:]], line=number)
        elif now is None:
            raise ValueError(f"line {number}: a console block begins with '$ '")
        elif not now.shown and now.text[-1].endswith("\\"):
            now.text.append(row)
        else:
            now.shown.append(row)
    if now is not None:
        yield now


def links(page: str) -> list[str]:
    """Targets of the relative links of ``page``, without their fragments."""
    targets = re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", page, flags=re.DOTALL))
    return [t.partition("#")[0] for t in targets if "://" not in t and not t.startswith("#")]

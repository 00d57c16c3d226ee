"""Running the commands of a page as they stand, in this process where that can be."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from docs.markdown import Command, commands

from qconvert.cli import run

REPO = Path(__file__).resolve().parents[2]
TIMEOUT_S = 300

# What differs from run to run: latencies, times, versions of libraries, and anything that depends on them.
_VARYING = re.compile(r"^\s*(latency, default threads|p10\.\.p90 of|time|versions)\b")
_SPEED = re.compile(r"same speed|[\d.]+x\s+(faster|slower)")
_DIGEST = re.compile(r"sha256 [0-9a-f]+")

_PLAIN = re.compile(r"(qconvert (?:\"[^\"]*\"|'[^']*'|[^|>;&$`\"'()*\n])*?)(?: > (\S+))?")
_HERE_DOCUMENT = re.compile(r"<<'(\w+)'$")
# lines that need nothing of the lines before them but files
_ALONE = re.compile(r"(qconvert|mkdir|cmp|cp|head|python|cat|printf) [^$`]*")


def words(text: str) -> str:
    """``text`` with what varies replaced and white space collapsed, since tables wrap where they must."""
    return " ".join(_DIGEST.sub("<digest>", _SPEED.sub("<speed>", text)).split())


def wrong_on(page: str, place: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    """Run the commands of docs page ``page`` in order, in ``place``, which is the working directory.

    Returns: how many commands ran, and a text for each that exited or printed otherwise than the page says.
    """
    count, wrong = 0, []
    for command in commands((REPO / page).read_text(encoding="utf-8")):
        if not command.not_run:
            count += 1
            wrong += [f"{page}:{command.line}: {text}" for text in _wrong(command, place, capsys)]
    return count, wrong


def _wrong(command: Command, place: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[str]:
    output, code = "", 0
    for part in parts_of(command.text):
        code, printed = _execute(part, place, capsys)
        output += printed
        if code != 0:
            break
    if code != command.exit_code:
        yield f"exits with {code} and not {command.exit_code}\n{command.text}\n{output}"
    printed = words(output)
    for line in command.shown or ():
        varies = _VARYING.match(line)
        for part in [varies[1]] if varies else line.split("..."):
            if part.strip("-| ") and words(part) not in printed:
                yield f"shows {line!r}, but the output is\n{output}"


def parts_of(text: str) -> list[str]:
    """The lines of ``text``, continued ones joined; all of it as one where a line needs more than files of others."""
    parts: list[str] = []
    end = ""
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        if end:
            parts[-1] += f"\n{line}"
            end = "" if line == end else end
        elif line.strip() and not line.startswith("#"):
            parts.append(line)
            here = _HERE_DOCUMENT.search(line)
            end = here[1] if here else ""
    return parts if all(_ALONE.fullmatch(part.partition("\n")[0]) for part in parts) else [text]


def _execute(part: str, place: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and output, both streams."""
    plain = _PLAIN.fullmatch(part)
    if plain is not None:
        call, target = plain.groups()
        code = run(shlex.split(call, comments=True)[1:])
        printed = capsys.readouterr()
        if target is not None:
            (place / target).write_text(printed.out, encoding="utf-8")
        return code, ("" if target is not None else printed.out) + printed.err
    inherited = {k: v for k, v in os.environ.items() if k not in ("FORCE_COLOR", "CLICOLOR_FORCE")}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    done = subprocess.run(
        ["bash", "-c", f"set -euo pipefail\n{part}"],
        cwd=place,
        env={**inherited, "PATH": path, "PYTHONPATH": str(REPO), "COLUMNS": "100"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    return done.returncode, done.stdout

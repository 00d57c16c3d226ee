"""The pages of tasks: their commands run as they stand, in one place, in this process where that can be."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from docs.markdown import commands
from docs.test_readme import words

from qconvert.cli import run

REPO = Path(__file__).resolve().parents[2]
# in this order: later pages go on with what the first one made
PAGES = (
    *(f"tasks/{name}.md" for name in "first-model accuracy speed transformers microcontrollers browsers".split()),
    "recipes.md",
    "tracking.md",
)
_PLAIN = re.compile(r"(qconvert (?:\"[^\"]*\"|[^|>;&$`\"])*?)(?: > (\S+))?")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that looks like the repository."""
    folder = tmp_path_factory.mktemp("tasks")
    for name in ("sample_models", "calibration_data"):
        (folder / name).symlink_to(REPO / name)
    return folder


def lines_of(text: str) -> list[str]:
    """The command lines of ``text``, or the whole of it where it is more than plain calls of qconvert."""
    joined = [line for line in re.sub(r"\\\n\s*", "", text).splitlines() if line.strip()]
    return joined if all(_PLAIN.fullmatch(line) or line == "mkdir -p build" for line in joined) else [text]


def execute(line: str, place: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and output, both streams."""
    if line == "mkdir -p build":
        (place / "build").mkdir(exist_ok=True)
        return 0, ""
    plain = _PLAIN.fullmatch(line)
    if plain is not None:
        call, target = plain.groups()
        code = run(shlex.split(call)[1:])
        printed = capsys.readouterr()
        if target is not None:
            (place / target).write_text(printed.out, encoding="utf-8")
        return code, printed.out + printed.err
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", line],
        cwd=place,
        env={"PATH": path, "PYTHONPATH": str(REPO), "HOME": str(place), "COLUMNS": "100"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="some commands are for a POSIX shell")
def test_the_commands_run(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("COLUMNS", "100")
    count = 0
    for page in PAGES:
        for command in commands((REPO / "docs" / page).read_text(encoding="utf-8")):
            if command.not_run:
                continue
            output, code = "", 0
            for line in lines_of(command.text):
                code, printed = execute(line, place, capsys)
                output += printed
                count += 1
                assert code in (0, command.exit_code), f"{page}:{command.line}: {line}\n{printed}"
            assert code == command.exit_code, f"{page}:{command.line}\n{output}"
            for shown in command.shown or ():
                wanted = [words(part) for part in shown.split("...") if part.strip("-| ")]
                assert [w for w in wanted if w not in words(output)] == [], f"{page}:{command.line}\n{output}"
    assert count > 30


def test_every_page_is_in_the_index() -> None:
    index = (REPO / "docs" / "README.md").read_text(encoding="utf-8")
    pages = [p.relative_to(REPO / "docs").as_posix() for p in (REPO / "docs").rglob("*.md")]
    tops = [p for p in pages if not p.startswith("decisions/") and p != "README.md"]
    assert [page for page in tops if f"({page})" not in index] == []

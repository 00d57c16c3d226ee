"""The pages of tasks: their commands run as they stand, in one place, in this process where that can be."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from docs.markdown import commands
from docs.running import REPO, wrong_on
from docs.test_readme import PAGES as PAGES_OF_README

# in this order: later pages go on with what the first one made
PAGES = (
    *(f"docs/tasks/{name}.md" for name in "first-model accuracy speed transformers microcontrollers browsers".split()),
    "docs/recipes.md",
    "docs/tracking.md",
)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="some commands are for a POSIX shell")
def test_the_commands_run(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    count = 0
    for page in PAGES:
        ran, wrong = wrong_on(page, place, capsys)
        assert not wrong, "\n".join(wrong)
        count += ran
    assert count > 25


def test_the_commands_of_every_page_run() -> None:
    """A page with commands is in a list that is run, here or in test_readme."""
    found = [*REPO.glob("*.md"), *(REPO / "docs").rglob("*.md")]
    runnable = {
        page.relative_to(REPO).as_posix()
        for page in found
        if any(not command.not_run for command in commands(page.read_text(encoding="utf-8")))
    }
    assert runnable == {*PAGES, *PAGES_OF_README}


def test_every_page_is_in_the_index() -> None:
    index = (REPO / "docs" / "README.md").read_text(encoding="utf-8")
    pages = [p.relative_to(REPO / "docs").as_posix() for p in (REPO / "docs").rglob("*.md")]
    tops = [p for p in pages if not p.startswith("decisions/") and p != "README.md"]
    assert [page for page in tops if f"({page})" not in index] == []

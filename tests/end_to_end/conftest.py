"""Make ``end_to_end`` importable: test folders are no packages."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from end_to_end.command import Command, command


@pytest.fixture
def qconvert(capsys: pytest.CaptureFixture[str]) -> Command:
    """``qconvert`` as a function of its arguments, in this process."""
    return command(capsys)

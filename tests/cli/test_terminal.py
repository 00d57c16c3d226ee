"""How wide tables are where there is no terminal."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


def printed(**environment: str) -> list[str]:
    """The lines of `qconvert targets tensorrt` in a pipeline, which has no terminal."""
    inherited = {k: v for k, v in os.environ.items() if k != "COLUMNS"}
    command = [sys.executable, "-m", "qconvert", "targets", "tensorrt"]
    done = subprocess.run(
        command, env=inherited | environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize(("environment", "width"), [({}, 120), ({"COLUMNS": "70"}, 70)], ids=["log", "COLUMNS"])
def test_tables_in_a_log_are_as_wide_as_that(environment: dict[str, str], width: int) -> None:
    widest = max(len(line.rstrip()) for line in printed(**environment))
    assert width - 15 < widest <= width

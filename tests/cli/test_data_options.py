"""The options of commands that read samples."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from qconvert.cli.data_options import data_options, source_option


@click.command()
@source_option("--calib", "calib", "Calibration data", required=True)
@data_options
def command(**given: object) -> None:
    """Say what was given."""
    click.echo(repr(given))


def test_defaults() -> None:
    done = CliRunner().invoke(command, ["--calib", "a"])
    assert done.exit_code == 0
    assert done.output == "{'calib': ('a',), 'samples': None, 'seed': 0, 'preprocess': None, 'skip_bad': 0}\n"


def test_everything() -> None:
    line = "--calib a=x.npy --calib b=y:rate=8000 --samples 9 --seed 3 --preprocess imagenet --skip-bad 2"
    done = CliRunner().invoke(command, line.split())
    wanted = {"calib": ("a=x.npy", "b=y:rate=8000"), "samples": 9, "seed": 3, "preprocess": "imagenet", "skip_bad": 2}
    assert done.output == f"{wanted!r}\n"


@pytest.mark.parametrize("line", ["", "--calib a --samples 0", "--calib a --skip-bad -1", "--calib a --samples x"])
def test_what_is_refused(line: str) -> None:
    assert CliRunner().invoke(command, line.split()).exit_code == 2

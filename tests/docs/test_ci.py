"""docs/ci.md: both pipelines run as they stand, and its table holds the quantities that there are."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from qconvert.evaluate.metric import METRICS
from qconvert.report.quantities import quantities
from qconvert.report.result import KINDS

REPO = Path(__file__).resolve().parents[2]
PAGE = (REPO / "docs" / "ci.md").read_text(encoding="utf-8")
TIMEOUT_S = 300

needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="the pipelines' commands are for a POSIX shell")


def pipelines() -> list[dict[Any, Any]]:
    """The YAML blocks of the page: GitHub's, then GitLab's."""
    return [yaml.safe_load(text) for text in re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)]


def scripts(pipeline: dict[Any, Any]) -> Iterator[str]:
    """What a runner would execute, step by step; the environment is there already."""
    for job in pipeline.get("jobs", pipeline).values():
        steps = [step["run"] for step in job["steps"] if "run" in step] if "steps" in job else job["script"]
        yield from (step for step in steps if not step.startswith("pip install"))


def test_what_the_pipelines_install_is_this_repository() -> None:
    """The one step that a test does not take, since it needs a network: its path holds a project all the same."""
    installed = re.findall(r"^ +- (?:run: )?pip install (\S+)", PAGE, re.MULTILINE)
    assert len(installed) == len(pipelines())
    assert [path for path in installed if not (REPO / path / "pyproject.toml").exists()] == []


def run(pipeline: dict[Any, Any], place: Path) -> str:
    """Execute a pipeline in ``place``, which looks like the repository; returns what it prints."""
    for folder in ("sample_models", "calibration_data"):
        shutil.copytree(REPO / folder, place / folder)
    environment = {
        **{k: v for k, v in os.environ.items() if k != "FORCE_COLOR"},
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "GITHUB_STEP_SUMMARY": str(place / "summary.md"),
    }
    printed = ""
    for script in scripts(pipeline):
        done = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", script],
            cwd=place,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        printed += done.stdout
    return printed


@pytest.mark.slow
@needs_bash
def test_github(tmp_path: Path) -> None:
    github, _ = pipelines()
    printed = run(github, tmp_path)
    assert "gate         fail if top1_drop > 0.5%" in printed
    summary = (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert summary.startswith("## qconvert quantize: ")
    assert summary.count("| kept |") == 3
    assert ET.parse(tmp_path / "out" / "quantize.xml").getroot().get("tests") == "3"
    assert (tmp_path / "out" / "digits_cnn.int8.onnx").exists()


@pytest.mark.slow
@needs_bash
def test_gitlab(tmp_path: Path) -> None:
    _, gitlab = pipelines()
    run(gitlab, tmp_path)
    (job,) = gitlab.values()
    (suites,) = [*tmp_path.glob(job["artifacts"]["reports"]["junit"])]
    root = ET.parse(suites).getroot()
    assert (root.get("tests"), root.get("failures")) == ("2", "0")
    assert "tensors of the first model" in (tmp_path / "gates" / "compare.md").read_text(encoding="utf-8")


def test_the_table_holds_every_quantity() -> None:
    table = PAGE.partition("<!-- quantities:begin -->")[2].partition("<!-- quantities:end -->")[0]
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table.strip().splitlines()]
    shown = {row[0].strip("`"): tuple(row[1:]) for row in rows if "METRIC" not in row[0]}
    known: dict[str, tuple[str, str, list[str]]] = {}
    for command in KINDS:
        for quantity in quantities(command):
            if not quantity.metric:
                known.setdefault(quantity.name, (quantity.unit, quantity.what, []))[2].append(command)
    assert shown == {name: (unit, what, ", ".join(commands)) for name, (unit, what, commands) in known.items()}
    metrics = PAGE.partition("The metrics are those of `--metric`: ")[2].partition(". With")[0]
    assert sorted(re.findall(r"`(\w+)`", metrics)) == sorted(METRICS.names())

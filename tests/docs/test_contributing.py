"""CONTRIBUTING.md: its lists are those of the code, and its walk-through leads where it says."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from architecture.test_layers import HOMES, LAYERS

from qconvert.registry import Registry

REPO = Path(__file__).resolve().parents[2]
PAGE = (REPO / "CONTRIBUTING.md").read_text(encoding="utf-8")
STEP = re.compile(r"^<!-- (file|line): ([^\n]+?) -->\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def between(name: str) -> str:
    return PAGE.partition(f"<!-- {name}:begin -->")[2].partition(f"<!-- {name}:end -->")[0]


def test_the_layers_are_listed() -> None:
    assert tuple(between("layers").replace("```", "").split()) == LAYERS


def test_the_homes_of_libraries_are_listed() -> None:
    rows = re.findall(
        r"^\| ([\w, -]+) \| (`.+`) \|$", PAGE.partition("| library |")[2].partition("\n\n")[0], re.MULTILINE
    )
    told = {lib.replace("-", "_"): re.findall(r"`([^`]+)`", at) for libs, at in rows for lib in libs.split(", ")}
    wanted = {lib: [h.removeprefix("qconvert/") for h in homes] for lib, homes in HOMES.items() if lib != "rich_click"}
    assert told == wanted


def test_every_seam_is_where_the_table_says() -> None:
    """The folder exists, and its registry looks for entries there."""
    rows = re.findall(
        r"^\| [^|]+ \| `([\w/]+)/<\w+>\.\w+` \| [^|]+ \| (?:`([\w.]+)`)? *\|$", between("seams"), re.MULTILINE
    )
    assert len(rows) == len(between("seams").strip().splitlines()) - 2
    for folder, registry in rows:
        assert (REPO / "qconvert" / folder).is_dir()
        if registry:
            module, _, name = registry.rpartition(".")
            found = getattr(importlib.import_module(module), name)
            assert isinstance(found, Registry) and len(found) > 0
            package = f"qconvert.{folder.replace('/', '.')}"
            assert f'discover("{package}")' in "".join(
                path.read_text(encoding="utf-8") for path in (REPO / "qconvert").rglob("*.py")
            )


@pytest.mark.slow
def test_the_walk_through_adds_an_operator(tmp_path: Path) -> None:
    """On a copy; every step in order, then the commands."""
    ignored = shutil.ignore_patterns("__pycache__", ".*", "build", "golden")
    for folder in ("qconvert", "tests", "docs"):
        shutil.copytree(REPO / folder, tmp_path / folder, ignore=ignored)
    shutil.copy(REPO / "pyproject.toml", tmp_path)
    steps = STEP.findall(PAGE)
    assert [kind for kind, _, _ in steps] == ["file", "file", "line", "line"]
    for kind, where, text in steps:
        name, _, anchor = where.partition(", before ")
        path = tmp_path / name
        if kind == "file":
            assert not path.exists()
            path.write_text(text, encoding="utf-8")
        else:
            before = re.compile(rf"^ *{anchor}:", re.MULTILINE)
            old = path.read_text(encoding="utf-8")
            assert len(before.findall(old)) == 1
            path.write_text(before.sub(lambda m, text=text: text + m[0], old), encoding="utf-8")
    commands = PAGE.partition("<!-- commands -->\n```sh\n")[2].partition("```")[0].splitlines()
    assert len(commands) == 2
    for command in commands:
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=tmp_path,
            env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    # two cases in every scheme
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= 10
    operators = (tmp_path / "docs" / "operators.md").read_text(encoding="utf-8")
    assert "| `Elu` | arithmetic | no: ONNX Runtime's CPU provider has no integer kernel for it |" in operators

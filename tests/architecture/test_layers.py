"""The house rules that a machine can check, read from the source with ``ast``; nothing of the package is imported.

A rule takes one parsed file and yields (line, what is wrong). Every rule is also run on a seeded violation, so that one
which has gone blind fails here and not in review.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]

# lowest first: a module imports from its own layer and from those before it
LAYERS = tuple(
    """errors registry progress machine forms numerics graph ops targets recipe rounding stats plan calibrate recover
    emit evaluate diagnose report tracking run conversion repair measure trials workbench placing recovery branches
    inputs calibration gathering delivery schemes pipeline sensitivity tuning quantizing converting inspection outcome
    api cli""".split()
)

# library -> the only files (or folders, with a slash) that may import it
HOMES = {
    "archspec": ("qconvert/machine.py",),
    "onnx_ir": ("qconvert/graph/", "qconvert/emit/"),
    "onnxruntime": ("qconvert/graph/session.py",),
    "onnxscript": ("qconvert/graph/prepare/",),
    "click": ("qconvert/cli/",),
    "jinja2": ("qconvert/report/html/",),
    "mlflow": ("qconvert/tracking/trackers/mlflow.py",),
    "markupsafe": ("qconvert/report/html/",),
    "rich_click": ("qconvert/cli/",),
    "rich": ("qconvert/cli/", "qconvert/report/renderers/console.py"),
}

HEAVY = frozenset({"onnx", "onnx_ir", "onnxruntime", "onnxscript", "numpy"})
NAMELESS = frozenset({"utils", "util", "common", "helpers", "helper"})
MAX_LINES = 400

Found = Iterator[tuple[int, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One file: where it is, below the folder that holds the package, and what it says."""

    path: str  # "qconvert/ops/rule.py"
    text: str
    tree: ast.Module

    @property
    def parts(self) -> tuple[str, ...]:
        """The dotted name's parts: ("qconvert", "ops", "rule"), or ("qconvert", "ops") for its ``__init__``."""
        parts = tuple(self.path.removesuffix(".py").split("/"))
        return parts[:-1] if parts[-1] == "__init__" else parts

    @property
    def package(self) -> tuple[str, ...]:
        """The package that a relative import starts from."""
        return self.parts if self.path.endswith("__init__.py") else self.parts[:-1]


@cache
def sources(root: Path) -> list[Source]:
    """Every Python file of ``root/qconvert``, in the order of their paths; read once."""
    files = sorted((root / "qconvert").rglob("*.py"))
    texts = [(f.relative_to(root).as_posix(), f.read_text(encoding="utf-8")) for f in files]
    return [Source(path=path, text=text, tree=ast.parse(text, filename=path)) for path, text in texts]


def imports(source: Source) -> Iterator[tuple[int, str]]:
    """(line, absolute dotted name) of every import, wherever it stands: in a function, or under TYPE_CHECKING."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = source.package[: len(source.package) - node.level + 1] if node.level else ()
            base = ".".join([*package, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = getattr(node.func, "attr", getattr(node.func, "id", None))
            if name in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                yield node.lineno, node.args[0].value


def layers_point_down(source: Source) -> Found:
    """A module imports only from its own layer or a lower one; ``qconvert/__init__.py`` is above them all."""
    if source.parts == ("qconvert",):
        return
    own = "cli" if source.parts[1] == "__main__" else source.parts[1]
    if own not in LAYERS:
        yield 1, f"{own} is no layer; give it a place in LAYERS, or its code a home in one of them"
        return
    for line, name in imports(source):
        root, _, rest = name.partition(".")
        target = rest.partition(".")[0]
        if root != "qconvert" or re.fullmatch(r"__\w+__", target):
            continue
        if target not in LAYERS:
            yield line, f"imports {name}; import the module that defines it"
        elif LAYERS.index(target) > LAYERS.index(own):
            yield line, f"{own} imports {name}, but {target} is a higher layer"


def libraries_stay_home(source: Source) -> Found:
    """A library with a home is imported nowhere else."""
    for line, name in imports(source):
        homes = HOMES.get(name.partition(".")[0])
        if homes and not any(source.path == h or (h.endswith("/") and source.path.startswith(h)) for h in homes):
            yield line, f"imports {name}, which only {' and '.join(homes)} may"


def modules_are_named_after_nouns(source: Source) -> Found:
    """No module or package is called utils, common or helpers."""
    yield from ((1, f"{part} says nothing of what is in it") for part in source.parts if part.strip("_") in NAMELESS)


def files_are_short(source: Source) -> Found:
    """A file beyond 400 lines is two files."""
    lines = len(source.text.splitlines())
    if lines > MAX_LINES:
        yield MAX_LINES + 1, f"{lines} lines, {MAX_LINES} allowed"


def only_the_cli_prints(source: Source) -> Found:
    """``print`` is called in cli/ alone."""
    if source.path.startswith("qconvert/cli/"):
        return
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            yield node.lineno, "print(...): return a value, report progress, or raise"


def nothing_asserts(source: Source) -> Found:
    """``assert`` vanishes under ``python -O`` and tells a user nothing."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Assert):
            yield node.lineno, "assert: raise an error of qconvert.errors, with a hint"


def public_modules_have_docstrings(source: Source) -> Found:
    """A module whose dotted name holds no private part says what it is for."""
    public = all(not part.startswith("_") or part == "__main__" for part in source.parts)
    if public and not (ast.get_docstring(source.tree) or "").strip():
        yield 1, "no module docstring"


Rule = Callable[[Source], Found]
RULES: tuple[Rule, ...] = (
    layers_point_down,
    libraries_stay_home,
    modules_are_named_after_nouns,
    files_are_short,
    only_the_cli_prints,
    nothing_asserts,
    public_modules_have_docstrings,
)


def violations(rule: Rule, root: Path) -> list[str]:
    """What ``rule`` finds in ``root/qconvert``, each as "file:line: what"."""
    return [f"{s.path}:{line}: {what}" for s in sources(root) for line, what in sorted(rule(s))]


def by_name(value: object) -> str | None:
    return getattr(value, "__name__", None)


@pytest.mark.parametrize("rule", RULES, ids=by_name)
def test_the_package_obeys(rule: Rule) -> None:
    found = violations(rule, REPO)
    assert not found, f"{rule.__doc__}\n" + "\n".join(found)


def test_there_is_a_package_to_check() -> None:
    assert sources(REPO)


# ---- the start-up cost


def heavy_chains(importtime: str) -> list[str]:
    """The chain of importers of each heavy library, from the output of ``-X importtime``.

    A line is written when its import ends, so a module stands before its importer, which is indented two columns less:

        import time:       310 |        310 |     numpy
        import time:       120 |        430 |   qconvert.ops
    """
    rows = [(len(m[1]), m[2]) for m in re.finditer(r"^import time:.*\|( +)(\S+)$", importtime, re.MULTILINE)]
    chains = []
    for i, (depth, name) in enumerate(rows):
        if name in HEAVY:
            chain, level = [name], depth
            for outer, importer in rows[i + 1 :]:
                if outer < level:
                    chain.append(importer)
                    level = outer
            chains.append(" <- ".join(chain))
    return chains


def test_help_imports_nothing_heavy() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "qconvert", "--help"]
    run = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=60, check=False)
    talk = "".join(line for line in run.stderr.splitlines(keepends=True) if not line.startswith("import time:"))
    assert run.returncode == 0, f"qconvert --help failed\n{talk}"
    assert "qconvert" in run.stdout
    assert " | qconvert.cli" in re.sub(r" +", " ", run.stderr), "the list of imports was not understood"
    found = heavy_chains(run.stderr)
    assert not found, "qconvert --help must start at once, but imports\n" + "\n".join(found)


# ---- each rule, on a file that breaks it

DOC = '"""Says what it is."""\n'

BROKEN: list[tuple[Rule, str, str, int]] = [
    (layers_point_down, "ops/a.py", f"{DOC}from qconvert.plan.model import QuantPlan\n", 2),
    (layers_point_down, "ops/a.py", f"{DOC}import qconvert.plan\n", 2),
    (layers_point_down, "ops/a.py", f"{DOC}from qconvert import plan\n", 2),
    (layers_point_down, "ops/a.py", f"{DOC}from ..plan import model\n", 2),
    (layers_point_down, "ops/__init__.py", f"{DOC}from .. import plan\n", 2),
    (layers_point_down, "ops/a.py", f"{DOC}def f():\n    from qconvert.cli import main\n", 3),
    (layers_point_down, "ops/a.py", f"{DOC}import importlib\nimportlib.import_module('qconvert.emit.qdq')\n", 3),
    (layers_point_down, "stats/a.py", f"{DOC}if TYPE_CHECKING:\n    from qconvert.plan import model\n", 3),
    (layers_point_down, "errors.py", f"{DOC}from qconvert.registry import suggest\n", 2),
    (layers_point_down, "pipeline.py", f"{DOC}import qconvert\n", 2),
    (layers_point_down, "pipeline.py", f"{DOC}from qconvert import quantize\n", 2),
    (layers_point_down, "attic/a.py", DOC, 1),
    (libraries_stay_home, "ops/a.py", f"{DOC}import onnx_ir as ir\n", 2),
    (libraries_stay_home, "graph/model.py", f"{DOC}import onnxruntime as ort\n", 2),
    (libraries_stay_home, "graph/view.py", f"{DOC}def f():\n    from onnxscript import optimizer\n", 3),
    (libraries_stay_home, "report/renderers/console.py", f"{DOC}import click\n", 2),
    (libraries_stay_home, "report/renderers/html.py", f"{DOC}from rich.table import Table\n", 2),
    (libraries_stay_home, "pipeline.py", f"{DOC}import rich_click as click\n", 2),
    (modules_are_named_after_nouns, "graph/utils.py", DOC, 1),
    (modules_are_named_after_nouns, "graph/_helpers.py", DOC, 1),
    (modules_are_named_after_nouns, "ops/common/conv.py", DOC, 1),
    (files_are_short, "ops/a.py", DOC + "x = 1\n" * MAX_LINES, MAX_LINES + 1),
    (only_the_cli_prints, "pipeline.py", f"{DOC}\n\ndef f():\n    print('done')\n", 5),
    (nothing_asserts, "cli/a.py", f"{DOC}assert True\n", 2),
    (public_modules_have_docstrings, "ops/a.py", "x = 1\n", 1),
    (public_modules_have_docstrings, "ops/__init__.py", "", 1),
]

SOUND: list[tuple[str, str]] = [
    ("__init__.py", f"{DOC}from qconvert.pipeline import quantize\n"),
    ("__main__.py", f"{DOC}from qconvert.cli import main\n"),
    ("emit/qdq.py", f"{DOC}import onnx_ir as ir\nfrom qconvert import __version__\nfrom qconvert.plan import model\n"),
    ("graph/session.py", f"{DOC}import numpy\nimport onnxruntime as ort\nfrom .model import Model\n"),
    ("graph/prepare/fold.py", f"{DOC}import onnxscript.optimizer\nfrom ...errors import ModelError\n"),
    ("calibrate/sources/_arrays.py", "import numpy as np\n"),
    ("report/renderers/console.py", f"{DOC}from rich.table import Table\nTable().print('no call of the built-in')\n"),
    ("cli/quantize.py", f"{DOC}import click\nimport rich\nprint('ok')\n"),
    ("ops/a.py", DOC + "x = 1\n" * (MAX_LINES - 1)),
]


def write(root: Path, path: str, text: str) -> None:
    file = root / "qconvert" / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


@pytest.mark.parametrize(("rule", "path", "text", "line"), BROKEN, ids=by_name)
def test_a_rule_sees_its_violation(rule: Rule, path: str, text: str, line: int, tmp_path: Path) -> None:
    write(tmp_path, path, text)
    found = violations(rule, tmp_path)
    assert [v.split(": ")[0] for v in found] == [f"qconvert/{path}:{line}"]


def test_no_rule_is_without_a_violation() -> None:
    assert {rule for rule, *_ in BROKEN} == set(RULES)


@pytest.mark.parametrize("rule", RULES, ids=by_name)
def test_a_rule_leaves_sound_code_alone(rule: Rule, tmp_path: Path) -> None:
    for path, text in SOUND:
        write(tmp_path, path, text)
    assert violations(rule, tmp_path) == []


def test_heavy_imports_are_traced_to_the_importer() -> None:
    lines = ["     numpy.core", "   numpy", "   click", " qconvert.ops", " qconvert.progress", "qconvert.cli"]
    text = "".join(f"import time:        10 |         20 | {line}\n" for line in lines)
    assert heavy_chains(text) == ["numpy <- qconvert.ops <- qconvert.cli"]

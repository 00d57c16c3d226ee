"""Writes what is a list of what the code holds: operators.md and commands.md in docs/, and the schema of recipes.

Usage:

    python docs/generate.py            write them
    python docs/generate.py --check    say which are out of date, and exit with 1 if any is
"""

from __future__ import annotations

import argparse
import ast
import difflib
import importlib
import inspect
import json
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import click

from qconvert.calibrate.source import SOURCES
from qconvert.cli import cli
from qconvert.ops import OPS
from qconvert.ops.rule import Kind, OpRule, Role, key, no_objection
from qconvert.recipe.recipe import (
    ACCURACY_LEVELS,
    ACTIVATIONS,
    AUTO,
    BLOCKS,
    EFFORTS,
    FORMATS,
    NO_RECOVERY,
    PARTS,
    PLACEMENTS,
    WEIGHT_FORMATS,
    WEIGHTS,
    Recipe,
)
from qconvert.recipe.recipe_file import COMMENTS, RECIPE_VERSION, recipe_to_dict
from qconvert.report.renderer import RENDERERS
from qconvert.targets import TARGETS
from qconvert.targets.target import Target

DOCS = Path(__file__).resolve().parent
NOTICE = "<!-- Written by docs/generate.py; change the code and run it again. -->\n"

# choice lists of the command line -> the package that holds one module for each choice
PLUGINS = {"--method": "qconvert.calibrate.methods", "--metric": "qconvert.evaluate.metrics"}


def main() -> int:
    """Write or check every page; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a page is out of date")
    check = parser.parse_args().check
    stale = 0
    package = DOCS.parent / "qconvert"
    pages = {
        DOCS / "operators.md": operators(),
        DOCS / "commands.md": commands(),
        package / "recipe" / "recipe.schema.json": recipe_schema(),
    }
    for path, text in pages.items():
        name = path.name
        now = path.read_text(encoding="utf-8") if path.exists() else ""
        if now == text:
            continue
        if check:
            stale += 1
            changes = difflib.unified_diff(now.splitlines(), text.splitlines(), name, "from the code", n=0)
            print("\n".join(changes), "\ndocs are out of date: run python docs/generate.py")
        else:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {name}")
    return 1 if stale else 0


# ---- recipe.schema.json


def recipe_schema() -> str:
    """JSON Schema 2020-12 of recipe files: types and defaults of the class, choices of the registries."""
    from qconvert.cli.options import TARGET_NAMES, names_in

    names = {
        "target": [*TARGET_NAMES],
        "format": FORMATS,
        "activations": ACTIVATIONS,
        "weights": WEIGHTS,
        "method": names_in("qconvert.calibrate.methods"),
        "recover": [AUTO, NO_RECOVERY, *names_in("qconvert.recover.passes")],
        "effort": EFFORTS,
        "placement": PLACEMENTS,
        "scheme": names_in("qconvert.schemes.kinds"),
        "block": BLOCKS,
        "rounding": [AUTO, *names_in("qconvert.rounding.methods")],
        "weight_format": WEIGHT_FORMATS,
        "accuracy_level": ACCURACY_LEVELS,
        "embeddings": PARTS,
        "lm_head": PARTS,
    }
    hints = get_type_hints(Recipe)
    properties: dict[str, object] = {
        "version": {"const": RECIPE_VERSION, "description": "version of the recipe format"},
    }
    for field in fields(Recipe):
        found = _schema_of(hints[field.name], names.get(field.name))
        default = list(field.default) if isinstance(field.default, tuple) else field.default
        properties[field.name] = {"description": COMMENTS[field.name], **found, "default": default}
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "qconvert recipe",
        "description": "Every choice that decides the quantized model; a key that is left out has its default value.",
        "type": ["object", "null"],
        "additionalProperties": False,
        "properties": properties,
    }
    return json.dumps(document, indent=2) + "\n"


def _schema_of(kind: Any, names: Sequence[object] | None) -> dict[str, object]:
    if get_origin(kind) is UnionType:
        (inner,) = (k for k in get_args(kind) if k is not type(None))
        found = _schema_of(inner, names)
        if "enum" in found:
            return {"enum": [*(names or ()), None]}
        return {"type": [found["type"], "null"]}
    if get_origin(kind) is tuple:
        return {"type": "array", "items": _schema_of(get_args(kind)[0], names)}
    if names is not None:
        return {"enum": list(names)}
    return {"type": {str: "string", bool: "boolean", int: "integer"}[kind]}


# ---- operators.md


def operators() -> str:
    """The operator table of every target."""
    lines = [
        "# Operators\n",
        NOTICE,
        "What qconvert knows of each ONNX operator, and what becomes of it. An operator that is not listed has no",
        "rule and stays float. `qconvert inspect MODEL -v` gives the decision and the reason for every node.\n",
        "- **kind**: *weighted* operators are where integers pay, and regions of integers grow from them; *arithmetic*",
        "  makes new values, worth integers only between integer neighbours; *movement* passes codes on, for nothing;",
        "  *clamps* vanish into the saturation of the operator before them; *recurrent* operators compute in float,",
        "  with weights stored as integers, or in a form of their own.",
        "- **QOperator form**: the operator in a model made with `--format qoperator`; `-` where there is none: the",
        "  node then stays float between its DequantizeLinear and QuantizeLinear.",
        "- **a node stays float when**: what the operator's rule objects to. The general reasons come on top: the",
        "  tensors are not float32, an operand holds NaN, infinities or mask values, a weight or bias is computed,",
        "  the node is excluded, or its neighbours are float.\n",
    ]
    for target in TARGETS:
        lines += [f"## {target.title} (`{target.name}`)\n", *_scheme(target), *_table(target)]
    return "\n".join(lines) + "\n"


def _scheme(target: Target) -> Iterator[str]:
    channels = "a scale for each output channel" if target.per_channel else "one scale for each weight"
    symmetry = "symmetric" if target.symmetric_activations else "asymmetric"
    yield f"Fast scheme: {target.activations} activations, {symmetry}; {target.weights} weights, {channels}."
    yield f"A MatMul of two activations: {target.products.reason}.\n"


def _table(target: Target) -> Iterator[str]:
    yield "| operator | kind | on integers | QOperator form | weights | a node stays float when |"
    yield "|---|---|---|---|---|---|"
    order = list(Kind)
    for rule in sorted(OPS, key=lambda r: (order.index(r.kind), key(r.domain, r.op_type))):
        cells = [
            f"`{key(rule.domain, rule.op_type)}`",
            rule.kind.value,
            _on_integers(rule, target),
            f"`{rule.lowering.op_type}`" if rule.lowering is not None else "-",
            _weights(rule),
            "; ".join(objections(rule)) or "-",
        ]
        yield f"| {' | '.join(c.replace('|', chr(92) + '|') for c in cells)} |"
    yield ""


def _on_integers(rule: OpRule, target: Target) -> str:
    capability = target.capability(key(rule.domain, rule.op_type))
    if not capability.integer:
        return f"no: {capability.reason}"
    if rule.kind is Kind.CLAMP:
        return "absorbed into the operator before"
    words = ["yes"]
    if rule.table_port is not None:
        words.append("rows of a constant table are stored as integers, one scale a row")
    if capability.float_result:
        words.append("the kernel can write a float result")
    return "; ".join(words)


def _weights(rule: OpRule) -> str:
    if Role.WEIGHT not in rule.inputs:
        return "-"
    bias = ", int32 bias" if Role.BIAS in rule.inputs else ""
    return ("a scale a channel" if rule.weight_axis is not None else "one scale") + bias


def objections(rule: OpRule) -> list[str]:
    """The reasons that the rule's objection can give, read from its source."""
    if rule.objection is no_objection:
        return []
    tree = ast.parse(textwrap.dedent(inspect.getsource(rule.objection)))
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Return) and node.value is not None:
            parts = [node.value.body, node.value.orelse] if isinstance(node.value, ast.IfExp) else [node.value]
            found += [p.value for p in parts if isinstance(p, ast.Constant) and isinstance(p.value, str) and p.value]
    return found


# ---- commands.md


def commands() -> str:
    """Every command with its options, and the lists that the options draw on."""
    lines = [
        "# Commands and options\n",
        NOTICE,
        "`qconvert COMMAND --help` says the same. Results go to stdout, everything else to stderr.\n",
    ]
    context = click.Context(cli, info_name="qconvert")
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        if command is not None:
            lines += _command(name, command)
    lines += ["## Recipe keys\n", "| key | default | meaning |", "|---|---|---|"]
    for key_, value in recipe_to_dict(Recipe()).items():
        shown = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
        meaning = COMMENTS.get(key_, "version of the recipe format")
        lines.append(f"| `{key_}` | `{shown}` | {meaning} |")
    lines += ["", "## Calibration and evaluation data\n"]
    lines += [f"- {SOURCES.get(n).description}" for n in SOURCES.names()]
    for option, package in PLUGINS.items():
        lines += ["", f"## Choices of `{option}`\n", *_plugins(package)]
    suffixes = sorted(s for r in RENDERERS for s in r.suffixes)
    lines += ["", "## Forms of `--report`\n", f"By suffix: {', '.join(f'`{s}`' for s in suffixes)}."]
    return "\n".join(lines) + "\n"


def _command(name: str, command: click.Command) -> Iterator[str]:
    yield f"## qconvert {name}\n"
    text, _, example = inspect.cleandoc(command.help or "").partition("\b")
    yield " ".join(text.split()) + "\n"
    arguments = [p for p in command.params if isinstance(p, click.Argument)]
    yield f"    qconvert {name} [OPTIONS] {' '.join((p.name or '').upper() for p in arguments)}\n"
    yield "| option | meaning |"
    yield "|---|---|"
    for option in command.params:
        if isinstance(option, click.Option):
            yield f"| {_option(option)} | {_escaped(' '.join((option.help or '').split()))} |"
    yield "\nFor example:\n"
    yield f"```sh\n{textwrap.dedent(example.partition('Example:')[2].strip(chr(10)))}\n```"
    yield ""


def _option(option: click.Option) -> str:
    names = ", ".join(f"`{o}`" for o in option.opts)
    if option.secondary_opts:
        return f"{names} / {', '.join(f'`{o}`' for o in option.secondary_opts)}"
    if option.is_flag:
        return names
    if isinstance(option.type, click.Choice):
        return f"{names} {' or '.join(f'`{c}`' for c in option.type.choices)}"
    return f"{names} {option.metavar or option.type.name.upper()}"


def _plugins(package: str) -> Iterator[str]:
    from qconvert.cli.options import names_in

    for name in names_in(package):
        module = importlib.import_module(f"{package}.{name.replace('-', '_')}")
        first = inspect.cleandoc(module.__doc__ or "").split("\n\n")[0]
        yield f"- `{name}`: {' '.join(first.split())}"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main())

"""``qconvert targets``: what models can be made for, and what runs there as integers, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from qconvert.cli.choices import beginning
from qconvert.cli.options import TARGET_NAMES
from qconvert.cli.terminal import stdout

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console, RenderableType
    from rich.table import Table

    from qconvert.targets.auto import Detected
    from qconvert.targets.target import Capability, Target


@click.command(short_help="List the targets, or show what one runs as integers.")
@click.argument("name", required=False, shell_complete=beginning(TARGET_NAMES))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def command(name: str | None, as_json: bool) -> None:
    """List the targets, or show what NAME runs as integers, operator by operator, and why.

    A target is a runtime on a kind of processor. It decides the integer types, where quantization begins and ends, and
    which operators stay float. `auto` is this machine's.

    \b
    Example:
      qconvert targets
      qconvert targets tensorrt
    """
    from qconvert.targets import TARGETS
    from qconvert.targets.auto import detected, target_of

    machine = detected()
    chosen = target_of(name) if name is not None else None
    if as_json:
        import json

        shown = document(chosen) if chosen is not None else [summary(t, machine) for t in TARGETS]
        click.echo(json.dumps(shown, indent=2, allow_nan=False))
        return
    if chosen is not None:
        show(_one(chosen), stdout())
    else:
        show(_all(list(TARGETS), machine), stdout())


def summary(target: Target, machine: Detected) -> dict[str, object]:
    """``target`` in a few words, as plain data."""
    return {
        "name": target.name,
        "title": target.title,
        "purpose": target.purpose,
        "scheme": scheme(target),
        "here": target.name == machine.target,
    }


def document(target: Target) -> object:
    """All of ``target`` as plain data for JSON, with an entry for each operator that has a rule."""
    from dataclasses import fields

    from qconvert.report.document import to_plain

    plain = {f.name: getattr(target, f.name) for f in fields(target)}
    plain["capabilities"] = {op: target.capability(op) for op in operators(target)}
    return to_plain(plain)


def operators(target: Target) -> tuple[str, ...]:
    """The operators that ``target`` is asked about: all that have a rule, and what it names itself."""
    from qconvert.ops import OPS

    return tuple(sorted({*OPS.names(), *target.capabilities}))


def scheme(target: Target) -> str:
    """U8S8, asymmetric, a scale a channel."""
    letters = "".join(f"{'U' if kind.startswith('u') else 'S'}{kind.lstrip('uint')}" for kind in target.types[0])
    symmetry = "symmetric" if target.symmetric_activations else "asymmetric"
    return f"{letters}, {symmetry}, {'a scale a channel' if target.per_channel else 'one scale a weight'}"


def show(blocks: Iterator[RenderableType], console: Console) -> None:
    """Print ``blocks`` for people; the console's width decides the layout."""
    from qconvert.report.renderers.console import MAX_WIDTH

    for block in blocks:
        console.print(block, width=min(console.width, MAX_WIDTH), highlight=False, markup=False)


def _all(targets: Sequence[Target], machine: Detected) -> Iterator[RenderableType]:
    from rich.text import Text

    table = _table("target", "scheme", "for")
    for target in targets:
        table.add_row(Text(target.name, style="bold"), Text(scheme(target)), Text(target.purpose))
    yield table
    yield ""
    yield Text.assemble(("auto", "bold"), f" is {machine.target} here: {machine.processor}")


def _one(target: Target) -> Iterator[RenderableType]:
    from rich.table import Table
    from rich.text import Text

    yield Text.assemble((target.name, "bold"), f": {target.title}; {target.purpose}")
    yield ""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    others = "; ".join(f"{activations} with {weights}" for activations, weights in target.types[1:])
    rows = [
        ("scheme", scheme(target) + (f"; runs also {others} (activations, weights)" if others else "")),
        ("formats", ", ".join(target.formats)),
        ("biases", "float" if target.float_bias else "int32, scale s_x * s_w"),
        ("boundary", target.boundary),
        ("products", f"{_side(target.products)}: {target.products.reason}"),
        *((label, text) for label, text in _rules(target)),
    ]
    for label, text in rows:
        grid.add_row(Text(label, style="bold"), Text(text))
    yield grid
    yield ""
    table = _table("operator", "on", "why")
    for op in operators(target):
        capability = target.capability(op)
        table.add_row(Text(op), Text(_side(capability)), Text(why(capability)))
    yield table
    yield ""
    yield Text("Sources", style="bold")
    grid = Table.grid(padding=(0, 2))
    for number, source in enumerate(target.sources, start=1):
        grid.add_row(Text(f"[{number}]"), Text(source))
    yield grid


def _rules(target: Target) -> Iterator[tuple[str, str]]:
    if target.saturates:
        yield "sums", "two products are added in 16 bits: weights of channels that could saturate are made smaller"
    if target.residuals:
        yield "additions", "behind a weighted operator the other operand alone is quantized"
    if target.integer_only:
        yield "ends", "inputs and outputs are integers; a model of which anything stays float is refused"


def why(capability: Capability) -> str:
    """The reason of ``capability``; where it gives none, the costs that speak for it."""
    if capability.reason:
        return capability.reason
    return f"an integer kernel, {capability.integer_ns:g} ns an output element; in float {capability.float_ns:g}"


def _side(capability: Capability) -> str:
    if capability.weights_only:
        return "float, weights integers"
    return "integers" if capability.integer else "float"


def _table(*columns: str) -> Table:
    from rich.table import Table

    from qconvert.report.renderers.console import BOX

    table = Table(box=BOX, show_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in ("target", "operator"))
    return table

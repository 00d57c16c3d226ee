"""``qconvert inspect``: what is in a model, what can be quantized, and why the rest cannot."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from qconvert.cli.choices import RecipeFile
from qconvert.cli.options import dry_run_option, target_option
from qconvert.cli.terminal import stdout

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console, RenderableType

    from qconvert.api.arguments import Choices
    from qconvert.inspection import Inspection, TensorInfo


@click.command(short_help="Show what is in a model, and what would be quantized.")
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--recipe",
    "recipe_file",
    type=RecipeFile(path_type=Path),
    metavar="FILE",
    help="Plan with the choices of a YAML recipe, or one of `qconvert recipes` by name.  [default: the default recipe]",
)
@target_option
@dry_run_option("whether the model can be read and the choices exist, and what they are")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
@click.option("-v", "--verbose", is_flag=True, help="Every node with its decision and the reason.")
def command(
    model: Path, recipe_file: Path | None, target: str | None, dry_run: bool, as_json: bool, verbose: bool
) -> None:
    """Show what is in MODEL, what would be quantized, and why the rest would stay float.

    Nothing is written, and no data is needed. Under another scheme than static int8 (in a recipe) the size is that of
    the model which the scheme makes. A model that is quantized already is shown too, and so is one that ONNX Runtime
    refuses to load: its reason follows, and the exit code is 2.

    \b
    Example:
      qconvert inspect sample_models/digits_cnn.onnx
    """
    from qconvert.api import judging
    from qconvert.errors import ModelError

    choices: Choices = {"target": target} if target is not None else {}
    if dry_run:
        from qconvert.api.arguments import recipe_of
        from qconvert.cli.forecast import show_inspection

        show_inspection(model, recipe_of(recipe_file, choices))
        return
    inspection = judging.inspect(model, recipe=recipe_file, **choices)
    if as_json:
        import json

        from qconvert.report.document import to_plain

        click.echo(json.dumps(to_plain(inspection), indent=2, allow_nan=False))
    else:
        show(inspection, stdout(), verbose=verbose)
    if inspection.refusal:
        raise ModelError(
            f"{model}: {inspection.refusal}",
            hint="nothing can be done with it before ONNX Runtime loads it: export it with operators and an opset that "
            "it has, or update onnxruntime",
        )


def show(inspection: Inspection, console: Console, *, verbose: bool = False) -> None:
    """Print ``inspection`` for people; the console's width decides the layout."""
    from qconvert.report.renderers import phrases
    from qconvert.report.renderers.console import MAX_WIDTH, decision_blocks, every_decision

    blocks: list[RenderableType] = [*_contents(inspection), ""]
    if inspection.obstacle:
        blocks += [*_obstacle(inspection)]
    else:
        blocks += [
            *decision_blocks(
                inspection.decisions, phrases.outcomes({"scheme": inspection.scheme, "mix": inspection.mix}, would=True)
            ),
            "",
            *_outlook(inspection),
        ]
    if verbose and inspection.decisions:
        blocks += ["", every_decision(inspection.decisions)]
    for block in blocks:
        console.print(block, width=min(console.width, MAX_WIDTH), highlight=False, markup=False)


def _contents(i: Inspection) -> Iterator[RenderableType]:
    """The file, its interface, what is in it."""
    from rich.table import Table
    from rich.text import Text

    from qconvert.report.renderers import phrases

    versions = [f"opset {i.opset}", *(f"{d} {v}" for d, v in i.domains.items()), f"IR version {i.ir_version}"]
    facts = [phrases.size(i.bytes), f"{i.parameters:,} float parameters", *versions]
    yield Text.assemble(
        (Path(i.path).name, "bold"), ": ", ", ".join([*facts, *([f"by {i.producer}"] if i.producer else [])])
    )
    yield ""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    kinds = ", ".join(f"{phrases.size(n)} {kind}" for kind, n in i.by_kind.items() if n)
    rows = [("inputs", _tensors(i.inputs)), ("outputs", _tensors(i.outputs)), ("size", kinds)]
    nodes = ", ".join(f"{n} {op}" for op, n in i.ops.items())
    rows.append(("nodes", f"{sum(i.ops.values())}: {nodes}"))
    if i.functions:
        rows.append(("functions", phrases.count(i.functions, "function")))
    inside = [f"{b.op_type} {b.node!r} with {phrases.count(b.parameters, 'float parameter')} inside" for b in i.bodies]
    if inside:
        rows.append(("bodies", "\n".join(inside)))
    rows.append(("target", i.target))
    if i.scheme != "int8" or i.mix:
        rows.append(("scheme", i.scheme + phrases.mixed({"mix": i.mix})))
    rows += [("note", note) for note in i.notes]
    for label, text in rows:
        grid.add_row(Text(label, style="bold"), Text(text))
    yield grid


def _tensors(tensors: Sequence[TensorInfo]) -> str:
    """A line for each: name, type and shape."""
    longest = max((len(t.name) for t in tensors), default=0)
    lines = []
    for t in tensors:
        # one very long name does not push the others to the right
        lines.append(f"{t.name:<{min(longest, 30)}}  {t.told}")
    return "\n".join(lines) or "none"


def _obstacle(i: Inspection) -> Iterator[RenderableType]:
    """Why there is no plan."""
    from rich.text import Text

    if i.quantized_ops:
        ops = ", ".join(f"{i.ops[op]} {op}" if op in i.ops else op for op in i.quantized_ops)
        yield Text.assemble(("Quantized already", "bold yellow"), f": it holds {ops}.")
        yield Text("To quantize it differently, start from the FP32 model that it was made from.")
    else:
        yield Text.assemble(("Cannot be quantized", "bold red"), f": {i.obstacle}.")


def _outlook(i: Inspection) -> Iterator[RenderableType]:
    """What quantization would save, and what to do next."""
    from rich.text import Text

    from qconvert.report.renderers import phrases

    if i.savings is None or not i.planned:
        if any(b.op_type == "If" and b.parameters for b in i.bodies):
            yield Text("Nothing in the main graph would run on integers; the branches of If are decided with data.")
        else:
            yield Text("Nothing would run on integers, so quantizing would not help.", style="yellow")
        return
    share = i.savings.float_weight_bytes / max(1, i.savings.constant_bytes)
    after = i.savings.estimated_bytes
    stored = " as integers" if i.scheme == "int8" and not i.mix else ""
    yield Text.assemble(
        ("Weights", "bold"),
        f": {phrases.size(i.savings.float_weight_bytes)} of float weights ({phrases.percent(min(1.0, share))} of all "
        f"constants) would take {phrases.size(i.savings.integer_weight_bytes)}{stored}.",
    )
    yield Text.assemble(
        ("File", "bold"),
        f": {phrases.size(i.bytes)} would become about {phrases.size(after)}, {phrases.size_change(i.bytes, after)}.",
    )
    if not i.refusal:
        how = [*(["--scheme", i.scheme] if i.scheme != "int8" else []), *(w for e in i.mix for w in ("--mix", e))]
        yield Text.assemble(("Next", "bold"), f": qconvert quantize {shlex.join([i.path, *how])} --calib DATA")

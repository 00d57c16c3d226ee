"""``qconvert convert``: a quantized model in another form."""

from __future__ import annotations

from pathlib import Path

import click

from qconvert.cli.choices import Choice
from qconvert.cli.data_options import SOURCE_HELP, source_option
from qconvert.cli.options import dry_run_option


@click.command(short_help="Bring a quantized model into another form.")
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--to", "form", required=True, type=Choice(["qdq", "qoperator", "float", "fp16"]), help="The form to make."
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Where to write.  [default: MODEL with .FORM.onnx]",
)
@source_option("--data", "data", f"Samples that both models are compared on: {SOURCE_HELP}")
@dry_run_option("what would come of it")
@click.option("--force", is_flag=True, help="Replace a file that exists.")
def command(model: Path, form: str, output: Path | None, data: tuple[str, ...], dry_run: bool, force: bool) -> None:
    """Bring MODEL, which holds QuantizeLinear and DequantizeLinear, into another form.

    A model from quantization-aware training keeps its learned scales: float weights behind the pairs are stored as
    integers. To float and fp16 it is dequantized. Models over 1.8 GB are run and compared only on --data.

    \b
    Example:
      qconvert quantize sample_models/digits_cnn.onnx --calib calibration_data/digits_cnn/calib.npz \\
          -o digits_cnn.int8.onnx
      qconvert convert digits_cnn.int8.onnx --to qoperator -o digits_cnn.qoperator.onnx
    """
    from qconvert.api import making
    from qconvert.report.renderers import phrases

    output = output or model.with_name(f"{model.stem}.{form}.onnx")
    done = making.convert(model, output, to=form, data=data or None, force=force, dry_run=dry_run)
    said = (
        f"{model.name} -> {output.name}: {phrases.size(done.before)} -> {phrases.size(done.after)} "
        f"({phrases.size_change(done.before, done.after)})"
    )
    if done.comparison is not None:
        fidelity = done.comparison.fidelity
        said += (
            f", SQNR {phrases.decibels(fidelity.sqnr_db)}, largest error "
            f"{phrases.significant(fidelity.max_abs_error)} on {done.source}"
        )
    click.echo(said)
    for note in done.notes:
        click.echo(f"note: {note}")
    if dry_run:
        click.echo("nothing was written")

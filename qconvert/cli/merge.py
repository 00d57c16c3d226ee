"""``qconvert merge``: several statistics files into one."""

from __future__ import annotations

from pathlib import Path

import click

from qconvert.cli.options import dry_run_option


@click.command(short_help="Merge the statistics that `calibrate` wrote in shares.")
@click.argument("files", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), metavar="FILE", help="Where to write.")
@dry_run_option("whether they belong together, and what they come to")
@click.option("--force", is_flag=True, help="Replace a file that exists.")
def command(files: tuple[Path, ...], output: Path, dry_run: bool, force: bool) -> None:
    """Merge FILES, statistics that `qconvert calibrate` wrote for one model, into one.

    All shards of a calibration give the same file, byte for byte, as one run over all samples.

    \b
    Example:
      qconvert calibrate sample_models/digits_gru.onnx --calib calibration_data/digits_gru/calib.npz --shard 1/2 \\
          -o 1.npz
      qconvert calibrate sample_models/digits_gru.onnx --calib calibration_data/digits_gru/calib.npz --shard 2/2 \\
          -o 2.npz
      qconvert merge 1.npz 2.npz -o gru.ranges.npz
    """
    from qconvert.api import making
    from qconvert.report.renderers import phrases

    origin = making.merge(files, output, force=force, dry_run=dry_run)
    whole = f", shards {', '.join(map(str, origin.shards))} of {origin.parts}" if origin.shards else ""
    click.echo(f"{output}: {phrases.count(origin.samples, 'sample')} for {origin.model}, method {origin.method}{whole}")
    if dry_run:
        click.echo("nothing was written")

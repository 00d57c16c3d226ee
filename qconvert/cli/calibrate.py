"""``qconvert calibrate``: statistics of a model's activations, in a file."""

from __future__ import annotations

import gc
from pathlib import Path

import click

from qconvert.cli.data_options import SOURCE_HELP, data_options, source_option
from qconvert.cli.options import dry_run_option, given, pass_options, recipe_options, verbosity_options
from qconvert.cli.terminal import TerminalProgress, show_warnings


class Shard(click.ParamType[tuple[int, int]]):
    """``i/n``: the i-th of n shares."""

    name = "shard"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """(i, n)."""
        share, slash, of = str(value).partition("/")
        if not (slash and share.isdecimal() and of.isdecimal() and 1 <= int(share) <= int(of)):
            self.fail(f"{value!r} is no shard; give i/n, such as 3/8, with i from 1 to n", param, ctx)
        return int(share), int(of)


@click.command(short_help="Keep the statistics of a model's activations in a file.")
@click.argument("model", type=click.Path(path_type=Path))
@source_option("--calib", "calib", f"Calibration data: {SOURCE_HELP}", required=True)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Where to write the statistics.  [default: MODEL with .ranges.npz]",
)
@click.option("--shard", type=Shard(), default="1/1", metavar="I/N", help="Only the I-th of N shares of the samples.")
@recipe_options
@data_options
@pass_options
@dry_run_option("what would be observed and how long it would take")
@click.option("--force", is_flag=True, help="Replace a file that exists.")
@verbosity_options
def command(
    model: Path,
    calib: tuple[str, ...],
    output: Path | None,
    shard: tuple[int, int],
    recipe_file: Path | None,
    samples: int | None,
    seed: int,
    preprocess: str | None,
    skip_bad: int,
    threads: int,
    batch: int,
    memory: int,
    dry_run: bool,
    force: bool,
    verbose: bool,
    quiet: bool,
    **choices: object,
) -> None:
    """Run the samples in SOURCE through MODEL and keep the statistics of its activations in a file.

    `qconvert quantize MODEL --ranges FILE` makes the quantized model from it, without the data. Shards can be collected
    on several machines and put together with `qconvert merge`: the result is the same to the bit. As `quantize` does,
    it leaves an eighth of the samples (32 at most) out, so that the result can be measured on them.

    \b
    Example:
      qconvert calibrate sample_models/digits_cnn.onnx --calib calibration_data/digits_cnn/calib.npz -o cnn.ranges.npz
      qconvert quantize sample_models/digits_cnn.onnx --ranges cnn.ranges.npz -o digits_cnn.ranges.onnx
    """
    from qconvert.calibrate.collect import CollectOptions
    from qconvert.calibrate.data import DataSpec
    from qconvert.calibration import CalibrateJob, calibrate, forecast
    from qconvert.recipe.recipe import Recipe
    from qconvert.recipe.recipe_file import load_recipe, merge
    from qconvert.report.renderers import phrases

    gc.freeze()  # what has been imported stays, and need not be looked through for garbage
    job = CalibrateJob(
        model=model,
        calib=DataSpec(sources=calib, samples=samples, seed=seed, preprocess=preprocess, skip_bad=skip_bad),
        output=output or model.with_name(f"{model.stem}.ranges.npz"),
        recipe=merge(load_recipe(recipe_file) if recipe_file is not None else Recipe(), given(choices)),
        shard=shard,
        options=CollectOptions(threads=threads, batch=batch, budget=memory << 20),
        force=force,
    )
    if dry_run:
        from qconvert.cli.forecast import show_forecast

        show_forecast(forecast(job), verbose=verbose)
        return
    done = calibrate(job, TerminalProgress(-1 if quiet else int(verbose)))
    show_warnings(done.warnings)
    show_warnings(f"passed over: {line}" for line in done.skipped)
    share = f", shard {shard[0]} of {shard[1]}" if shard[1] > 1 else ""
    click.echo(
        f"{done.output}: {phrases.count(done.tensors, 'tensor')} on {phrases.count(done.origin.samples, 'sample')} of "
        f"{done.source}{share}, for method {done.origin.method}"
    )
    if quiet:
        return
    if done.held_out:
        click.echo(f"held out  {done.held_out} samples, on which `quantize --calib` measures")
    if done.skipped_values:
        click.echo(f"masks     {done.skipped_values} NaN, infinite or mask values kept out of the ranges")
    parts = f", model in {done.parts} parts" if done.parts > 1 else ""
    batches = f", {done.batch} samples in a run" if done.batch > 1 else ""
    total = sum(done.seconds.values())
    click.echo(f"time      {total:.1f} s, {phrases.count(done.threads, 'thread')}{batches}{parts}")
    click.echo(f"model     sha256 {done.origin.model_sha256[:16]}")
    click.echo(f"data      digest {done.origin.data[:16]}")

"""What ``--dry-run`` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from qconvert.cli.terminal import show_warnings

if TYPE_CHECKING:
    from qconvert.calibration import Forecast
    from qconvert.inputs import ConversionJob

_NAMES = 5


def show_job(job: ConversionJob, *, verbose: bool) -> None:
    """The forecast of the pass over the data of ``job``, which the rest of a search starts from."""
    from qconvert.calibration import CalibrateJob, forecast

    if job.calib is not None:
        made = CalibrateJob(model=job.model, calib=job.calib, output=job.model, recipe=job.recipe, options=job.options)
        show_forecast(forecast(made), verbose=verbose)


def show_forecast(found: Forecast, *, verbose: bool) -> None:
    """What would be observed, on how many samples, and for how long; every tensor's name if ``verbose``."""
    from qconvert.report.renderers import phrases

    show_warnings(found.warnings)
    held = f", {found.held_out} more held out" if found.held_out else ""
    click.echo(f"samples   {found.samples} of {found.source}{held}")
    shown = found.tensors if verbose else found.tensors[:_NAMES]
    more = f" and {len(found.tensors) - len(shown)} more (-v lists them)" if len(shown) < len(found.tensors) else ""
    listed = "\n".join(f"          {name}" for name in shown) if verbose else f"          {', '.join(shown)}{more}"
    click.echo(f"tensors   {len(found.tensors)} to observe\n{listed}")
    click.echo(f"integers  {found.integer} of {phrases.count(found.operations, 'operation')} would run on integers")
    parts = f", in {found.parts} parts" if found.parts > 1 else ""
    click.echo(
        f"time      about {found.seconds:.1f} s for the pass, {phrases.count(found.threads, 'thread')}{parts}, "
        f"{phrases.size(found.held_bytes)} of activations held"
    )
    click.echo("nothing was written")

"""What ``--dry-run`` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from qconvert.cli.terminal import show_warnings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from qconvert.calibration import Forecast
    from qconvert.evaluate.benchmark import BenchJob
    from qconvert.evaluate.comparison import CompareJob
    from qconvert.evaluate.evaluation import EvaluateJob
    from qconvert.inputs import ConversionJob
    from qconvert.outcome import Outcome
    from qconvert.pipeline import QuantizeJob
    from qconvert.recipe.recipe import Recipe

_NAMES = 5


def show_job(job: ConversionJob, *, verbose: bool) -> None:
    """The forecast of the pass over the data of ``job``, which the rest of a search starts from."""
    from qconvert.calibration import CalibrateJob, forecast

    if job.calib is not None:
        made = CalibrateJob(model=job.model, calib=job.calib, output=job.model, recipe=job.recipe, options=job.options)
        show_forecast(forecast(made), verbose=verbose)


def show_conversion(job: QuantizeJob, settled: Outcome, reports: Sequence[Path], *, verbose: bool) -> None:
    """Check all that a quantization was given, and say what would be done; fails as it does.

    Of static schemes with calibration data that is the forecast of the pass; of others, that model and data fit.
    """
    from qconvert.graph.signature import session_of
    from qconvert.graph.size import file_bytes
    from qconvert.inputs import load_float_model
    from qconvert.pipeline import data_of, open_labels
    from qconvert.quantizing import check_job
    from qconvert.recipe.recipe import STATIC_SCHEMES
    from qconvert.report.renderers import phrases

    check_job(job)
    source = load_float_model(job.model)
    original = session_of(source, optimize=False) if job.measure else None
    data = None
    if original is not None and (job.calib is not None or job.eval_data is not None):
        data = data_of(job, original.inputs)
        open_labels(job, original, data.evaluation)
        show_warnings(data.warnings)
    click.echo(f"model     {job.model.name}, {phrases.size(file_bytes(job.model, source))}")
    click.echo(f"scheme    {job.recipe.scheme}{''.join(f', {entry}' for entry in job.recipe.mix)}")
    click.echo(f"output    {job.output}")
    if data is not None:
        click.echo(f"measured  on {phrases.count(len(data.evaluation), 'sample')} of {data.evaluation_source}")
    _show_outcome(settled, reports)
    if job.recipe.scheme in STATIC_SCHEMES and job.calib is not None:
        show_job(job, verbose=verbose)
    else:
        click.echo("nothing was written")


def _show_outcome(settled: Outcome, reports: Sequence[Path]) -> None:
    for gate in settled.gates:
        click.echo(f"gate      fail if {gate.text}")
    for path in reports:
        click.echo(f"report    {path}")


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


def show_examination(model: Path, *, data: Path | None, isa: str | None, fail_on: str | None) -> None:
    """Check all that ``check`` was given, and say what would be done; fails as it does."""
    from qconvert.diagnose.diagnosis import examinable
    from qconvert.diagnose.finding import CHECKS
    from qconvert.diagnose.isa import Isa, this_machine
    from qconvert.graph.quantized import quantized_ops
    from qconvert.graph.size import file_bytes
    from qconvert.report.renderers import phrases

    source, samples = examinable(model, data)
    already = quantized_ops(source)
    names = [name for name in CHECKS.names() if already or CHECKS.get(name).float_models]
    kind = f"quantized ({', '.join(already[:3])})" if already else "float"
    click.echo(f"model     {model.name}, {phrases.size(file_bytes(model, source))}, {kind}")
    click.echo(f"for       {(Isa(isa) if isa is not None else this_machine()).title}")
    click.echo(f"samples   {f'{samples} of {data}' if samples else 'made from the inputs, for the times'}")
    click.echo(f"checks    {', '.join(names)}")
    if fail_on is not None:
        click.echo(f"gate      fail if a finding is as bad as {fail_on}")
    click.echo("nothing was written")


def show_inspection(model: Path, recipe: Recipe) -> None:
    """Check all that ``inspect`` was given, and say what would be done; fails as it does."""
    from qconvert.graph.model import load
    from qconvert.graph.quantized import quantized_ops
    from qconvert.graph.size import file_bytes
    from qconvert.quantizing import resolved
    from qconvert.report.renderers import phrases
    from qconvert.schemes.scheme import check_combination

    source = load(model)
    check_combination(recipe)
    recipe = resolved(recipe)
    kind = ", quantized already: shown as it is" if quantized_ops(source) else ""
    click.echo(f"model     {model.name}, {phrases.size(file_bytes(model, source))}{kind}")
    click.echo(f"scheme    {recipe.scheme}{''.join(f', {entry}' for entry in recipe.mix)}")
    click.echo(f"target    {recipe.target}")
    click.echo("nothing was written")


def show_rehearsal(
    command: str,
    job: CompareJob | EvaluateJob | BenchJob,
    *,
    metric: str | None = None,
    fail_if: tuple[str, ...],
    reports: tuple[Path, ...],
    github_summary: bool,
    track: tuple[str, ...],
    force: bool,
) -> None:
    """Check all that ``command`` was given, run one sample, and say what would be done; fails as ``command`` does."""
    from dataclasses import replace

    from qconvert.evaluate.benchmark import BenchJob
    from qconvert.evaluate.comparison import CompareJob
    from qconvert.evaluate.gates import metric_for
    from qconvert.evaluate.rehearsal import rehearse
    from qconvert.outcome import outcome
    from qconvert.report.renderers import phrases

    timing = isinstance(job, BenchJob)
    settled = outcome(
        command,
        fail_if=fail_if,
        reports=reports,
        github_summary=github_summary,
        track=track,
        force=force,
        inputs=job.inputs,
        models=len(job.models) if isinstance(job, BenchJob) else 2,
    )
    found = rehearse(job if isinstance(job, BenchJob) else replace(job, metric=metric_for(settled.gates, metric)))
    show_warnings(found.warnings)
    click.echo(f"models    {', '.join(found.models)}")
    click.echo(f"inputs    {', '.join(found.inputs)}")
    for name, size in found.assumed.items():
        click.echo(f"          {name} taken as {size}; --dim {name}=SIZE gives another")
    click.echo(f"samples   {found.samples} of {found.source}" if found.source else "samples   made from the inputs")
    if not timing:
        click.echo(f"metric    {found.metric or 'none, since there are no labels'}")
    _show_outcome(settled, reports)
    runs = f"{phrases.count(found.runs, 'run')} of each model" if found.runs else "as many runs as fit"
    inside = "; the tensors inside come on top" if isinstance(job, CompareJob) and job.tensors else ""
    memory = "; load and memory come on top" if timing else ""
    click.echo(f"time      about {found.seconds:.1f} s, {runs}{inside}{memory}")
    click.echo("nothing was written")

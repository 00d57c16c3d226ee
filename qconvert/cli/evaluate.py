"""``qconvert evaluate``: how good one model is on data."""

from __future__ import annotations

from pathlib import Path

import click

from qconvert.cli.data_options import SOURCE_HELP, data_options, label_options, source_option
from qconvert.cli.options import dry_run_option
from qconvert.cli.outcome import outcome_options, tell
from qconvert.cli.terminal import TerminalProgress


@click.command(short_help="Run one model on data: metric, outputs, worst samples.")
@click.argument("model", type=click.Path(path_type=Path))
@source_option("--data", "data", f"Samples to run: {SOURCE_HELP}", required=True)
@label_options("--data")
@data_options
@click.option(
    "--threads", type=click.IntRange(min=0), default=0, metavar="N", help="Threads; 0 is ONNX Runtime's choice."
)
@outcome_options('"top1 < 98%" or "nonfinite > 0"')
@dry_run_option("whether all of it fits together, and how long it would take")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
@click.option("--force", is_flag=True, help="Replace reports that exist.")
def command(
    model: Path,
    data: tuple[str, ...],
    labels: Path | None,
    metric: str | None,
    samples: int | None,
    seed: int,
    preprocess: str | None,
    skip_bad: int,
    threads: int,
    fail_if: tuple[str, ...],
    reports: tuple[Path, ...],
    github_summary: bool,
    track: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
    force: bool,
) -> None:
    """Run MODEL, float or quantized, on data: its metric, its outputs, the samples that it scores worst.

    \b
    Example:
      qconvert evaluate sample_models/digits_cnn.onnx --data calibration_data/digits_cnn/eval.npz \\
          --labels calibration_data/digits_cnn/labels.npy
    """
    from qconvert.api import judging
    from qconvert.evaluate.gates import raise_if_broken

    if dry_run:
        from qconvert.calibrate.data import DataSpec
        from qconvert.cli.forecast import show_rehearsal
        from qconvert.evaluate.evaluation import EvaluateJob

        job = EvaluateJob(
            model=model,
            data=DataSpec(sources=data, samples=samples, seed=seed, preprocess=preprocess, skip_bad=skip_bad),
            labels=labels,
            threads=threads,
        )
        show_rehearsal(
            "evaluate",
            job,
            metric=metric,
            fail_if=fail_if,
            reports=reports,
            github_summary=github_summary,
            track=track,
            force=force,
        )
        return
    result = judging.evaluate(
        model,
        data=data,
        labels=labels,
        metric=metric,
        samples=samples,
        seed=seed,
        preprocess=preprocess,
        skip_bad=skip_bad,
        threads=threads,
        fail_if=fail_if,
        reports=reports,
        github_summary=github_summary,
        track=track,
        force=force,
        progress=TerminalProgress(0),
    )
    tell(result, as_json=as_json)
    raise_if_broken(result.gates)

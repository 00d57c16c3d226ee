"""``qconvert compare``: two models on the same data, whoever quantized them."""

from __future__ import annotations

from pathlib import Path

import click

from qconvert.cli.data_options import SOURCE_HELP, data_options, label_options, source_option
from qconvert.cli.options import dry_run_option
from qconvert.cli.outcome import outcome_options, tell
from qconvert.cli.terminal import TerminalProgress


@click.command(short_help="Set two models against each other on the same data.")
@click.argument("first", type=click.Path(path_type=Path))
@click.argument("second", type=click.Path(path_type=Path))
@source_option("--data", "data", f"Samples to run: {SOURCE_HELP}", required=True)
@label_options("--data")
@data_options
@click.option(
    "--tensors/--no-tensors", default=True, help="Compare the tensors inside the models too.  [default: tensors]"
)
@click.option(
    "--threads", type=click.IntRange(min=0), default=0, metavar="N", help="Threads; 0 is ONNX Runtime's choice."
)
@outcome_options('"top1_drop > 0.5%", "sqnr < 20" or "agreement < 99%"')
@dry_run_option("whether all of it fits together, and how long it would take")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
@click.option("--force", is_flag=True, help="Replace reports that exist.")
@click.option("-v", "--verbose", is_flag=True, help="Every tensor, in the order of the graph.")
def command(
    first: Path,
    second: Path,
    data: tuple[str, ...],
    labels: Path | None,
    metric: str | None,
    samples: int | None,
    seed: int,
    preprocess: str | None,
    skip_bad: int,
    tensors: bool,
    threads: int,
    fail_if: tuple[str, ...],
    reports: tuple[Path, ...],
    github_summary: bool,
    track: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
    force: bool,
    verbose: bool,
) -> None:
    """Set SECOND against FIRST, usually a quantized model against its original.

    The models need the same inputs, and SECOND all outputs of FIRST; it does not matter who quantized them, or how.
    Outputs are compared with each other and with labels, the samples that differ most are named, and tensors inside
    are matched by name, through fusions and quantization, to show where along the graph the difference comes in.

    \b
    Example:
      qconvert compare sample_models/digits_cnn.onnx sample_models/digits_cnn.onnx \\
          --data calibration_data/digits_cnn/eval.npz --labels calibration_data/digits_cnn/labels.npy \\
          --fail-if "top1_drop > 0.5%"
    """
    from qconvert.api import judging
    from qconvert.evaluate.gates import raise_if_broken

    if dry_run:
        from qconvert.calibrate.data import DataSpec
        from qconvert.cli.forecast import show_rehearsal
        from qconvert.evaluate.comparison import CompareJob

        job = CompareJob(
            reference=first,
            other=second,
            data=DataSpec(sources=data, samples=samples, seed=seed, preprocess=preprocess, skip_bad=skip_bad),
            labels=labels,
            tensors=tensors,
            threads=threads,
        )
        show_rehearsal(
            "compare",
            job,
            metric=metric,
            fail_if=fail_if,
            reports=reports,
            github_summary=github_summary,
            track=track,
            force=force,
        )
        return
    result = judging.compare(
        first,
        second,
        data=data,
        labels=labels,
        metric=metric,
        samples=samples,
        seed=seed,
        preprocess=preprocess,
        skip_bad=skip_bad,
        tensors=tensors,
        threads=threads,
        fail_if=fail_if,
        reports=reports,
        github_summary=github_summary,
        track=track,
        force=force,
        progress=TerminalProgress(int(verbose)),
    )
    tell(result, as_json=as_json, verbose=verbose)
    raise_if_broken(result.gates)

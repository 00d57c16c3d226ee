"""Functions that make models, or what models are made from: quantize, tune, sensitivity, calibrate, merge, convert."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from qconvert.api.arguments import Choices, PathLike, Source, beside, data_if_any, data_of, path_of, recipe_of

if TYPE_CHECKING:
    from qconvert.calibrate.collect import CollectOptions
    from qconvert.calibrate.data import DataSpec
    from qconvert.calibrate.ranges_file import Origin
    from qconvert.calibration import Calibrated
    from qconvert.converting import Conversion
    from qconvert.pipeline import QuantizeJob
    from qconvert.progress import Progress
    from qconvert.recipe.recipe import Recipe
    from qconvert.report.model import Report
    from qconvert.sensitivity.analysis import Sensitivity
    from qconvert.tuning.tuning import Tuned


def quantize(
    model: PathLike,
    output: PathLike | None = None,
    *,
    calib: Source | None = None,
    ranges: PathLike | None = None,
    eval_data: Source | None = None,
    labels: PathLike | None = None,
    metric: str | None = None,
    recipe: Recipe | PathLike | None = None,
    samples: int | None = None,
    seed: int = 0,
    preprocess: str | None = None,
    skip_bad: int = 0,
    threads: int = 0,
    batch: int = 0,
    memory: int = 32,
    cache: PathLike | None = None,
    measure: bool = True,
    shard: int = 0,
    fail_if: Sequence[str] = (),
    reports: Sequence[PathLike] = (),
    github_summary: bool = False,
    track: Sequence[str] = (),
    track_model: bool = False,
    force: bool = False,
    progress: Progress | None = None,
    **choices: Unpack[Choices],
) -> Report:
    """Quantize a model, verify and measure the result, write it, and report.

    Args:
        model: the FP32 model.
        output: where to write; None is ``model.SCHEME.onnx`` beside it.
        calib: calibration data.
        ranges: statistics of :func:`calibrate` or :func:`merge`, in place of a pass over ``calib``.
        eval_data: samples to judge the result on; None holds out a part of ``calib``.
        labels, metric: labels of ``eval_data``, and what to compute from them.
        recipe: the choices, or a file that holds them; None is the default recipe.
        samples, seed: use so many of ``calib``, drawn with this seed.
        preprocess: what is done to images.
        skip_bad: how many damaged samples may be passed over.
        threads, batch, memory: how the pass over the data is run: samples at a time, samples in a run, MB of
            activations that a thread holds; 0 is chosen by qconvert.
        cache: a folder in which statistics are kept and found again.
        measure: False: do not run the models; for other schemes than int8.
        shard: most MB of a data file beside the model, 0 for no limit; for other schemes than int8.
        fail_if: gates, such as "top1_drop > 0.5%": judged in ``.gates`` of the report; :func:`require` raises.
        reports: files to write; the suffix decides the form. For .html, what each operator alone does to the outputs
            is measured, too, as :func:`sensitivity` does it.
        github_summary: append Markdown to the file that $GITHUB_STEP_SUMMARY names.
        track, track_model: what the run is logged with (docs/tracking.md), and whether the model is, too.
        force: replace files that exist.
        progress: told of long stages.
        choices: fields of the recipe that win over it (``scheme="w4"``, ``exclude=["Softmax"]``).

    Raises:
        ModelError, DataError: the model cannot be read, run or quantized; data or labels do not fit it.
        RecipeError: a choice, a gate or a form of report does not exist or does not go together with others.
        OutputError: the output cannot be written there. Nothing has been written after any of these.
    """
    from qconvert.evaluate.gates import metric_for
    from qconvert.outcome import outcome
    from qconvert.quantizing import quantize as run
    from qconvert.report.output import check_distinct

    chosen = recipe_of(recipe, choices)
    job = _job(
        model,
        output,
        chosen,
        calib=data_if_any(calib, samples=samples, seed=seed, preprocess=preprocess, skip_bad=skip_bad),
        eval_data=data_if_any(eval_data, seed=seed, preprocess=preprocess, skip_bad=skip_bad),
        labels=labels,
        force=force,
    )
    job = replace(
        job,
        ranges=path_of(ranges),
        options=_options(threads, batch, memory),
        cache=path_of(cache),
        measure=measure,
        shard=shard << 20,
    )
    check_distinct([("output", job.output), *(("reports", Path(path)) for path in reports)])
    settled = outcome(
        "quantize",
        fail_if=fail_if,
        reports=map(Path, reports),
        github_summary=github_summary,
        track=track,
        tracked_models=[job.output] if track_model else [],
        force=force,
        inputs=job.inputs,
    )
    job = replace(job, metric=metric_for(settled.gates, metric), examine=settled.shows_layers)
    return settled.settle(run(job, progress))


def tune(
    model: PathLike,
    output: PathLike | None = None,
    *,
    calib: Source,
    eval_data: Source | None = None,
    labels: PathLike | None = None,
    metric: str | None = None,
    recipe: Recipe | PathLike | None = None,
    max_drop: str | None = None,
    min_sqnr: float | None = None,
    time_budget: float | None = None,
    points: int = 8,
    reports: Sequence[PathLike] = (),
    samples: int | None = None,
    seed: int = 0,
    preprocess: str | None = None,
    skip_bad: int = 0,
    force: bool = False,
    progress: Progress | None = None,
    **choices: Unpack[Choices],
) -> Tuned:
    """Send the operators back to float that do most damage for the time they save, and write the best model.

    Args:
        model, output, calib, eval_data, labels, metric, recipe: as in :func:`quantize`.
        max_drop: most drop of the metric, in absolute points ("0.5%"); needs labels.
        min_sqnr: least SQNR of the outputs, in dB.
        time_budget: begin no trial that would end later than so many seconds after the start.
        points: models to measure, at least.
        reports: files to write on the best model and on the front; the suffix decides the form.
        samples, seed, preprocess, skip_bad, force, progress, choices: as in :func:`quantize`.

    Returns:
        The report, the front of the models that were tried, and a recipe that gives the chosen one again.
        :func:`require` raises where the budget was missed.

    Raises:
        ModelError, DataError, RecipeError, OutputError: as in :func:`quantize`.
    """
    from qconvert.outcome import outcome
    from qconvert.report.output import check_distinct
    from qconvert.tuning.budget import Budget
    from qconvert.tuning.tuning import TuneOptions
    from qconvert.tuning.tuning import tune as run

    job = _job(
        model,
        output,
        recipe_of(recipe, choices),
        calib=data_of(calib, samples=samples, seed=seed, preprocess=preprocess, skip_bad=skip_bad),
        eval_data=data_if_any(eval_data, seed=seed, preprocess=preprocess, skip_bad=skip_bad),
        labels=labels,
        force=force,
    )
    places = tuple(map(Path, reports))
    check_distinct([("output", job.output), *(("reports", place) for place in places)])
    settled = outcome("quantize", fail_if=(), reports=places, github_summary=False, force=force, inputs=job.inputs)
    budget = Budget(max_drop=max_drop, min_sqnr=min_sqnr)
    tuned = run(replace(job, metric=metric), budget, TuneOptions(points=points, seconds=time_budget), progress)
    settled.settle(tuned.report)
    return tuned


def sensitivity(
    model: PathLike,
    *,
    calib: Source,
    eval_data: Source | None = None,
    labels: PathLike | None = None,
    metric: str | None = None,
    recipe: Recipe | PathLike | None = None,
    samples: int | None = None,
    seed: int = 0,
    preprocess: str | None = None,
    skip_bad: int = 0,
    progress: Progress | None = None,
    **choices: Unpack[Choices],
) -> Sensitivity:
    """Find out what running each operator on integers does to the outputs; nothing is written.

    The arguments are those of :func:`quantize`, and so are the errors.
    """
    from qconvert.inputs import ConversionJob
    from qconvert.sensitivity.analysis import sensitivity as run

    job = ConversionJob(
        model=Path(model),
        calib=data_of(calib, samples=samples, seed=seed, preprocess=preprocess, skip_bad=skip_bad),
        recipe=recipe_of(recipe, choices),
        eval_data=data_if_any(eval_data, seed=seed, preprocess=preprocess, skip_bad=skip_bad),
        labels=path_of(labels),
        metric=metric,
    )
    return run(job, progress)


def calibrate(
    model: PathLike,
    output: PathLike | None = None,
    *,
    calib: Source,
    recipe: Recipe | PathLike | None = None,
    part: tuple[int, int] = (1, 1),
    samples: int | None = None,
    seed: int = 0,
    preprocess: str | None = None,
    skip_bad: int = 0,
    threads: int = 0,
    batch: int = 0,
    memory: int = 32,
    force: bool = False,
    progress: Progress | None = None,
    **choices: Unpack[Choices],
) -> Calibrated:
    """Run samples through a model and keep the statistics of its activations in a file.

    Args:
        model: the FP32 model.
        output: where to write; None is ``model.ranges.npz`` beside it.
        calib: calibration data.
        recipe: decides which tensors are observed, and how.
        part: (i, n): only the i-th of n shares of the samples (``--shard i/n``).
        samples, seed, preprocess, skip_bad, threads, batch, memory, force, progress, choices: as in :func:`quantize`.

    Raises:
        ModelError, DataError, RecipeError, OutputError: as in :func:`quantize`.
    """
    from qconvert.calibration import CalibrateJob
    from qconvert.calibration import calibrate as run

    job = CalibrateJob(
        model=Path(model),
        calib=data_of(calib, samples=samples, seed=seed, preprocess=preprocess, skip_bad=skip_bad),
        output=beside(model, ".ranges.npz") if output is None else Path(output),
        recipe=recipe_of(recipe, choices),
        shard=part,
        options=_options(threads, batch, memory),
        force=force,
    )
    return run(job, progress)


def merge(files: Sequence[PathLike], output: PathLike, *, force: bool = False, dry_run: bool = False) -> Origin:
    """Put statistics of :func:`calibrate` together: all shares of a calibration give the file that one run gives.

    Args:
        files: two or more.
        output: where to write.
        force: replace a file that exists.
        dry_run: write nothing.

    Raises:
        InputError: a file is unusable, they do not belong together, or the output cannot be written.
    """
    from qconvert.calibration import merge as run

    return run(tuple(map(Path, files)), Path(output), force=force, write=not dry_run)


def convert(
    model: PathLike,
    output: PathLike | None = None,
    *,
    to: str,
    data: Source | None = None,
    force: bool = False,
    dry_run: bool = False,
) -> Conversion:
    """Bring a quantized model into another form.

    Args:
        model: a model with QuantizeLinear and DequantizeLinear.
        output: where to write; None is ``model.FORM.onnx`` beside it.
        to: "qdq", "qoperator", "float" or "fp16".
        data: samples that both models are compared on; None makes random ones.
        force: replace a file that exists.
        dry_run: write nothing.

    Raises:
        ModelError, DataError: the model cannot be brought into that form, or the data do not fit it.
        RecipeError: there is no such form.
        OutputError: the output cannot be written there.
    """
    from qconvert.converting import ConvertJob
    from qconvert.converting import convert as run

    place = beside(model, f".{to}.onnx") if output is None else Path(output)
    spec = data_if_any(data)
    return run(ConvertJob(model=Path(model), output=place, to=to, data=spec, force=force, write=not dry_run))


def _job(
    model: PathLike,
    output: PathLike | None,
    recipe: Recipe,
    *,
    calib: DataSpec | None,
    eval_data: DataSpec | None,
    labels: PathLike | None,
    force: bool,
) -> QuantizeJob:
    """What ``quantize`` and ``tune`` have in common."""
    from qconvert.pipeline import QuantizeJob

    return QuantizeJob(
        model=Path(model),
        calib=calib,
        output=beside(model, f".{recipe.scheme.replace(':', '')}.onnx") if output is None else Path(output),
        recipe=recipe,
        eval_data=eval_data,
        labels=path_of(labels),
        force=force,
    )


def _options(threads: int, batch: int, memory: int) -> CollectOptions:
    from qconvert.calibrate.collect import CollectOptions

    return CollectOptions(threads=threads, batch=batch, budget=memory << 20)

"""Functions that look at models: inspect, compare, evaluate, bench, check; and require, which raises for gates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from qconvert.api.arguments import Choices, PathLike, Source, data_of, path_of, recipe_of

if TYPE_CHECKING:
    from qconvert.diagnose.diagnosis import Diagnosis
    from qconvert.evaluate.benchmark import Benchmark
    from qconvert.evaluate.comparison import ModelComparison
    from qconvert.evaluate.evaluation import Evaluation
    from qconvert.inspection import Inspection
    from qconvert.progress import Progress
    from qconvert.recipe.recipe import Recipe
    from qconvert.report.result import Result
    from qconvert.tuning.tuning import Tuned


def inspect(model: PathLike, *, recipe: Recipe | PathLike | None = None, **choices: Unpack[Choices]) -> Inspection:
    """Look into a model: what is in it, what would be quantized, and why the rest would stay float.

    Nothing is run, written or calibrated.

    Args:
        model: any ONNX model.
        recipe: plan with these choices.
        choices: fields of the recipe that win over it (``target="tensorrt"``).

    Raises:
        ModelError: the file cannot be read as a model.
        RecipeError: the recipe asks for what does not exist or does not go together.
    """
    from qconvert.inspection import inspect_model

    return inspect_model(Path(model), recipe_of(recipe, choices))


def compare(
    first: PathLike,
    second: PathLike,
    *,
    data: Source,
    labels: PathLike | None = None,
    metric: str | None = None,
    samples: int | None = None,
    seed: int = 0,
    preprocess: str | None = None,
    skip_bad: int = 0,
    tensors: bool = True,
    threads: int = 0,
    fail_if: Sequence[str] = (),
    reports: Sequence[PathLike] = (),
    github_summary: bool = False,
    track: Sequence[str] = (),
    force: bool = False,
    progress: Progress | None = None,
) -> ModelComparison:
    """Set a model against another, usually a quantized one against its original.

    Args:
        first, second: models with the same inputs, whoever quantized them.
        data: samples to run.
        labels, metric: labels of the samples, and what to compute from them; the metric follows from the labels' type.
        samples, seed: use so many, drawn with this seed.
        preprocess: what is done to images.
        skip_bad: how many damaged samples may be passed over.
        tensors: compare the tensors inside, too.
        threads: 0 is ONNX Runtime's choice.
        fail_if: gates, such as "top1_drop > 0.5%": judged in ``.gates`` of the result; :func:`require` raises.
        reports: files to write; the suffix decides the form.
        github_summary: append Markdown to the file that $GITHUB_STEP_SUMMARY names.
        track: where the run is logged (docs/tracking.md).
        force: replace reports that exist.
        progress: told of long stages.

    Raises:
        ModelError, DataError: a model cannot be run, or data or labels do not fit.
        RecipeError: a gate, a metric or a form of report does not exist.
        OutputError: a report cannot be written there.
    """
    from qconvert.evaluate.comparison import CompareJob
    from qconvert.evaluate.comparison import compare as run
    from qconvert.evaluate.gates import metric_for
    from qconvert.outcome import outcome

    job = CompareJob(
        reference=Path(first),
        other=Path(second),
        data=data_of(data, samples=samples, seed=seed, preprocess=preprocess, skip_bad=skip_bad),
        labels=path_of(labels),
        tensors=tensors,
        threads=threads,
    )
    settled = outcome(
        "compare",
        fail_if=fail_if,
        reports=map(Path, reports),
        github_summary=github_summary,
        track=track,
        force=force,
        inputs=job.inputs,
    )
    return settled.settle(run(replace(job, metric=metric_for(settled.gates, metric)), progress))


def evaluate(
    model: PathLike,
    *,
    data: Source,
    labels: PathLike | None = None,
    metric: str | None = None,
    samples: int | None = None,
    seed: int = 0,
    preprocess: str | None = None,
    skip_bad: int = 0,
    threads: int = 0,
    fail_if: Sequence[str] = (),
    reports: Sequence[PathLike] = (),
    github_summary: bool = False,
    track: Sequence[str] = (),
    force: bool = False,
    progress: Progress | None = None,
) -> Evaluation:
    """Run a model, float or quantized, on data: its metric, its outputs, the samples that it scores worst.

    The arguments are those of :func:`compare`, and so are the errors.
    """
    from qconvert.evaluate.evaluation import EvaluateJob
    from qconvert.evaluate.evaluation import evaluate as run
    from qconvert.evaluate.gates import metric_for
    from qconvert.outcome import outcome

    job = EvaluateJob(
        model=Path(model),
        data=data_of(data, samples=samples, seed=seed, preprocess=preprocess, skip_bad=skip_bad),
        labels=path_of(labels),
        threads=threads,
    )
    settled = outcome(
        "evaluate",
        fail_if=fail_if,
        reports=map(Path, reports),
        github_summary=github_summary,
        track=track,
        force=force,
        inputs=job.inputs,
    )
    return settled.settle(run(replace(job, metric=metric_for(settled.gates, metric)), progress))


def bench(
    *models: PathLike,
    data: PathLike | None = None,
    threads: int = 0,
    batch: int | None = None,
    dims: Mapping[str, int] | None = None,
    seconds: float = 5.0,
    rounds: int | None = None,
    fail_if: Sequence[str] = (),
    reports: Sequence[PathLike] = (),
    github_summary: bool = False,
    track: Sequence[str] = (),
    force: bool = False,
    progress: Progress | None = None,
) -> Benchmark:
    """Time models side by side; ratios are relative to the first.

    Args:
        models: the files.
        data: samples to run; None makes inputs from the signature.
        threads: 0 is ONNX Runtime's choice.
        batch: samples in each run.
        dims: sizes of symbolic dimensions of made inputs.
        seconds, rounds: time for all runs together, or an exact number of rounds.
        fail_if, reports, github_summary, track, force, progress: as in :func:`compare`.

    Raises:
        ModelError, DataError: a model cannot be run, they take different inputs, or the data do not fit.
        RecipeError: a gate, a size or a form of report does not exist.
        OutputError: a report cannot be written there.
    """
    from qconvert.evaluate.benchmark import BenchJob, benchmark
    from qconvert.outcome import outcome

    paths = tuple(map(Path, models))
    job = BenchJob(
        models=paths, data=path_of(data), threads=threads, batch=batch, dims=dims or {}, seconds=seconds, rounds=rounds
    )
    settled = outcome(
        "bench",
        fail_if=fail_if,
        reports=map(Path, reports),
        github_summary=github_summary,
        track=track,
        force=force,
        inputs=job.inputs,
        models=len(paths),
    )
    return settled.settle(benchmark(job, progress))


def check(
    model: PathLike, *, data: PathLike | None = None, isa: str | None = None, progress: Progress | None = None
) -> Diagnosis:
    """Examine a quantized model, whichever tool made it: each fault with its nodes, its cost and its cure.

    Args:
        model: any ONNX model.
        data: samples to run: real inputs for the times, and saturation is measured.
        isa: "vnni" or "avx2", the x86 processor that it is meant for; None is this machine.
        progress: told of long stages.

    Raises:
        ModelError, DataError: the file cannot be read as a model, or the data do not fit it.
        RecipeError: there is no such isa.
    """
    import qconvert.report.result  # noqa: F401  (notebooks show what it returns)
    from qconvert.diagnose.diagnosis import diagnose
    from qconvert.diagnose.isa import Isa
    from qconvert.errors import RecipeError
    from qconvert.registry import suggest

    known = [one.value for one in (Isa.VNNI, Isa.AVX2)]
    if isa is not None and isa not in known:
        raise RecipeError(f"unknown isa {isa!r}", hint=suggest(isa, known))
    return diagnose(Path(model), isa=Isa(isa) if isa is not None else None, data=path_of(data), progress=progress)


def require(result: Result | Tuned) -> None:
    """Raise where a gate of ``result`` is broken, or the budget of a search was missed.

    Raises:
        GateMissed: it names what was missed.
    """
    from qconvert.errors import GateMissed
    from qconvert.evaluate.gates import raise_if_broken
    from qconvert.tuning.tuning import Tuned

    if not isinstance(result, Tuned):
        raise_if_broken(result.gates)
    elif not result.front.met:
        raise GateMissed(f"{result.front.budget} was missed", hint="the best model that was found is written")

"""From one form of a model to another: ``qconvert convert``.

qdq         fake-quantized weights stored as integers, everything else as it was
qoperator   that, lowered to QLinearConv and the like
float       dequantized
fp16        that, in half precision

Both models are run and compared, but for those that are too large to run in little memory, where no data were given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from qconvert.calibrate.data import DataSpec, open_data_set
from qconvert.emit.cleanup import clean
from qconvert.emit.fake_quantization import absorb_relus, fold, foreign_ops, remove
from qconvert.emit.qoperator import lower_to_qoperator
from qconvert.errors import ModelError, RecipeError
from qconvert.evaluate.compare import Comparison, compare_models
from qconvert.graph.model import PROTO_LIMIT, Model, load, save
from qconvert.graph.prepare.canonical import prepare, prepare_large
from qconvert.graph.prepare.fold import fold_and_fuse
from qconvert.graph.quantized import quantized_ops
from qconvert.graph.session import Feed
from qconvert.graph.signature import session_of
from qconvert.graph.size import file_bytes
from qconvert.graph.spool import Spool
from qconvert.recipe.recipe import Recipe
from qconvert.registry import suggest
from qconvert.report.output import check_output
from qconvert.schemes.application import apply, least_opset

RANDOM = DataSpec(sources=("random:4",))


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertJob:
    """What to convert, to what, to where; ``data``: what both models are compared on, random where None; ``write``: or
    only find out what comes of it."""

    model: Path
    output: Path
    to: str
    data: DataSpec | None = None
    force: bool = False
    write: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """What came of it: bytes before and after, both models compared, on what; None and "" where they were not run."""

    before: int
    after: int
    comparison: Comparison | None
    source: str
    notes: tuple[str, ...]


def convert(job: ConvertJob) -> Conversion:
    """Convert, compare, write.

    Raises:
        InputError: the model cannot be brought into that form, the data do not fit, or the place is unusable.
    """
    if job.to not in FORMS:
        raise RecipeError(f"unknown form {job.to!r}", hint=suggest(job.to, tuple(FORMS)))
    check_output(job.output, force=job.force, inputs=(job.model,))
    source = load(job.model)
    quantized, foreign = quantized_ops(source), foreign_ops(source)
    if foreign:
        raise ModelError(
            f"{job.model} holds {', '.join(foreign[:4])}, which cannot be converted back",
            hint="convert the form with QuantizeLinear and DequantizeLinear that it was made from",
        )
    if not quantized and job.to in ("qdq", "qoperator", "float"):
        raise ModelError(
            f"{job.model} is a float model: it holds no QuantizeLinear",
            hint="`qconvert quantize` makes a quantized one; --to fp16 converts a float model",
        )
    if job.data is None and source.weight_bytes() > PROTO_LIMIT:
        return _unseen(job, source)
    spec = job.data or RANDOM
    reference = session_of(source)
    samples = open_data_set(spec, reference.inputs)
    try:
        reference.run(samples.feed(0))
    except ModelError as error:
        hint = error.hint if job.data else "it may not take made-up inputs: give samples of its own with --data"
        raise ModelError(error.message, hint=hint) from error
    model, notes = FORMS[job.to](source, samples.feed(0), None)
    comparison = compare_models(reference, session_of(model), iter(samples))
    if job.write:
        save(model, job.output)
    return Conversion(
        before=file_bytes(job.model, source),
        after=file_bytes(job.output, load(job.output)) if job.write else len(model.to_bytes()),
        comparison=comparison,
        source=spec.name,
        notes=notes,
    )


def _unseen(job: ConvertJob, source: Model) -> Conversion:
    """Convert a model that is not run, so that memory does not grow with it."""
    with Spool(parent=job.output.parent) as spool:
        model, notes = FORMS[job.to](source, None, spool)
        if job.write:
            save(model, job.output)
        after = file_bytes(job.output, load(job.output)) if job.write else model.weight_bytes()
    told = "the models were not run, which takes as much memory as they do: --data has them compared"
    return Conversion(
        before=file_bytes(job.model, source), after=after, comparison=None, source="", notes=(*notes, told)
    )


def _to_qdq(source: Model, feed: Feed | None, spool: Spool | None) -> tuple[Model, tuple[str, ...]]:
    del feed, spool
    folded = fold(source)
    note = f"{folded.weights} weights and {folded.biases} biases stored as integers"
    return clean(folded.model, source), (note,)


def _to_qoperator(source: Model, feed: Feed | None, spool: Spool | None) -> tuple[Model, tuple[str, ...]]:
    model, notes = _to_qdq(source, feed, spool)
    return clean(lower_to_qoperator(absorb_relus(model)), source), notes


def _to_float(source: Model, feed: Feed | None, spool: Spool | None) -> tuple[Model, tuple[str, ...]]:
    del feed, spool
    plain = remove(source)
    fold_and_fuse(plain.ir, rewrite=False)  # codes that are cast and scaled on loading, as those of an LSTM are
    return clean(plain, source), ()


def _to_half(source: Model, feed: Feed | None, spool: Spool | None) -> tuple[Model, tuple[str, ...]]:
    recipe = Recipe(scheme="fp16")
    plain = remove(source) if quantized_ops(source) else source
    least = least_opset(recipe)
    if feed is None:
        converted = apply(prepare_large(plain, min_opset=least), recipe, spool=spool)
    else:
        converted = apply(prepare(plain, feed, min_opset=least), recipe, trials=[feed], spool=spool)
    return converted.model, converted.notes


FORMS: Mapping[str, Callable[[Model, Feed | None, Spool | None], tuple[Model, tuple[str, ...]]]] = {
    "qdq": _to_qdq,
    "qoperator": _to_qoperator,
    "float": _to_float,
    "fp16": _to_half,
}

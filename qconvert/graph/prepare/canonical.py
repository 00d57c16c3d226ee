"""Bring a model into the form that the rest of qconvert reads: :func:`prepare`.

After it everything computes in float32, every node and value is named, functions are inlined, weights are initializers
(not Constant nodes, not chains of Identity/Transpose/Reshape over constants), BatchNormalization is folded where it can
be, Gemm has alpha = beta = 1 and a bias [N], and the opset suffices for the quantized form. When a feed is given, the
outputs before and after are compared; passes that change them are left out, one level after another.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import onnx
import onnx.inliner
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import (
    InlinePass,
    LiftConstantsToInitializersPass,
    NameFixPass,
    RemoveInitializersFromInputsPass,
    RemoveUnusedOpsetsPass,
)

from qconvert.errors import ModelError, QConvertError
from qconvert.graph.edit import remove_unused
from qconvert.graph.infer import infer_types
from qconvert.graph.model import Model
from qconvert.graph.prepare.affine import fold_affine
from qconvert.graph.prepare.attention import lighter_attention, tokens_first
from qconvert.graph.prepare.batchnorm import batchnorm_to_conv
from qconvert.graph.prepare.deconvolution import deconvolution_to_convolution
from qconvert.graph.prepare.duplicates import merge_equal_initializers
from qconvert.graph.prepare.fold import fold_and_fuse
from qconvert.graph.prepare.gemm import canonical_gemm, matmul_add_to_gemm, matmul_before_add_to_gemm
from qconvert.graph.prepare.hard_sigmoid import hard_sigmoid
from qconvert.graph.prepare.opset import lower_opset, raise_opset
from qconvert.graph.prepare.pooling import global_pooling
from qconvert.graph.prepare.prelu import prelu_to_max
from qconvert.graph.prepare.qkv import separate_projections
from qconvert.graph.prepare.shapes import constant_dimensions, constant_shapes, plain_expands, without_whole_slices
from qconvert.graph.prepare.shuffle import shuffle_to_gather
from qconvert.graph.prepare.sums import sum_to_add
from qconvert.graph.prepare.widen import widened
from qconvert.graph.session import Feed
from qconvert.graph.signature import session_of

# What a target may want written otherwise; each pass says what it has done.
_REWRITES: Mapping[str, tuple[str, Callable[[ir.Model], list[str]]]] = {
    "PRelu": ("taking PRelu apart", prelu_to_max),
    "ConvTranspose": ("writing ConvTranspose otherwise", deconvolution_to_convolution),
    "MatMul": ("turning heads", tokens_first),
}

# Two float32 graphs of the same function agree to about 1e-6; 60 dB (1e-3) is a different function.
MIN_AGREEMENT_DB = 60.0
# Float16 rounds to 2^-11, at every operator: 66 dB for one, 40 dB and less for nets of hundreds of layers.
MIN_WIDENED_DB = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A canonical model, what it was made from, and notes for the report.

    Attributes:
        model: canonical, FP32.
        source: as loaded.
        notes: what was done or left undone, and why.
        agreement_db: SQNR of the canonical model's outputs against the source's on one feed; None when not compared.
    """

    model: Model
    source: Model
    notes: tuple[str, ...]
    agreement_db: float | None = None


def prepare(
    source: Model,
    feed: Feed | None = None,
    *,
    min_opset: int = 13,
    outputs: Sequence[NDArray[np.generic]] | None = None,
    rewritten: frozenset[str] = frozenset(),
) -> Prepared:
    """Canonicalise ``source``; it is not changed.

    Args:
        source: an FP32 model.
        feed: inputs for the before-and-after comparison; None leaves it out.
        min_opset: least opset that the quantized form needs.
        outputs: of ``source`` on ``feed``, where they are known already.
        rewritten: operators that the target wants written otherwise
            (:attr:`~qconvert.targets.target.Target.rewritten`).

    Raises:
        ModelError: ONNX Runtime cannot run the model, or it cannot be brought to ``min_opset``.
    """
    given = outputs
    if given is None and feed is not None:
        given = session_of(source, optimize=False).run(feed)
    notes: list[str] = []
    flat = _inlined(source, notes)
    wide = _widened(flat, feed, given, notes)
    if wide is None:
        return _canonical(flat, source, feed, given, min_opset, rewritten, notes)
    model, reference, told = wide
    try:
        return _canonical(model, source, feed, reference, min_opset, rewritten, [*notes, told])
    except ModelError as error:
        notes.append(f"it stays in the precision that it is in: {error.message}")
        return _canonical(flat, source, feed, given, min_opset, rewritten, notes)


def _canonical(
    start: Model,
    source: Model,
    feed: Feed | None,
    reference: Sequence[NDArray[np.generic]] | None,
    min_opset: int,
    rewritten: frozenset[str],
    notes: list[str],
) -> Prepared:
    """:func:`prepare` of ``start``: ``source`` without functions and in float32, with the outputs ``reference``."""
    failure = "it could not be brought into canonical form"
    flat = lower_opset(start, notes)
    untrue = _untrue_shapes(flat.ir.graph, reference or ())
    for level in (3, 2, 1, 0):
        model = flat.clone()
        tried: list[str] = []
        try:
            _run_passes(model, level, min_opset, tried, untrue=untrue, rewritten=rewritten)
            if reference is None or feed is None:
                return Prepared(model=model, source=source, notes=tuple(notes + tried))
            db = agreement(reference, session_of(model, optimize=False).run(feed))
        except QConvertError as error:
            failure = error.message
            notes.append(f"simplification level {level} was left out: {failure}")
            continue
        if db >= MIN_AGREEMENT_DB:
            return Prepared(model=model, source=source, notes=tuple(notes + tried), agreement_db=db)
        if agreement(reference, session_of(start, optimize=False).run(feed)) < MIN_AGREEMENT_DB:
            note = "the model gives different results on the same input, so its canonical form was not compared"
            return Prepared(model=model, source=source, notes=(*notes, note, *tried), agreement_db=db)
        failure = f"its outputs change ({db:.1f} dB)"
        notes.append(f"simplification level {level} was undone: {failure}")
    raise ModelError(
        f"the model cannot be prepared at opset {min_opset}: {failure}",
        hint="convert it to a newer opset with the exporting framework, or use --per-tensor, which needs opset 10 only",
    )


def _widened(
    flat: Model, feed: Feed | None, reference: Sequence[NDArray[np.generic]] | None, notes: list[str]
) -> tuple[Model, Sequence[NDArray[np.generic]] | None, str] | None:
    """(``flat`` in float32, its outputs, what to tell of it) if it computes in 16-bit floats; None if it need not or
    cannot be, of which ``notes`` say why."""
    try:
        found = widened(flat)
    except Exception as error:  # onnx-ir raises anything on odd graphs
        notes.append(f"it could not be widened to float32: {type(error).__name__}: {str(error)[:200]}")
        return None
    if found is None:
        return None
    model, kind = found
    told = widening_note(kind)
    if feed is None or reference is None:
        return model, reference, told
    try:
        outputs = session_of(model, optimize=False).run(feed)
    except ModelError as error:
        notes.append(f"it stays in {kind}: {error.message}")
        return None
    pairs = [(a, b) for a, b in zip(reference, outputs, strict=True) if _is_float(a)]
    db = agreement([a for a, _ in pairs], [b for _, b in pairs])
    if db < MIN_WIDENED_DB and not model.is_random():
        notes.append(f"it stays in {kind}: in float32 its outputs are others ({db:.1f} dB)")
        return None
    return model, outputs, told


def _is_float(array: object) -> bool:
    return isinstance(array, np.ndarray) and np.issubdtype(array.dtype, np.floating)


def widening_note(kind: str) -> str:
    """What to tell of a model that computed in the 16-bit float type ``kind``."""
    return (
        f"the model computes in {kind}, which ONNX Runtime's CPU provider does in float32: it was widened to that; "
        f"inputs and outputs keep their types, and weights that stay float are stored in {kind} as before"
    )


def prepare_large(source: Model, *, min_opset: int = 13) -> Prepared:
    """The canonical form of a model that is too large to run here: level 0 of :func:`prepare`, and nothing is compared.

    Names, constants and the opset are brought into form; weights are not read, and types are what ONNX infers.

    Raises:
        ModelError: it cannot be brought to ``min_opset``.
    """
    notes: list[str] = []
    model = _inlined(source, notes).clone()
    found = widened(model, load=False)
    if found is not None:
        model = found[0]
        notes.append(widening_note(found[1]))
    _run_passes(model, 0, min_opset, notes, types=False)
    infer_types(model, load=False)
    return Prepared(model=model, source=source, notes=tuple(notes))


def _untrue_shapes(graph: ir.Graph, reference: Sequence[NDArray[np.generic]]) -> frozenset[str]:
    """The outputs that turn out to have another shape than the model declares: rewrites that believe it go wrong."""
    untrue = set[str]()
    for value, found in zip(graph.outputs, reference, strict=False):
        declared = value.shape
        if declared is None or not isinstance(found, np.ndarray):
            continue
        fixed = [(d, n) for d, n in zip(declared, found.shape, strict=False) if isinstance(d, int)]
        if len(declared) != found.ndim or any(d != n for d, n in fixed):
            untrue.add(value.name or "")
    return frozenset(untrue)


def _run_passes(
    model: Model,
    level: int,
    min_opset: int,
    notes: list[str],
    *,
    types: bool = True,
    untrue: frozenset[str] = frozenset(),
    rewritten: frozenset[str] = frozenset(),
) -> None:
    """Level 3: everything. 2: without onnxscript's rewrites. 1: without ours too. 0: names, constants, opset.

    The declared shapes of the outputs ``untrue`` are not to be relied on; they are kept as they are for the user.
    """
    run: list[tuple[str, Callable[[], object]]] = [
        ("removing initializers from the inputs", lambda: _drop_initializer_inputs(model.ir, notes)),
        ("naming nodes", lambda: NameFixPass()(model.ir)),
        ("raising the opset", lambda: raise_opset(model.ir, min_opset, notes)),
        ("lifting constants", lambda: LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model.ir)),
    ]
    if level >= 3:
        run.append(("inferring types", lambda: infer_types(model)))  # rewrite rules fail where they find none
        run.append(("making dimensions constant", lambda: constant_dimensions(model.ir)))
    if level >= 1:
        run.append(("folding constants", lambda: fold_and_fuse(model.ir, rewrite=level >= 3)))
    if level >= 2:
        run += [
            ("simplifying Expand", lambda: plain_expands(model.ir)),
            ("inferring types", lambda: infer_types(model)),
            ("making shapes constant", lambda: constant_shapes(model.ir)),
            ("removing slices of everything", lambda: without_whole_slices(model.ir)),
            ("canonicalising Sum", lambda: sum_to_add(model.ir)),
            ("canonicalising means over space", lambda: global_pooling(model.ir)),
            ("canonicalising channel shuffles", lambda: shuffle_to_gather(model.ir)),
            ("canonicalising HardSigmoid", lambda: hard_sigmoid(model.ir)),
            ("folding constant factors and summands", lambda: fold_affine(model.ir)),
            ("separating queries, keys and values", lambda: separate_projections(model.ir)),
            ("folding what attention can do without", lambda: lighter_attention(model.ir)),
            ("canonicalising BatchNormalization", lambda: batchnorm_to_conv(model.ir)),
            ("canonicalising MatMul + Add", lambda: matmul_add_to_gemm(model.ir)),
            ("canonicalising MatMul before Add", lambda: matmul_before_add_to_gemm(model.ir)),
            ("canonicalising Gemm", lambda: canonical_gemm(model.ir)),
            *(
                (what, lambda rewrite=rewrite: notes.extend(rewrite(model.ir)))
                for op_type, (what, rewrite) in _REWRITES.items()
                if op_type in rewritten
            ),
            ("merging equal initializers", lambda: merge_equal_initializers(model.ir)),
        ]
    run += [
        ("removing what nothing reads", lambda: remove_unused(model.ir)),
        ("removing operator sets that nothing uses", lambda: RemoveUnusedOpsetsPass()(model.ir)),
        ("naming nodes", lambda: NameFixPass()(model.ir)),
        ("raising the IR version", lambda: _raise_ir_version(model.ir)),
        *([("inferring types", lambda: infer_types(model))] if types else []),
    ]
    interface = [(v.name, v.type, v.shape) for v in (*model.ir.graph.inputs, *model.ir.graph.outputs)]
    for value in model.ir.graph.outputs:
        value.shape = None if value.name in untrue else value.shape
    for what, step in run:
        try:
            with _quiet():
                step()
        except QConvertError:
            raise
        except Exception as error:  # the libraries behind the passes raise anything on odd graphs
            raise ModelError(f"{what} failed: {type(error).__name__}: {str(error)[:200]}") from error
    _restore_interface(model.ir.graph, interface)


@contextmanager
def _quiet() -> Iterator[None]:
    """The passes warn of what they leave alone, which is no news to a user."""
    loggers = [logging.getLogger(name) for name in ("onnx_ir", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _restore_interface(
    graph: ir.Graph, interface: Iterable[tuple[str | None, ir.TypeProtocol | None, ir.Shape | None]]
) -> None:
    """Give inputs and outputs the types and dimension names that they were declared with."""
    declared = {name: (kind, shape) for name, kind, shape in interface}
    for value in (*graph.inputs, *graph.outputs):
        kind, shape = declared.get(value.name, (None, None))
        value.type = kind if kind is not None else value.type
        value.shape = shape.copy() if shape is not None else value.shape


def _inlined(source: Model, notes: list[str]) -> Model:
    """``source`` without local functions: by onnx-ir, or by ONNX where a function has an opset of its own."""
    if not source.ir.functions:
        return source
    copy = source.clone()
    try:
        InlinePass()(copy.ir)
        return copy
    except Exception:  # onnx-ir raises ValueError and its own kinds
        pass
    try:
        proto = onnx.load_model_from_string(source.to_bytes())
        flat = onnx.inliner.inline_local_functions(proto, convert_version=True)
        return Model(ir=ir.from_proto(flat), path=source.path)
    except Exception as error:
        notes.append(f"local functions could not be inlined and stay float: {str(error)[:200]}")
        return source


def _drop_initializer_inputs(model: ir.Model, notes: list[str]) -> None:
    """Old models (IR < 4) list every initializer among the inputs. They are defaults that a caller could override;
    a quantized weight cannot be, so they become plain constants."""
    both = [v.name for v in model.graph.inputs if v.is_initializer()]
    if both:
        RemoveInitializersFromInputsPass()(model)
        if model.ir_version >= 4:
            notes.append(f"{len(both)} initializers were also inputs; they are constants now and cannot be overridden")


def _raise_ir_version(model: ir.Model) -> None:
    """Initializers that are no inputs need IR 4, each opset its own least version."""
    opsets = [onnx.helper.make_opsetid(d, v) for d, v in model.opset_imports.items() if d in ("", "ai.onnx.ml")]
    model.ir_version = max(4, model.ir_version or 4, onnx.helper.find_min_ir_version_for(opsets, ignore_unknown=True))


def agreement(reference: Sequence[object], other: Sequence[object]) -> float:
    """SQNR in dB of ``other`` against ``reference``, pooled over float outputs; -inf when shapes or integers differ.

    Outputs that are no tensors (sequences) are not compared.
    """
    signal = noise = 0.0
    for a, b in zip(reference, other, strict=True):
        if not isinstance(a, np.ndarray) or not isinstance(b, np.ndarray):
            continue
        if a.shape != b.shape or a.dtype != b.dtype:
            return float("-inf")
        if not np.issubdtype(a.dtype, np.floating):
            if not np.array_equal(a, b):
                return float("-inf")
            continue
        x, y = a.astype(np.float64), b.astype(np.float64)
        both = np.isfinite(x) & np.isfinite(y)
        if not np.array_equal(np.isfinite(x), np.isfinite(y)):
            return float("-inf")
        signal += float((x[both] ** 2).sum())
        noise += float(((x[both] - y[both]) ** 2).sum())
    if noise == 0.0:
        return float("inf")
    return 10.0 * float(np.log10(signal / noise)) if signal > 0 else float("-inf")

"""Weights in 8-bit floating point (E4M3), arithmetic in float.

    w = s_n * code,    s_n = max |w| of the output channel / 448,    code FLOAT8E4M3FN

Of ONNX Runtime 1.32's CPU provider: Cast from FP8 works and is folded when the model is loaded; QuantizeLinear and
DequantizeLinear work, but are run each time (``--weight-format qdq``: runtimes with FP8 kernels, TensorRT for one, want
that form); no Gather, MatMul or Conv takes FP8, so activations in FP8 would be slower than float and are not offered.
With calibration data codes make up for each other's errors (gptq). ONNX operators Cast-19, DequantizeLinear-19.
"""

from __future__ import annotations

from collections.abc import Sequence

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from qconvert.emit.additions import Additions
from qconvert.emit.decoded_weights import DecodedEmitter
from qconvert.emit.sites import Kind, Site, find_sites, other_readers, shared
from qconvert.emit.ties import tie_tables
from qconvert.errors import RecipeError
from qconvert.numerics.codebooks import E4M3, E4M3_MOST, BookCodes
from qconvert.plan.model import Decision, NodePlan
from qconvert.recipe.recipe import AUTO, WHOLE_ROW, Recipe
from qconvert.rounding.books import BookSpec, fit
from qconvert.schemes.moments import SAMPLES, each_with_moments
from qconvert.schemes.scheme import SCHEMES, WEIGHT_CHOICES, Converted, Scheme, Work
from qconvert.schemes.tally import Tally

NAME = "fp8"
_SPEC = BookSpec(bits=8, book=E4M3)


def convert(work: Work) -> Converted:
    """Store the weights of the scheme's nodes as FP8."""
    model = work.model.clone()
    tie_tables(model)
    linear = work.recipe.weight_format == "qdq"
    emitter = DecodedEmitter(additions=Additions(model=model.ir, spool=work.spool))
    nodes: dict[str, NodePlan] = {}
    tally = Tally()
    groups = [g for g in shared(find_sites(model)).values() if NAME in {work.owner(s.name, s.node.op_type) for s in g}]
    taken: list[tuple[Site, ...]] = []
    for group in groups:
        objection = _objection(group, work)
        reason = objection or ("E4M3 weights, a scale for each channel" + (", stored once" if len(group) > 1 else ""))
        for site in group:
            if site.name not in nodes or not nodes[site.name].decision.taken:
                decision = Decision(taken=not objection, reason=reason)
                nodes[site.name] = NodePlan(node=site.name, op_type=site.node.op_type, decision=decision)
        if not objection:
            taken.append(group)
    samples = work.samples if work.recipe.rounding != "rtn" else None
    method = "gptq" if samples is not None else "rtn"
    turns = each_with_moments(taken, work.model, samples, (Kind.PRODUCT, Kind.CONVOLUTION))
    sizes = [group[0].bytes for group in taken]
    tracked = work.progress.track(turns, label=NAME, total=sum(sizes), size=lambda turn: sizes[turn[0]])
    for i, moments in tracked:
        site = taken[i][0]
        view = site.row_view()
        stored = fit(view, _SPEC, method, moments)
        tally.add_rows(view, stored.real_rows)
        codes, scale = _written(site, stored)
        emitter.write_fp8(site, codes, scale, linear=linear)
        site.unmap()
    unfolded = "at each run" if linear else "when it loads the model: memory and speed are those of the float model"
    return Converted(
        model=model,
        nodes=nodes,
        notes=(*tally.notes(), f"ONNX Runtime decodes E4M3 weights {unfolded}"),
        method="rounding to nearest" if samples is None else method,
        samples=min(SAMPLES, len(samples)) if samples is not None else 0,
    )


def _objection(group: Sequence[Site], work: Work) -> str:
    """Why a weight stays float, "" if it does not."""
    owners = {work.owner(s.name, s.node.op_type) for s in group}
    if len(owners) > 1:
        return f"its weight is shared with nodes of {', '.join(sorted(owners - {NAME}))}"
    if other := other_readers(tuple(group)):
        return f"{other} reads its weight, too"
    recipe = work.recipe
    parts = {recipe.embeddings} if any(s.kind is Kind.TABLE for s in group) else set()
    parts |= {recipe.lm_head} if any(s.is_head for s in group) else set()
    return "kept in float by --embeddings or --lm-head" if "float" in parts else ""


def _written(site: Site, codes: BookCodes) -> tuple[NDArray[np.generic], NDArray[np.float32]]:
    """(codes in the shape of the initializer, scale [N])."""
    scale = (codes.scale if codes.scale is not None else np.ones(1)) / np.float32(E4M3_MOST)
    fp8 = codes.codes.view(ml_dtypes.float8_e4m3fn)
    if site.kind is Kind.RECURRENT:
        return fp8.reshape(site.shape), scale.astype(np.float32)
    shape, axis = site.shape, site.axis
    moved = fp8.reshape(shape[axis], *(d for i, d in enumerate(shape) if i != axis))
    return np.ascontiguousarray(np.moveaxis(moved, 0, axis)), scale.astype(np.float32)


def _check(recipe: Recipe) -> None:
    if recipe.scheme != NAME:
        return  # the choices are meant for the scheme that this one is mixed into
    refusals = [
        (
            recipe.block not in (0, WHOLE_ROW),
            "fp8 has a scale for each output channel, not for blocks: its values have exponents of their own",
            "leave --block out, or use --scheme w8 --block N",
        ),
        (
            recipe.rounding not in (AUTO, "rtn", "gptq"),
            f"there is no rounding {recipe.rounding} for fp8, whose steps are uneven",
            f"give --rounding rtn or gptq, or --scheme w4 --rounding {recipe.rounding}",
        ),
        (
            recipe.weight_format == "nbits",
            "no operator of ONNX Runtime's CPU provider multiplies with FP8 weights",
            "leave --weight-format out (Cast), or give qdq (DequantizeLinear)",
        ),
        (
            recipe.per_channel is False or recipe.symmetric is False,
            "fp8 has a scale for each output channel and no zero points",
            "leave --per-tensor and --asymmetric out",
        ),
        (
            "w8" in (recipe.embeddings, recipe.lm_head),
            "fp8 is 8 bits wide already: tables and the output matrix need no form of their own",
            "leave it out, give float, or mix by node: --mix Gather=w8",
        ),
        (
            recipe.format != "qdq" or recipe.activations is not None,
            "fp8 is for weights: no operator of ONNX Runtime's CPU provider computes in FP8",
            "leave --format and --activations out, or use --scheme int8 for integer activations",
        ),
    ]
    for wrong, message, hint in refusals:
        if wrong:
            raise RecipeError(message, hint=hint)


SCHEMES.add(
    NAME,
    Scheme(
        name=NAME,
        convert=convert,
        least_opset=lambda recipe: 19,
        reads=WEIGHT_CHOICES - {"accuracy_level"},
        check=_check,
    ),
)

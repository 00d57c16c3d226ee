"""Weights in 8-bit floating point (E4M3), arithmetic in float.

    w = s_n * code,    s_n = max |w| of the output channel / 448,    code FLOAT8E4M3FN

Of ONNX Runtime 1.32's CPU provider: Cast from FP8 works and is folded when the model is loaded; QuantizeLinear and
DequantizeLinear work, but are run each time (``--weight-format qdq``: runtimes with FP8 kernels, TensorRT for one, want
that form); no Gather, MatMul or Conv takes FP8, so activations in FP8 would be slower than float and are not offered.
Micikevicius et al. 2022, FP8 formats for deep learning, arXiv:2209.05433; ONNX operators Cast-19, DequantizeLinear-19.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from qconvert.emit.additions import Additions
from qconvert.emit.decoded_weights import DecodedEmitter
from qconvert.emit.sites import Kind, Site, find_sites, other_readers, shared
from qconvert.emit.ties import tie_tables
from qconvert.errors import RecipeError
from qconvert.plan.model import Decision, NodePlan
from qconvert.recipe.recipe import AUTO, WHOLE_ROW, Recipe
from qconvert.schemes.scheme import SCHEMES, Converted, Scheme, Work
from qconvert.schemes.tally import Tally

NAME = "fp8"
MOST = 448.0
# Numbers that are rounded at once.
_PART = 1 << 22
_LEAST_SCALE = 1e-30


def convert(work: Work) -> Converted:
    """Store the weights of the scheme's nodes as FP8."""
    model = work.model.clone()
    tie_tables(model)
    linear = work.recipe.weight_format == "qdq"
    emitter = DecodedEmitter(additions=Additions(model=model.ir, spool=work.spool))
    nodes: dict[str, NodePlan] = {}
    tally = Tally()
    groups = [g for g in shared(find_sites(model)).values() if NAME in {work.owner(s.name, s.node.op_type) for s in g}]
    for group in work.progress.track(groups, label=NAME, total=len(groups)):
        objection = _objection(group, work)
        reason = objection or ("E4M3 weights, a scale for each channel" + (", stored once" if len(group) > 1 else ""))
        for site in group:
            if site.name not in nodes or not nodes[site.name].decision.taken:
                decision = Decision(taken=not objection, reason=reason)
                nodes[site.name] = NodePlan(node=site.name, op_type=site.node.op_type, decision=decision)
        if not objection:
            codes, scale = _round(group[0], tally)
            emitter.write_fp8(group[0], codes, scale, linear=linear)
            group[0].unmap()
    unfolded = "at each run" if linear else "when it loads the model: memory and speed are those of the float model"
    return Converted(
        model=model,
        nodes=nodes,
        notes=(*tally.notes(), f"ONNX Runtime decodes E4M3 weights {unfolded}"),
        method="rounding to nearest",
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


def _round(site: Site, tally: Tally) -> tuple[NDArray[np.generic], NDArray[np.float32]]:
    """(codes in the shape of the initializer, scale [N])."""
    view = site.row_view()
    codes = np.empty(view.shape, ml_dtypes.float8_e4m3fn)
    scale = np.empty(len(view), np.float32)
    for start, part in _parts(view):
        end = start + len(part)
        top = np.abs(part).max(axis=1) / np.float32(MOST)
        scale[start:end] = np.where(top < _LEAST_SCALE, 1.0, top)
        codes[start:end] = np.clip(part / scale[start:end, None], -MOST, MOST).astype(codes.dtype)
    tally.add_rows(view, lambda i, j: codes[i:j].astype(np.float32) * scale[i:j, None])
    if site.kind is Kind.RECURRENT:
        return codes.reshape(site.shape), scale
    shape, axis = site.shape, site.axis
    moved = codes.reshape(shape[axis], *(d for i, d in enumerate(shape) if i != axis))
    return np.ascontiguousarray(np.moveaxis(moved, 0, axis)), scale


def _parts(view: NDArray[np.float32]) -> Iterator[tuple[int, NDArray[np.float32]]]:
    step = max(1, _PART // max(1, view.shape[1]))
    for start in range(0, len(view), step):
        yield start, np.ascontiguousarray(view[start : start + step], np.float32)


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
            recipe.rounding not in (AUTO, "rtn"),
            f"fp8 is rounded to nearest; there is no {recipe.rounding} for it",
            "leave --rounding out, or use --scheme w4",
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
        check=_check,
    ),
)

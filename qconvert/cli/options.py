"""Options that several commands share, and the choices that registries offer (listed without importing them)."""

from __future__ import annotations

import importlib.util
import pkgutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from qconvert.cli.choices import Choice, RecipeFile

F = TypeVar("F", bound=Callable[..., Any])


def stacked(options: Sequence[Callable[[F], F]], function: F) -> F:
    """``function`` with ``options``, which --help lists in this order."""
    for option in reversed(options):
        function = option(function)
    return function


def names_in(package: str) -> tuple[str, ...]:
    """Names of the entries that the modules of ``package`` register, one each, found without importing any module.

    A module is named like its entry, ``-`` as ``_`` and ``:`` as ``__``.
    """
    spec = importlib.util.find_spec(package)
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    found = [m.name for m in pkgutil.iter_modules(places) if not m.name.startswith("_")]
    return tuple(sorted(name.replace("__", ":").replace("_", "-") for name in found))


# target.py is no target: it says what one is
TARGET_NAMES = tuple(name for name in names_in("qconvert.targets") if name != "target")


def target_option(function: F) -> F:
    """--target."""
    return click.option(
        "--target",
        type=Choice(list(TARGET_NAMES)),
        help="Runtime and processor that the model is made for; see `qconvert targets`.  [default: auto, this machine]",
    )(function)


def recipe_options(function: F) -> F:
    """The options that make up a recipe; each is None unless given, so that a recipe file shows through."""
    options = [
        target_option,
        click.option(
            "--scheme",
            type=Choice(list(names_in("qconvert.schemes.kinds"))),
            help="What to quantize to: static int8, static with 16-bit activations (a16w8, a16w4), dynamic, half "
            "precision, or weights only: in even steps (w8, w4, w2), of a codebook (palette:256, palette:16, nf4, "
            "fp4), in FP8, or signs (binary).  [default: int8]",
        ),
        click.option(
            "--format",
            "format_",
            type=Choice(["qdq", "qoperator"]),
            help="Form of the quantized graph.  [default: qdq]",
        ),
        click.option(
            "--per-channel/--per-tensor",
            "per_channel",
            default=None,
            help="One weight scale for each output channel, or one in all.  [default: the target's]",
        ),
        click.option(
            "--activations",
            type=Choice(["uint8", "int8", "uint16", "int16"]),
            help="Integer type of activations.  [default: the target's]",
        ),
        click.option(
            "--weights",
            type=Choice(["int8", "uint8", "int4"]),
            help="Integer type of weights.  [default: the target's]",
        ),
        click.option(
            "--symmetric/--asymmetric",
            "symmetric",
            default=None,
            help="Ranges of activations.  [default: the target's]",
        ),
        click.option(
            "--method",
            type=Choice(list(names_in("qconvert.calibrate.methods"))),
            help="How a range is made from calibration data.  [default: auto]",
        ),
        click.option(
            "--recover",
            multiple=True,
            type=Choice(["auto", "none", *names_in("qconvert.recover.passes")]),
            help="Accuracy recovery: all that helps, nothing, or these passes where they help (repeatable).  "
            "[default: auto]",
        ),
        click.option(
            "--placement",
            type=Choice(["measured", "static", "all"]),
            help="On integers runs what pays here, by timing; what pays by a table; or all that can.  "
            "[default: measured]",
        ),
        click.option(
            "--effort",
            type=Choice(["fast", "default", "max"]),
            help="How much recovery may cost; fast adds seconds, max tries everything.  [default: default]",
        ),
        click.option(
            "--block",
            type=int,
            metavar="N",
            help="Weights only: weights that share a scale, 16 to 256; -1: an output channel. Of palettes: output "
            "channels that share a codebook.  [default: 32; w8: -1; nf4, fp4: 64; palettes: all]",
        ),
        click.option(
            "--rounding",
            type=Choice(["auto", *names_in("qconvert.rounding.methods")]),
            help="w4, w2: how weights are rounded; gptq and awq use --calib. nf4, fp4: rtn, mse or gptq; palettes and "
            "binary: rtn or gptq.  [default: auto]",
        ),
        click.option(
            "--weight-format",
            type=Choice(["auto", "nbits", "qdq", "unpack"]),
            help="w8, w4, w2: MatMulNBits, DequantizeLinear of ONNX, or operators that ONNX Runtime computes when it "
            "loads the model (float speed and memory). nf4, fp4: MatMulBnb4, or such operators (qdq and unpack). fp8: "
            "qdq is DequantizeLinear, auto Cast.  [default: for blocks nbits; unpack for small products]",
        ),
        click.option(
            "--accuracy-level",
            type=int,
            metavar="0..4",
            help="Of MatMulNBits: 4 rounds activations to 8 bits, 1 computes in float.  [default: 4]",
        ),
        click.option(
            "--embeddings",
            type=Choice(["same", "w8", "float"]),
            help="Weights only: what embedding tables are stored in.  [default: same]",
        ),
        click.option(
            "--lm-head",
            type=Choice(["same", "w8", "float"]),
            help="Weights only: what the product that makes an output is stored in.  [default: same]",
        ),
        click.option(
            "--mix",
            multiple=True,
            metavar="PATTERN=SCHEME",
            help="Another scheme, or float, for nodes of this name, glob or operator type (repeatable).",
        ),
        click.option(
            "--include",
            multiple=True,
            metavar="PATTERN",
            help="Quantize only nodes of this name, glob or operator type (repeatable).",
        ),
        click.option(
            "--exclude",
            multiple=True,
            metavar="PATTERN",
            help="Leave nodes of this name, glob or operator type in float (repeatable).",
        ),
        click.option(
            "--recipe",
            "recipe_file",
            type=RecipeFile(path_type=Path),
            metavar="FILE",
            help="Take the choices from a YAML recipe, or one of `qconvert recipes` by name; flags win over it.",
        ),
    ]
    return stacked(options, function)


def verbosity_options(function: F) -> F:
    """-v and -q."""
    function = click.option("-q", "--quiet", is_flag=True, help="One line only.")(function)
    return click.option("-v", "--verbose", is_flag=True, help="Every decision, with its reason.")(function)


def pass_options(function: F) -> F:
    """--threads, --batch and --memory: how the pass over the calibration data is run; they do not change its result."""
    options = [
        click.option(
            "--threads",
            type=click.IntRange(min=0),
            default=0,
            metavar="N",
            help="Samples that are calibrated on at the same time.  [default: one for each processor, 8 at most]",
        ),
        click.option(
            "--batch",
            type=click.IntRange(min=0),
            default=0,
            metavar="N",
            help="Samples in one run, where that changes no bit of the result.  [default: chosen by measurement]",
        ),
        click.option(
            "--memory",
            type=click.IntRange(min=1),
            default=32,
            metavar="MB",
            help="Activations that one thread may hold at once; a wide model is observed in parts.  [default: 32]",
        ),
    ]
    return stacked(options, function)


def dry_run_option(what: str) -> Callable[[F], F]:
    """--dry-run, which says ``what`` and writes nothing."""
    return click.option("--dry-run", is_flag=True, help=f"Say {what}; write nothing.")


def given(choices: dict[str, object]) -> dict[str, object]:
    """The recipe fields that were given as flags."""
    named = {("format" if name == "format_" else name): value for name, value in choices.items()}
    return {name: value for name, value in named.items() if value is not None and value != ()}

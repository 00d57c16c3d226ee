"""What a scheme is: a name, what it refuses, and how it rewrites a model.

    convert(Work) -> Converted

``int8`` alone has no ``convert``: it is the static pipeline, which calibrates. A model may mix schemes: each is given
the nodes that are its own (:mod:`qconvert.schemes.assignment`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from qconvert.errors import RecipeError
from qconvert.graph.model import Model
from qconvert.graph.session import Feed
from qconvert.graph.spool import Spool
from qconvert.plan.model import NodePlan
from qconvert.progress import Progress, Silent
from qconvert.recipe.recipe import Recipe
from qconvert.recover.samples import Samples
from qconvert.registry import Registry

_PLAIN = Recipe()

Owner = Callable[[str, str], str]
"""(node name, operator type) -> the scheme that the node belongs to, "float" for none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a scheme rewrites.

    Attributes:
        model: canonical; not changed.
        recipe: the choices.
        owner: whose a node is.
        samples: calibration samples; None where there are no data.
        trials: some inputs, perhaps made up, on which the model runs.
        spool: where large weights are kept until the model is written; None: in memory.
        progress: told what goes on.
    """

    model: Model
    recipe: Recipe
    owner: Owner
    samples: Samples | None = None
    trials: Sequence[Feed] = ()
    spool: Spool | None = None
    progress: Progress = field(default_factory=Silent)


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """What came of it.

    Attributes:
        model: rewritten, not yet tidied up.
        nodes: decisions about the nodes that the scheme looked at, by name.
        notes: what was done or left undone, and why.
        method: how values were chosen, for the report ("gptq").
        samples: how many calibration samples were used.
    """

    model: Model
    nodes: Mapping[str, NodePlan]
    notes: tuple[str, ...] = ()
    method: str = ""
    samples: int = 0


def nothing_refused(recipe: Recipe) -> None:
    """The check of a scheme that goes with every choice."""
    del recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """A scheme.

    Attributes:
        name: as users write it.
        convert: rewrites a model; None for the static pipeline.
        least_opset: the least opset that ``recipe`` needs.
        opset_for: an opset at which a model becomes better, if it can be brought there; None: the least.
        reads: fields of a recipe that mean something to it, of those that not every scheme reads (``_SPECIAL``).
        check: raises RecipeError, with the nearest choice that works, where ``recipe`` asks for what cannot be.
    """

    name: str
    convert: Callable[[Work], Converted] | None
    least_opset: Callable[[Recipe], int]
    opset_for: Callable[[Recipe, Model], int] | None = None
    reads: frozenset[str] = frozenset()
    check: Callable[[Recipe], None] = nothing_refused


# field -> what those who do not read it have instead
_SPECIAL = {
    "block": "has no blocks of weights",
    "rounding": "rounds to nearest, by no method",
    "weight_format": "has one form of weights",
    "accuracy_level": "makes no MatMulNBits",
    "embeddings": "has no form of its own for embedding tables",
    "lm_head": "has no form of its own for the output matrix",
    "activations": "has no calibrated activations",
    "weights": "has weights of one type",
    "method": "calibrates no ranges",
    "recover": "has no recovery passes",
}
STATIC_CHOICES = frozenset({"activations", "weights", "method", "recover"})
WEIGHT_CHOICES = frozenset(_SPECIAL) - STATIC_CHOICES

SCHEMES: Registry[Scheme] = Registry("scheme")
SCHEMES.discover("qconvert.schemes.kinds")


def check_combination(recipe: Recipe) -> None:
    """Refuse choices that do not go together.

    Raises:
        RecipeError: which, and the nearest that works.
    """
    scheme = SCHEMES.get(recipe.scheme)
    scheme.check(recipe)
    mixed = {entry.rpartition("=")[2] for entry in recipe.mix}
    for name in sorted(mixed - {"float"}):
        SCHEMES.get(name).check(recipe)
    if recipe.format != "qdq" and "int8" not in {recipe.scheme, *mixed}:
        raise RecipeError(
            f"--scheme {recipe.scheme} has no QOperator form", hint="leave --format out, or use --scheme int8"
        )
    used = [SCHEMES.get(name) for name in (recipe.scheme, *sorted(mixed - {"float"}))]
    for name, instead in _SPECIAL.items():
        if getattr(recipe, name) != getattr(_PLAIN, name) and not any(name in s.reads for s in used):
            flag = f"--{name.replace('_', '-')}"
            able = ", ".join(s.name for s in SCHEMES if name in s.reads)
            raise RecipeError(
                f"{flag} does not go with --scheme {recipe.scheme}, which {instead}",
                hint=f"leave it out, or use one of the schemes that know it: {able}",
            )

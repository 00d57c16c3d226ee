"""Gates: conditions under which a run fails, as a user writes them.

    gate   = name operator number unit?        spaces are free
    name   = a quantity: sqnr, size_ratio, top1, top1_drop, ...
    operator = ">" | ">=" | "<" | "<="
    number = decimal, with sign and exponent if need be
    unit   = "%" | "x" | "dB" | "ms" | "MB"    as the quantity has, or left out

A run fails where the condition holds. "%" of a share (size_ratio, agreement, spearman) is a hundredth; of an accuracy
in percent it is a point. Text is only ever matched against this grammar, never evaluated.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from qconvert.errors import GateMissed, RecipeError
from qconvert.registry import suggest

_GATE = re.compile(r"\s*([A-Za-z]\w*)\s*(<=|>=|<|>)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*([%A-Za-z]*)\s*")
_TESTS: Mapping[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
_UNITS = ("%", "x", "dB", "ms", "MB")


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """Something that a gate can be about.

    Attributes:
        name: as in a gate.
        unit: "%" (0..100), "x", "dB", "ms", "MB", "share" (1 is 100 %), or "" for a bare number.
        what: it in a few words.
        metric: the metric that has to be computed for it; "" where none has.
    """

    name: str
    unit: str
    what: str
    metric: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """One condition.

    Attributes:
        text: as the user wrote it.
        quantity: what it is about.
        sign: the comparison.
        limit: what the quantity is compared with, in its own unit.
    """

    text: str
    quantity: Quantity
    sign: str
    limit: float

    def broken_by(self, value: float) -> bool:
        """Whether a run with this value fails; one without a number does."""
        return math.isnan(value) or _TESTS[self.sign](value, self.limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of a gate.

    Attributes:
        gate: the condition under which the run fails.
        quantity: what it is about.
        model: the model that it was applied to; "" where there is but one.
        value: what was found, in ``unit``; None where this run does not have it, which breaks the gate.
        unit: "%", "x", "dB", "ms", "MB", "share" or "".
        broken: the run fails.
    """

    gate: str
    quantity: str
    model: str
    value: float | None
    unit: str
    broken: bool


def parse_gate(text: str, known: Sequence[Quantity]) -> Gate:
    """The gate that ``text`` describes, about one of the ``known`` quantities.

    Raises:
        RecipeError: it is none; the hint lists the names, or says what a gate looks like.
    """
    match = _GATE.fullmatch(text)
    if match is None:
        raise RecipeError(
            f"--fail-if {text!r} is no condition",
            hint=f'write NAME > NUMBER, as in "top1_drop > 0.5%"; names: {", ".join(q.name for q in known)}',
        )
    name, sign, number, unit = match.groups()
    quantity = next((q for q in known if q.name == name), None)
    if quantity is None:
        hint = suggest(name, [q.name for q in known])
        raise RecipeError(f"--fail-if {text!r}: there is no quantity {name!r}", hint=hint)
    if not math.isfinite(float(number)):
        raise RecipeError(f"--fail-if {text!r}: {number} is too large a number", hint="give one that a value may reach")
    return Gate(text=text.strip(), quantity=quantity, sign=sign, limit=_limit(text, quantity, float(number), unit))


def judge(gates: Iterable[Gate], values: Mapping[str, float], *, model: str = "") -> tuple[Verdict, ...]:
    """What becomes of ``gates``.

    Args:
        gates: the conditions.
        values: name of a quantity -> its value, in its unit.
        model: the model that these are of, where there are several.
    """
    return tuple(
        Verdict(
            gate=gate.text,
            quantity=gate.quantity.name,
            model=model,
            value=values.get(gate.quantity.name),
            unit=gate.quantity.unit,
            broken=gate.broken_by(values.get(gate.quantity.name, math.nan)),
        )
        for gate in gates
    )


def metric_for(gates: Sequence[Gate], chosen: str | None) -> str | None:
    """The metric that ``gates`` are about; ``chosen`` by the user where they are about none.

    Raises:
        RecipeError: they are about another one than the user chose, or about several: a run computes one.
    """
    wanted = list(
        dict.fromkeys([*([chosen] if chosen else []), *(g.quantity.metric for g in gates if g.quantity.metric)])
    )
    if len(wanted) > 1:
        raise RecipeError(
            f"--metric and --fail-if ask for {' and '.join(wanted)}, but a run computes one metric",
            hint="run once for each metric",
        )
    return wanted[0] if wanted else None


def raise_if_broken(verdicts: Sequence[Verdict]) -> None:
    """End a run whose gates are broken.

    Raises:
        GateMissed: it names each of them.
    """
    broken = [v for v in verdicts if v.broken]
    if broken:
        raise GateMissed("--fail-if: " + "; ".join(map(told, broken)), hint="everything was measured and written first")


def told(verdict: Verdict) -> str:
    """top1_drop > 0.5% (it is 0.8 %)."""
    of = f" of {verdict.model}" if verdict.model else ""
    run = " in this run" if verdict.value is None else ""
    return f"{verdict.gate} ({verdict.quantity}{of} is {found(verdict)}{run})"


def found(verdict: Verdict) -> str:
    """The value of ``verdict``, or "unknown"; of a share in percent where the gate is: 30.27 %."""
    if verdict.value is None:
        return "unknown"
    if verdict.unit == "share" and verdict.gate.endswith("%"):
        return shown(100 * verdict.value, "%")
    return shown(verdict.value, verdict.unit)


def shown(value: float, unit: str) -> str:
    """A value with its unit, to four digits: 0.8 %, 38.21 dB, 1.8x."""
    number = f"{value:.4g}"
    return number if unit in ("", "share") else f"{number}{unit}" if unit == "x" else f"{number} {unit}"


def _limit(text: str, quantity: Quantity, number: float, unit: str) -> float:
    """``number`` in the quantity's unit."""
    if unit in ("", quantity.unit):
        return number
    if unit == "%" and quantity.unit == "share":
        return number / 100
    if unit == "x" and quantity.unit == "share":
        return number
    if unit not in _UNITS:
        raise RecipeError(f"--fail-if {text!r}: there is no unit {unit!r}", hint=f"units are {', '.join(_UNITS)}")
    own = {"": "has no unit", "share": 'is a share: write 0.3 or "30%"'}.get(quantity.unit, f"is in {quantity.unit}")
    raise RecipeError(f"--fail-if {text!r}: {quantity.name} {own}", hint="leave the unit out, or give the right one")

"""The grammar of --fail-if, and what becomes of a gate."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qconvert.errors import GateMissed, RecipeError
from qconvert.evaluate.gates import Quantity, judge, metric_for, parse_gate, raise_if_broken

KNOWN = (
    Quantity(name="top1_drop", unit="%", what="", metric="top1"),
    Quantity(name="psnr", unit="dB", what="", metric="psnr"),
    Quantity(name="size_ratio", unit="share", what=""),
    Quantity(name="speedup", unit="x", what=""),
    Quantity(name="mse", unit="", what="", metric="mse"),
)


@pytest.mark.parametrize(
    ("text", "name", "sign", "limit"),
    [
        ("top1_drop > 0.5%", "top1_drop", ">", 0.5),
        ("top1_drop>0.5", "top1_drop", ">", 0.5),
        ("  top1_drop >= -1 % ", "top1_drop", ">=", -1.0),
        ("psnr < 26 dB", "psnr", "<", 26.0),
        ("psnr<=.5", "psnr", "<=", 0.5),
        ("size_ratio > 30%", "size_ratio", ">", 0.3),
        ("size_ratio > 0.3x", "size_ratio", ">", 0.3),
        ("speedup < 1.2x", "speedup", "<", 1.2),
        ("mse > 1.5e-3", "mse", ">", 0.0015),
    ],
)
def test_conditions(text: str, name: str, sign: str, limit: float) -> None:
    gate = parse_gate(text, KNOWN)
    assert (gate.quantity.name, gate.sign) == (name, sign)
    assert gate.limit == pytest.approx(limit)
    assert gate.text == text.strip()


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("top1drop > 1", "no quantity 'top1drop'", "did you mean 'top1_drop'? valid names: top1_drop, psnr"),
        ("latency > 1", "no quantity 'latency'", "valid names: top1_drop, psnr, size_ratio"),
        ("top1_drop", "is no condition", "names: top1_drop, psnr"),
        ("", "is no condition", "names: top1_drop, psnr"),
        ("top1_drop > 1 or True", "is no condition", "NAME > NUMBER"),
        ("top1_drop == 1", "is no condition", "NAME > NUMBER"),
        ("0 < top1_drop", "is no condition", "NAME > NUMBER"),
        ("__import__('os') > 1", "is no condition", "NAME > NUMBER"),
        ("top1_drop > nan", "is no condition", "NAME > NUMBER"),
        ("top1_drop > 0.5 dB", "top1_drop is in %", "leave the unit out"),
        ("psnr < 10%", "psnr is in dB", "leave the unit out"),
        ("mse > 1%", "mse has no unit", "leave the unit out"),
        ("speedup < 10 apples", "no unit 'apples'", "units are %, x, dB, ms, MB"),
    ],
)
def test_mistakes_are_errors_that_list_the_names(text: str, message: str, hint: str) -> None:
    with pytest.raises(RecipeError) as error:
        parse_gate(text, KNOWN)
    assert message in error.value.message
    assert hint in error.value.hint
    assert error.value.exit_code == 2


@given(st.text(max_size=40) | st.from_regex(r"\w{0,12} ?[<>=]{0,2} ?[-+.\deE%]{0,12}", fullmatch=True))
def test_any_text_is_a_gate_or_an_error(text: str) -> None:
    try:
        gate = parse_gate(text, KNOWN)
    except RecipeError as error:
        assert error.hint
    else:
        assert math.isfinite(gate.limit) or "e" in text.lower()


@given(st.floats(allow_nan=False), st.sampled_from(["<", "<=", ">", ">="]))
def test_a_gate_and_its_opposite(value: float, sign: str) -> None:
    opposite = {"<": ">=", ">=": "<", ">": "<=", "<=": ">"}[sign]
    gate, other = (parse_gate(f"mse {s} 1.5", KNOWN) for s in (sign, opposite))
    assert gate.broken_by(value) != other.broken_by(value)
    assert gate.broken_by(math.nan)
    assert other.broken_by(math.nan)


def test_a_run_fails_on_what_it_does_not_know() -> None:
    gates = [parse_gate(text, KNOWN) for text in ("psnr < 20", "speedup < 1", "top1_drop > 1%")]
    verdicts = judge(gates, {"psnr": 26.0, "speedup": 0.5})
    assert [(v.quantity, v.value, v.broken) for v in verdicts] == [
        ("psnr", 26.0, False),
        ("speedup", 0.5, True),
        ("top1_drop", None, True),
    ]
    with pytest.raises(GateMissed) as error:
        raise_if_broken(verdicts)
    assert error.value.exit_code == 3
    assert "speedup < 1 (speedup is 0.5x)" in error.value.message
    assert "top1_drop > 1% (top1_drop is unknown in this run)" in error.value.message
    assert "psnr" not in error.value.message
    raise_if_broken(verdicts[:1])


def test_gates_choose_the_metric() -> None:
    psnr, top1, plain = (parse_gate(text, KNOWN) for text in ("psnr < 20", "top1_drop > 1", "speedup < 1"))
    assert metric_for([psnr, plain], None) == "psnr"
    assert metric_for([plain], "mse") == "mse"
    assert metric_for([plain], None) is None
    assert metric_for([psnr], "psnr") == "psnr"
    for gates, chosen in (([psnr, top1], None), ([psnr], "mse")):
        with pytest.raises(RecipeError, match="one metric"):
            metric_for(gates, chosen)

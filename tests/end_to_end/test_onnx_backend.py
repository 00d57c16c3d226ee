"""The ONNX project's own test cases: every operator in every form. Each model that ONNX Runtime runs is quantized, and
then near its original, or refused with a reason; none is quantized wrongly, and none breaks anything.

There are 2200 cases, many of which differ in an attribute or a type only. A plain run takes two of each set of
operators, which is every operator and every graph of several; with QCONVERT_BACKEND=all (``make test-backend``), all.
"""

from __future__ import annotations

import os
from collections import defaultdict
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest
from end_to_end.backend import BackendCase, folder_cases, node_cases, outcomes, with_constants

from qconvert.recipe.recipe import Recipe

RECIPES = {
    "default": Recipe(placement="static"),  # timing 1900 models would take hours
    "all, qdq": Recipe(placement="all"),
    "all, qoperator": Recipe(placement="all", format="qoperator"),
}

# Right is 25 dB and more (8 bits give 40 to 50 on a tensor with an even spread); wrong graphs give 5 and less.
LEAST_DB = 15.0

# (case, recipe) -> why fewer dB are to be expected
EXCEPTIONS = {
    ("test_*softmax_large_number*", "all*"): "inputs 0..10003 and 10000..10003: no 8-bit range resolves steps of 1",
    ("test_attention_*neginf_mask_poison_expanded*", "*"): "values 0..1 beside 1000 in each column of the constant V; "
    "what the 1000 are masked out for, the range cannot know",
}

# Operators that read weights: their cases are run once more with all inputs but the first as constants.
WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "MatMul", "Gather"}
PARTS = 8
MOST_OF_A_KIND = 2


@cache
def every_case() -> list[BackendCase]:
    plain = [*node_cases(), *folder_cases()]
    weighted = [case for case in plain if WEIGHTED & operators(case)]
    return plain + [changed for case in weighted if (changed := with_constants(case)) is not None]


def operators(case: BackendCase) -> frozenset[str]:
    return frozenset(node.op_type for node in case.model.graph.node)


@cache
def cases() -> list[BackendCase]:
    """What is run: ``MOST_OF_A_KIND`` of the cases with the same operators and as constant inputs, evenly spaced."""
    if os.environ.get("QCONVERT_BACKEND") == "all":
        return every_case()
    kinds: dict[tuple[frozenset[str], bool], list[BackendCase]] = defaultdict(list)
    for case in every_case():
        kinds[operators(case), case.name.endswith("[constants]")].append(case)
    return [case for kind in kinds.values() for case in kind[:: -(-len(kind) // MOST_OF_A_KIND)]]


def complaints(part: int, folder: Path, totals: dict[str, int]) -> list[str]:
    """What is wrong with every ``PARTS``-th case; counts what was converted."""
    found = []
    for i, case in enumerate(cases()[part::PARTS]):
        # with everything on integers it is either form in turn: the plans are the same
        names = ("default", ("all, qdq", "all, qoperator")[i % 2])
        for name, outcome in zip(names, outcomes(case, [RECIPES[n] for n in names], folder), strict=True):
            problems = list(outcome.faults)
            if outcome.sqnr_db is not None:
                totals[name] += 1
                if outcome.sqnr_db < LEAST_DB and not expected(case.name, name):
                    problems.append(f"{outcome.sqnr_db:.1f} dB")
            found += [f"{case.name}, {name}: {problem}" for problem in problems]
    return found


def expected(case: str, recipe: str) -> bool:
    """Whether few dB are what this case is known for."""
    plain = case.removesuffix(" [constants]")
    return any(fnmatch(plain, c) and fnmatch(recipe, r) for c, r in EXCEPTIONS)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_converted_well_or_refused(part: int, tmp_path: Path) -> None:
    totals = dict.fromkeys(RECIPES, 0)
    found = complaints(part, tmp_path, totals)
    assert not found, f"{len(found)} complaints:\n" + "\n".join(found)
    # a quarter of the cases can be quantized somehow; none at all would mean that this test tests nothing
    assert totals["default"] >= 3 and totals["all, qdq"] >= 6 and totals["all, qoperator"] >= 6, totals


def test_the_cases_are_there() -> None:
    """A version of the onnx package without its test cases would let everything pass, and so would a thin choice."""
    assert len(every_case()) > 1900
    assert sum(case.name.endswith("[constants]") for case in every_case()) > 80
    assert len(cases()) > 500
    assert {operators(c) for c in cases()} == {operators(c) for c in every_case()}

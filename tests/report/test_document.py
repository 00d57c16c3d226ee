"""The JSON documents, and the schemas that describe them.

``schema/*.json`` are generated from the dataclasses of the results, with the descriptions of their docstrings;
UPDATE_GOLDEN=1 writes them anew. A field that goes away or changes its type also needs a new SCHEMA_VERSION.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import jsonschema
import numpy as np
import pytest

import qconvert.report.document
from qconvert.errors import InternalError, RecipeError
from qconvert.report.document import LEFT_OUT, to_document, to_plain
from qconvert.report.model import SCHEMA_VERSION, Report
from qconvert.report.renderer import RENDERERS, renderer_for
from qconvert.report.result import KINDS

SCHEMAS = Path(qconvert.report.document.__file__).with_name("schema")
NULL = (
    "Numbers that are not finite are null. A null sqnr_db or worst_sqnr_db means no error at all if max_abs_error is "
    "0, not a number if numeric is false, and nothing in common otherwise."
)
SCALARS = {str: "string", int: "integer", float: "number", bool: "boolean"}


# ---- from dataclasses to a schema


def schema_of(kind: Any, defs: dict[str, Any]) -> dict[str, Any]:
    if kind in SCALARS:
        # any float can be infinite, which is null
        return {"type": ["number", "null"]} if kind is float else {"type": SCALARS[kind]}
    if kind is object:
        return {}
    origin, args = get_origin(kind), get_args(kind)
    if origin in (types.UnionType, Union):
        (inner,) = [a for a in args if a is not type(None)]
        found = schema_of(inner, defs)
        if isinstance(found.get("type"), str):
            return {**found, "type": [found["type"], "null"]}
        return found if "null" in found.get("type", ()) else {"anyOf": [found, {"type": "null"}]}
    if origin is tuple and len(args) == 2 and args[1] is Ellipsis:
        return {"type": "array", "items": schema_of(args[0], defs)}
    if origin is tuple:
        return {
            "type": "array",
            "items": schema_of(args[0], defs),
            "minItems": len(args),
            "maxItems": len(args),
        }
    if inspect.isclass(origin) and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": schema_of(args[1], defs)}
    assert is_dataclass(kind), kind
    if kind.__name__ not in defs:
        defs[kind.__name__] = {}  # its place, before those of its fields
        defs[kind.__name__] = object_schema(kind, defs)
    return {"$ref": f"#/$defs/{kind.__name__}"}


def object_schema(kind: Any, defs: dict[str, Any]) -> dict[str, Any]:
    hints, said = get_type_hints(kind), descriptions(kind)
    names = [f.name for f in fields(kind) if f.name not in LEFT_OUT]
    properties = {n: schema_of(hints[n], defs) | ({"description": said[n]} if n in said else {}) for n in names}
    summary = inspect.cleandoc(kind.__doc__).split("\n\n")[0].replace("\n", " ")
    return {"type": "object", "description": summary, "properties": properties, "required": names}


def descriptions(kind: Any) -> dict[str, str]:
    """Field -> text of the docstring's section "Attributes"; a line may describe several fields: "p10, p90: ..."."""
    _, _, section = inspect.cleandoc(kind.__doc__).partition("Attributes:\n")
    found: dict[str, str] = {}
    for entry in re.split(r"\n(?=    \S)", "\n" + section.rstrip()):
        names, _, text = entry.strip().partition(":")
        for name in names.split(","):
            found[name.strip()] = " ".join(text.split())
    return found


def generated(command: str) -> dict[str, Any]:
    defs: dict[str, Any] = {}
    top = object_schema(KINDS[command], defs)
    head = {"schema_version": {"const": SCHEMA_VERSION}, "command": {"const": command}}
    top["properties"] = {**head, **top["properties"]}
    top["required"] = list(top["properties"])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"qconvert {command} --json, version {SCHEMA_VERSION}",
        "$comment": f"{NULL} Later versions of qconvert may add properties.",
        **top,
        "$defs": defs,
    }


@pytest.mark.parametrize("command", KINDS)
def test_the_schema_is_that_of_the_dataclasses(command: str) -> None:
    text, path = json.dumps(generated(command), indent=2) + "\n", SCHEMAS / f"{command}.json"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == text, "if the change is meant: UPDATE_GOLDEN=1 make unit"


def test_every_schema_is_of_a_command() -> None:
    assert {p.stem for p in SCHEMAS.iterdir()} == set(KINDS)


# ---- documents against the schemas


def schema(command: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((SCHEMAS / f"{command}.json").read_text(encoding="utf-8"))
    return found


def strict(part: Any) -> Any:
    """A schema that takes no property it does not know; users' validators let those of later versions pass."""
    if isinstance(part, list):
        return [strict(item) for item in part]
    if not isinstance(part, dict):
        return part
    closed = {key: strict(value) for key, value in part.items()}
    return {"additionalProperties": False, **closed} if isinstance(part.get("properties"), dict) else closed


def complaints(document: object) -> list[str]:
    """What jsonschema has to say of a document of any command."""
    assert isinstance(document, dict)
    validator = jsonschema.Draft202012Validator(strict(schema(document["command"])))
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]


@pytest.mark.parametrize("command", KINDS)
def test_a_schema_is_one(command: str) -> None:
    jsonschema.Draft202012Validator.check_schema(schema(command))


@pytest.mark.parametrize("name", ["classifier", "detector", "comparison", "evaluation", "timings"])
def test_a_document_obeys_its_schema(name: str, request: pytest.FixtureRequest) -> None:
    text = RENDERERS.get("json").render(request.getfixturevalue(name))
    assert complaints(json.loads(text)) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("schema_version",), 99),
        (("latency", "fp32", "median_ms"), "fast"),
        (("verification", "loads"), 1),
        (("decisions", 0), {"node": "a"}),
        (("accuracy", "comparison", "fidelity", "outputs", 0, "reference_range"), [1.0]),
        (("model", "by_kind", "graph"), 0.5),
        (("surprise",), 1),
    ],
)
def test_the_schema_sees_a_wrong_document(classifier: Report, path: tuple[Any, ...], value: object) -> None:
    document = json.loads(json.dumps(to_document(classifier)))
    place = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    assert complaints(document)


# ---- the document


def test_infinity_is_null_and_every_run_is_left_out(detector: Report) -> None:
    document: Any = to_document(detector)
    kept = document["accuracy"]["comparison"]["fidelity"]["outputs"][9]
    assert (kept["name"], kept["sqnr_db"], kept["equal"], kept["max_abs_error"]) == ("kept", None, True, 0.0)
    assert "times_ms" not in json.dumps(document)
    assert next(iter(document)) == "schema_version"
    assert document["verification"]["census"]["boundaries"][0] == "boundary_0"


def test_numbers_survive_exactly(classifier: Report) -> None:
    speedup = replace(classifier.latency.speedup, median=1 / 3)
    report = replace(classifier, latency=replace(classifier.latency, speedup=speedup))
    assert json.loads(RENDERERS.get("json").render(report))["latency"]["speedup"]["median"] == 1 / 3


def test_numpy_and_paths_become_plain() -> None:
    value = {
        "a": np.float32(0.5),
        "b": np.arange(3),
        "c": (np.int64(7), Path("x")),
        "d": np.float64("nan"),
        "e": {"z", "y"},
    }
    assert to_plain(value) == {"a": 0.5, "b": [0, 1, 2], "c": [7, "x"], "d": None, "e": ["y", "z"]}


def test_what_json_cannot_hold_is_a_defect() -> None:
    with pytest.raises(InternalError, match="complex"):
        to_plain({"a": 1j})


def test_a_name_that_is_not_utf8_can_be_written(classifier: Report) -> None:
    report = replace(classifier, notes=("caf\udce9 \u00e9",))
    text = RENDERERS.get("json").render(report)
    assert text.isascii()
    assert json.loads(text)["notes"] == ["caf\udce9 \u00e9"]


# ---- the registry


def test_the_suffix_finds_the_renderer() -> None:
    assert renderer_for(Path("out/report.JSON")).name == "json"
    assert renderer_for(Path("report.txt")).name == "text"


@pytest.mark.parametrize("path", ["report.pdf", "report"])
def test_an_unknown_suffix_lists_the_known(path: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(path)) as error:
        renderer_for(Path(path))
    assert ".json" in error.value.hint
    assert ".txt" in error.value.hint

"""Checks data against the part of JSON Schema (draft 2020-12) that the project's schemas use, told as one sentence.

Slicer's Python has no ``jsonschema``; the tests compare this with that package.
"""

from __future__ import annotations

import math
import re

_TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}


def first_problem(data: object, schema: dict, root: dict | None = None, place: str = "") -> str | None:
    """The first thing in which ``data`` breaks ``schema``, as ``"views[0].name is missing"``; None when it keeps it.

    Known: type, const, enum, required, properties, additionalProperties (false), items, minItems, maxItems, minLength,
    pattern, minimum, maximum, exclusiveMinimum, allOf, oneOf, ``$ref`` to ``#/$defs``.
    """
    root = schema if root is None else root
    if "$ref" in schema:
        return first_problem(data, root["$defs"][schema["$ref"].rsplit("/", 1)[1]], root, place)
    here = place or "the file"
    if "type" in schema and not any(_is(data, t) for t in ([schema["type"]] if isinstance(schema["type"], str) else schema["type"])):
        return f"{here} is not of type {schema['type'] if isinstance(schema['type'], str) else ' or '.join(schema['type'])}"
    if "const" in schema and not _same(data, schema["const"]):
        return f"{here} is '{data}' instead of '{schema['const']}'"
    if "enum" in schema and not any(_same(data, value) for value in schema["enum"]):
        return f"{here} is '{data}', none of {', '.join(map(str, schema['enum']))}"
    for check in (_object, _array, _scalar):
        problem = check(data, schema, root, place, here)
        if problem:
            return problem
    for part in schema.get("allOf", []):
        if problem := first_problem(data, part, root, place):
            return problem
    return _one_of(data, schema, root, place, here)


def _same(data: object, value: object) -> bool:
    return data == value and isinstance(data, bool) == isinstance(value, bool)  # Python's True equals 1, JSON's does not


def _is(data: object, kind: str) -> bool:
    if kind in ("number", "integer"):
        whole = kind == "number" or (isinstance(data, int) or (isinstance(data, float) and data.is_integer()))
        return isinstance(data, (int, float)) and not isinstance(data, bool) and math.isfinite(data) and whole
    return isinstance(data, _TYPES[kind])


def _object(data: object, schema: dict, root: dict, place: str, here: str) -> str | None:
    if not isinstance(data, dict):
        return None
    known, start = schema.get("properties", {}), f"{place}." if place else ""
    for key in schema.get("required", []):
        if key not in data:
            return f"{start}{key} is missing"
    if schema.get("additionalProperties") is False and (extra := sorted(set(data) - set(known))):
        return f"{start}{extra[0]} is not known"
    for key, part in known.items():
        if key in data and (problem := first_problem(data[key], part, root, start + key)):
            return problem
    return None


def _array(data: object, schema: dict, root: dict, place: str, here: str) -> str | None:
    if not isinstance(data, list):
        return None
    if not schema.get("minItems", 0) <= len(data) <= schema.get("maxItems", math.inf):
        return f"{here} has {len(data)} items"
    for n, item in enumerate(data):
        if "items" in schema and (problem := first_problem(item, schema["items"], root, f"{place}[{n}]")):
            return problem
    return None


def _scalar(data: object, schema: dict, root: dict, place: str, here: str) -> str | None:
    if isinstance(data, str):
        if len(data) < schema.get("minLength", 0):
            return f"{here} is too short"
        if "pattern" in schema and not re.search(schema["pattern"], data):
            return f"{here} is '{data}', which does not fit {schema['pattern']}"
    if isinstance(data, (int, float)) and not isinstance(data, bool):
        low, above = schema.get("minimum", -math.inf), schema.get("exclusiveMinimum", -math.inf)
        if data < low or data <= above or data > schema.get("maximum", math.inf):
            return f"{here} is {data}, out of range"
    return None


def _one_of(data: object, schema: dict, root: dict, place: str, here: str) -> str | None:
    if "oneOf" not in schema:
        return None
    problems = [first_problem(data, part, root, place) for part in schema["oneOf"]]
    if problems.count(None) == 1:
        return None
    return next((p for p in problems[::-1] if p), f"{here} fits more than one form")

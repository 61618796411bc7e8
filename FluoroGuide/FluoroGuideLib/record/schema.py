"""Checks a record against its JSON Schema, without a package that Slicer lacks.

Only the words that ``procedure_record.schema.json`` uses are known; any other word in a schema is an error, so that the
schema cannot grow past its checker.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache

from ..errors import FluoroGuideError
from ..resources import RESOURCES

SCHEMA_PATH = RESOURCES / "procedure_record.schema.json"
TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
SAYS_NOTHING = {"$schema", "$defs", "title", "description"}
MOST_PROBLEMS = 20


@lru_cache(maxsize=1)
def record_schema() -> dict:
    """The schema of records."""
    try:
        return json.loads(SCHEMA_PATH.read_text(encoding="utf-8"))
    except OSError as error:
        raise FluoroGuideError("The schema of records is missing", error.strerror, "Install FluoroGuide again") from None


VALUES = {"enum", "const", "pattern", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minLength", "maxLength"}
"""Words about values rather than their kind: a record that breaks them is invalid but can still be shown, and nothing of it is lost."""


@lru_cache(maxsize=1)
def kinds_schema() -> dict:
    """The schema of records without its limits of values: what a record must fit to be read at all."""
    def stripped(rule: object) -> object:
        if isinstance(rule, dict):
            kept = {
                k: ({n: stripped(r) for n, r in v.items()} if k in ("properties", "$defs") else stripped(v))
                for k, v in rule.items() if k not in VALUES
            }
            if "enum" in rule and "type" not in rule:
                kept["type"] = sorted({name for name, kind in {**TYPES, "number": (int, float)}.items() for v in rule["enum"] if isinstance(v, kind)})
            return kept
        return [stripped(r) for r in rule] if isinstance(rule, list) else rule

    return stripped(record_schema())


def problems(data: object, schema: dict | None = None) -> list[str]:
    """What does not fit the schema, one sentence per place (``placements[0].tip_lps_mm[2]: ...``); empty when all fits."""
    root = schema or record_schema()
    found: list[str] = []
    _check(data, root, root, "", found)
    return found[:MOST_PROBLEMS]


def _check(value: object, rule: dict, root: dict, place: str, found: list[str]) -> None:
    for word, wanted in rule.items():
        if word in SAYS_NOTHING:
            continue
        checker = CHECKERS.get(word)
        if checker is None:
            raise FluoroGuideError("The schema uses a word that its checker does not know", word)
        checker(value, wanted, rule, root, place, found)


def _say(found: list[str], place: str, text: str) -> None:
    found.append(f"{place or 'the record'}: {text}")


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and (isinstance(value, float) or abs(value) < 2**1000)


def _is(value: object, name: str) -> bool:
    if name == "number":
        return _number(value)
    if name == "integer":
        return _number(value) and float(value).is_integer()
    return isinstance(value, TYPES[name]) and not (name != "boolean" and isinstance(value, bool))


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 40 else text[:37] + "..."


def _type(value, wanted, rule, root, place, found) -> None:
    names = [wanted] if isinstance(wanted, str) else wanted
    if not any(_is(value, name) for name in names):
        _say(found, place, f"{_shown(value)} is not {' or '.join(names)}")


def _same(a: object, b: object) -> bool:
    return isinstance(a, bool) == isinstance(b, bool) and a == b


def _enum(value, wanted, rule, root, place, found) -> None:
    if not any(_same(value, w) for w in wanted):
        _say(found, place, f"{_shown(value)} is none of {', '.join(map(_shown, wanted))}")


def _const(value, wanted, rule, root, place, found) -> None:
    if not _same(value, wanted):
        _say(found, place, f"{_shown(value)} is not {_shown(wanted)}")


def _ref(value, wanted, rule, root, place, found) -> None:
    target = root
    for part in wanted.removeprefix("#/").split("/"):
        target = target[part]
    _check(value, target, root, place, found)


def _one_of(value, wanted, rule, root, place, found) -> None:
    tries = []
    for option in wanted:
        inner: list[str] = []
        _check(value, option, root, place, inner)
        tries.append(inner)
    fits = tries.count([])
    if fits > 1:
        _say(found, place, "fits more than one of the allowed forms")
    elif not fits:
        # The form that is meant is the one that fails deepest or least; "null" alone never helps a reader.
        meant = [t for option, t in zip(wanted, tries, strict=True) if option != {"type": "null"}] or tries
        found.extend(min(meant, key=len))


def _required(value, wanted, rule, root, place, found) -> None:
    if isinstance(value, dict):
        for key in wanted:
            if key not in value:
                _say(found, place, f"lacks the key '{key}'")


def _properties(value, wanted, rule, root, place, found) -> None:
    if isinstance(value, dict):
        for key, inner in wanted.items():
            if key in value:
                _check(value[key], inner, root, f"{place}.{key}" if place else key, found)


def _additional(value, wanted, rule, root, place, found) -> None:
    if isinstance(value, dict):
        for key in value.keys() - rule.get("properties", {}).keys():
            _check(value[key], wanted, root, f"{place}.{key}" if place else key, found)


def _items(value, wanted, rule, root, place, found) -> None:
    if isinstance(value, list):
        for index, item in enumerate(value):
            _check(item, wanted, root, f"{place}[{index}]", found)


def _least_items(value, wanted, rule, root, place, found) -> None:
    if isinstance(value, list) and len(value) < wanted:
        _say(found, place, f"has {len(value)} instead of at least {wanted} items")


def _most_items(value, wanted, rule, root, place, found) -> None:
    if isinstance(value, list) and len(value) > wanted:
        _say(found, place, f"has {len(value)} instead of at most {wanted} items")


def _shortest(value, wanted, rule, root, place, found) -> None:
    if isinstance(value, str) and len(value) < wanted:
        _say(found, place, "is empty")


def _pattern(value, wanted, rule, root, place, found) -> None:
    if isinstance(value, str) and not re.search(wanted, value):
        _say(found, place, f"{_shown(value)} is not written as {wanted}")


def _minimum(value, wanted, rule, root, place, found) -> None:
    if _number(value) and not value >= wanted:
        _say(found, place, f"{value} is less than {wanted}")


def _maximum(value, wanted, rule, root, place, found) -> None:
    if _number(value) and not value <= wanted:
        _say(found, place, f"{value} is more than {wanted}")


def _above(value, wanted, rule, root, place, found) -> None:
    if _number(value) and not value > wanted:
        _say(found, place, f"{value} is not more than {wanted}")


CHECKERS = {
    "type": _type, "enum": _enum, "const": _const, "$ref": _ref, "oneOf": _one_of, "required": _required, "properties": _properties,
    "additionalProperties": _additional, "items": _items, "minItems": _least_items, "maxItems": _most_items, "minLength": _shortest,
    "pattern": _pattern, "minimum": _minimum, "maximum": _maximum, "exclusiveMinimum": _above,
}

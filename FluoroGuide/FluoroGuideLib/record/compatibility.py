"""Records of other versions: what an older one lacks is filled in, what a newer one has is kept.

Schema versions are whole numbers.  A newer version only adds keys as long as its ``readable_from`` stays; this program reads every
file whose ``readable_from`` it reaches, keeps what it does not know, and writes it back.
"""

from __future__ import annotations

import copy
import uuid

from ..errors import FluoroGuideError
from ..planning.jsonfile import plain, take

RECORD_FORMAT = "fluoroguide-record"
SCHEMA_VERSION = 1
READABLE_FROM = 1
"""The oldest program version (as its SCHEMA_VERSION) that understands what this one writes."""
NEW_IN_1 = {
    "patient": None, "checklist": [], "contrast": [], "injectate": [], "pain": [], "complications": None, "aftercare": [], "key_images": [],
    "approach": None, "equipment": None,
}


def upgraded(data: dict) -> tuple[dict, list[str]]:
    """A record's data as version 1 has it, and sentences on what was assumed; ``data`` stays as it is.

    Raises
    ------
    FluoroGuideError
        Another format, or a version that says this program cannot read it.
    """
    version = _version(data)
    warnings: list[str] = []
    data = copy.deepcopy(data)
    if version == 0:
        _from_0(data)
        warnings.append("The record was a draft (schema version 0); it was read as version 1.")
    if version > SCHEMA_VERSION:
        warnings.append(f"The record was written by a newer FluoroGuide (schema version {version}); what this one does not know is kept.")
    return data, warnings


def _version(data: dict) -> int:
    found = take(data, "format", "record")
    if found != RECORD_FORMAT:
        raise FluoroGuideError("This is not a record", f"format '{found}' instead of '{RECORD_FORMAT}'", "Choose another file")
    version, oldest = take(data, "schema_version", "record"), data.get("readable_from", 0)
    for number in (version, oldest):
        if isinstance(number, bool) or not isinstance(number, int) or number < 0:
            raise FluoroGuideError("The record's schema version is not a whole number", number)
    if oldest > SCHEMA_VERSION:
        raise FluoroGuideError(
            "The record needs a newer FluoroGuide", f"schema version {version}, known up to {SCHEMA_VERSION}", "Update FluoroGuide",
        )
    return version


def _from_0(data: dict) -> None:
    """Drafts had no names for some things that version 1 wants."""
    for key, value in NEW_IN_1.items():
        data.setdefault(key, copy.deepcopy(value))
    for key in ("views", "registrations"):
        if isinstance(data.get(key), list):
            normal = normal_view if key == "views" else normal_registration
            data[key] = [normal(item, i, data.get("created_utc")) for i, item in enumerate(data[key])]
    data["schema_version"], data["readable_from"] = SCHEMA_VERSION, READABLE_FROM


def normal_view(item: dict, index: int, utc: str | None) -> dict:
    """A view with the keys of the schema; a file's name is not kept, since it may tell who the patient is."""
    if not isinstance(item, dict) or {"name", "angles", "view", "utc"} <= set(item):
        return item
    from ..geometry.carm import CArmView, describe_angles

    geometry = item.get("view") or {k: v for k, v in item.items() if k not in ("file", "name", "angles", "utc", "assumptions")}
    angles = item.get("angles") or describe_angles(*CArmView.from_dict(geometry).angles_deg)
    return {
        "name": item.get("name") or f"view {index + 1}", "angles": angles, "view": geometry,
        "assumptions": item.get("assumptions", []), "utc": item.get("utc") or utc,
    }


def normal_registration(item: dict, _index: int, utc: str | None) -> dict:
    """A registration with the keys of the schema."""
    return item if not isinstance(item, dict) or item.get("utc") else {**item, "utc": utc}


# ---- keys of later versions -----------------------------------------------------------------------------------------
def unknown(data: object, known: object) -> object:
    """What ``data`` has and ``known`` (the same thing read and written again) lacks: nested, lists of named things by name."""
    if isinstance(data, dict) and isinstance(known, dict):
        found = {k: copy.deepcopy(v) for k, v in data.items() if k not in known}
        for key in data.keys() & known.keys():
            if inner := unknown(data[key], known[key]):
                found[key] = inner
        return found
    if isinstance(data, list) and isinstance(known, list) and _names(data) and _names(data) == _names(known):
        pairs = zip(data, known, strict=True)
        inner = {d["name"]: u for d, k in pairs if (u := unknown(d, k))}
        return {"*": inner} if inner else {}
    return {}


def merged(known: object, extra: object) -> object:
    """``known`` with what :func:`unknown` found put back; what changed since wins."""
    if not extra:
        return known
    if isinstance(known, dict):
        result = dict(known)
        for key, value in extra.items():
            result[key] = merged(known[key], value) if key in known else copy.deepcopy(value)
        return result
    if isinstance(known, list) and isinstance(extra, dict):
        return [merged(item, extra.get("*", {}).get(item.get("name"))) if isinstance(item, dict) else item for item in known]
    return known


def _names(items: list) -> list[str] | None:
    names = [item.get("name") for item in items if isinstance(item, dict)]
    return names if len(names) == len(items) and all(isinstance(n, str) for n in names) and len(set(names)) == len(names) else None


def stable_id(data: object) -> str:
    """An id for something that was written without one: the same data give the same id."""
    import json

    return str(uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(plain(data), sort_keys=True)))

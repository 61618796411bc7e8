"""``fluoroguide record``."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import FluoroGuideError
from . import common

ACTIONS = {
    "show": "print it for people", "validate": "check it against the schema", "report": "write report.html",
    "export": "write JSON, CSV, page and DICOM SR",
    "recover": "bring records back from journals (of the user's data folder when no FILE is given)",
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Options."""
    parser.add_argument("action", choices=list(ACTIONS), help="; ".join(f"{k}: {v}" for k, v in ACTIONS.items()))
    parser.add_argument(
        "file", type=Path, nargs="?", metavar="FILE",
        help="record.json, a journal (.fgjournal), a scene (.mrb) or report.sr.dcm; recover: also a folder",
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder for what is written (made when missing)")
    parser.add_argument("--format", default="json,csv,html,dicom", metavar="LIST", help="export: some of json,csv,html,dicom")
    parser.add_argument("--identifiers", action="store_true", help="let the patient's identifiers leave; they are taken out otherwise")
    parser.add_argument(
        "--hide", action="append", default=[], metavar="TEXT", help="a known identifier to take out wherever it stands; may be repeated",
    )
    parser.add_argument("--scene", action="store_true", help="recover: also write a Slicer scene (needs slicer-core)")
    parser.add_argument("--discard", action="store_true", help="recover: remove the journal after its record was written; this is your agreement")
    common.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Do one action."""
    if arguments.file is None and arguments.action != "recover":
        raise FluoroGuideError("No record is given", None, f"Write: fluoroguide record {arguments.action} record.json")
    return {"show": _show, "validate": _validate, "report": _report, "export": _export, "recover": _recover}[arguments.action](arguments)


def _show(arguments: argparse.Namespace) -> int:
    from ..record.export import open_record
    from ..record.record import summary_text

    record = open_record(arguments.file)
    warnings = "".join(f"Note: {w}\n" for w in record.read_warnings)
    common.show(arguments, record.to_dict(), summary_text(record) + warnings)
    return 0


def _validate(arguments: argparse.Namespace) -> int:
    """Exit code 1 when it is a record that does not fit the schema."""
    from ..planning.jsonfile import read_json
    from ..record.compatibility import SCHEMA_VERSION, upgraded
    from ..record.export import open_record
    from ..record.schema import problems

    data = read_json(arguments.file, "record") if arguments.file.suffix == ".json" else open_record(arguments.file).to_dict()
    data, warnings = upgraded(data)
    found = problems({**data, "schema_version": SCHEMA_VERSION})
    if not found:
        try:
            open_record(arguments.file)
        except FluoroGuideError as error:
            found = [error.message]
    version = data["schema_version"]
    lines = [
        f"{arguments.file.name} is {'no valid' if found else 'a valid'} record (schema version {version}).", *found,
        *(f"Note: {w}" for w in warnings)
    ]
    common.show(arguments, {"valid": not found, "schema_version": version, "problems": found, "notes": warnings}, "\n".join(lines))
    return 1 if found else 0


def _folder(arguments: argparse.Namespace) -> Path:
    if arguments.output is None:
        raise FluoroGuideError("No folder for the results is given", None, "Add --output DIR")
    return common.output_folder(arguments.output)


def _report(arguments: argparse.Namespace) -> int:
    from ..record.export import open_record
    from ..record.report import write_report

    record, path = open_record(arguments.file), _folder(arguments) / "report.html"
    write_report(path, record, identifiers=arguments.identifiers, words=arguments.hide)
    common.show(arguments, {"files": [str(path)], "identifiers": arguments.identifiers}, f"Wrote {path}")
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from ..record.export import export_record, open_record

    record, folder = open_record(arguments.file), _folder(arguments)
    formats = [f.strip() for f in arguments.format.split(",") if f.strip()]
    paths = export_record(record, folder, formats, identifiers=arguments.identifiers, words=arguments.hide)
    common.show(arguments, {"files": [str(p) for p in paths], "identifiers": arguments.identifiers}, "\n".join(f"Wrote {p}" for p in paths))
    return 0


def _recover(arguments: argparse.Namespace) -> int:
    """Records of journals: listed, and written when there is an output folder."""
    from ..record.keeper import journals, recover

    given = arguments.file
    if given is not None and not given.exists():
        raise FluoroGuideError("The journal does not exist", given, "Check the path")
    paths = [given] if given is not None and given.is_file() else journals(given)
    if arguments.discard and arguments.output is None:
        raise FluoroGuideError("A journal is removed only after its record was written", None, "Add --output DIR")
    found, lines, results = 0, [], []
    for path in paths:
        try:
            recovered = recover(path)
        except FluoroGuideError as error:
            lines.append(f"{path.name}: {error}")
            results.append({"journal": str(path), "error": error.message})
            continue
        found += 1
        result, text = _recovered(arguments, recovered)
        lines += text
        results.append(result)
    if not paths:
        lines.append("There is no journal: nothing was left behind.")
    common.show(arguments, {"recovered": results}, "\n".join(lines))
    return 0 if found or not paths else 2


def _recovered(arguments: argparse.Namespace, recovered: object) -> tuple[dict, list[str]]:
    from ..record.record import write_record

    record, path = recovered.record, recovered.path
    result = {
        "journal": str(path), "record_id": record.record_id, "procedure": record.procedure, "begun": record.created_utc, "events": recovered.events,
        "placements": len(record.placements), "in_use": recovered.in_use, "warnings": list(recovered.warnings), "files": [], "discarded": False,
    }
    lines = [f"{path.name}: {record.procedure}, begun {record.created_utc}, {recovered.events} events, {len(record.placements)} placements"]
    lines += [f"  {w}" for w in recovered.warnings] + (["  A running Slicer writes to it."] if recovered.in_use else [])
    if arguments.output is not None:
        folder = common.output_folder(arguments.output)
        target = folder / f"record-{record.record_id[:8]}.json"
        write_record(target, record)
        result["files"].append(str(target))
        if arguments.scene:
            from ..scene.host import start
            from ..scene.journal_nodes import recover_scene

            result["files"].append(str(recover_scene(start(), record, folder / f"case-{record.record_id[:8]}.mrb")))
        if arguments.discard and not recovered.in_use:
            from ..record.keeper import RecordKeeper

            keeper, _ = RecordKeeper.resume(path)
            keeper.discard(target, agreed=True)
            result["discarded"] = True
        lines += [f"  Wrote {f}" for f in result["files"]] + (["  Removed the journal."] if result["discarded"] else [])
    return result, lines

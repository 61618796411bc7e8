"""``fluoroguide dose``."""

from __future__ import annotations

import argparse

from ..errors import FluoroGuideError
from . import common


def configure(parser: argparse.ArgumentParser) -> None:
    """Options."""
    parser.add_argument(
        "files", nargs="*", metavar="FILE", help="RDSR, or XA/RF images with dose in their headers; files or folders of one procedure",
    )
    parser.add_argument("--procedure", metavar="NAME", help="compare with published values of this procedure")
    parser.add_argument("--correction", type=float, metavar="FACTOR", help="the site's factor for DAP: true over displayed")
    parser.add_argument("--dap", metavar="'1.2 Gy.cm2'", help="typed in, instead of files: dose area product with its unit")
    parser.add_argument("--air-kerma", metavar="'30 mGy'", help="typed in: reference air kerma")
    parser.add_argument("--time", metavar="'72 s'", help="typed in: fluoroscopy time")
    common.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the dose summary; null means: not in the files."""
    from ..record.dose import manual_dose, read_dose
    from ..record.dose_reference import ACCURACY_NOTE, compare, known_procedures, outlier, substantial

    typed = (arguments.dap, arguments.air_kerma, arguments.time)
    if bool(arguments.files) == any(t is not None for t in typed):
        raise FluoroGuideError("Give either files or typed values", None, "For example: fluoroguide dose report.dcm, or --dap '1.2 Gy.cm2'")
    dose = read_dose(arguments.files) if arguments.files else manual_dose(*typed)
    if arguments.correction is not None:
        dose = dose.with_correction(arguments.correction)
    comparisons = compare(dose, arguments.procedure) if arguments.procedure else []
    notes = substantial(dose)
    if arguments.procedure and arguments.procedure not in known_procedures():
        notes.append(f"No published dose is known for '{arguments.procedure}'; known: {', '.join(known_procedures())}.")
    high = outlier(comparisons)
    data = {**dose.to_dict(), "comparison": [c.to_dict() for c in comparisons], "outlier": high, "notes": notes, "accuracy": ACCURACY_NOTE}
    lines = [describe(dose), *(f"Compared: {c.text}" for c in comparisons), *([high] if high else []), *notes, ACCURACY_NOTE]
    common.show(arguments, data, "\n".join(lines))
    return 0


def describe(dose: object) -> str:
    """The totals in words."""

    def shown(value: float | None, factor: float, unit: str) -> str:
        return "not in the files" if value is None else f"{value * factor:.4g} {unit}"

    lines = [
        f"Dose area product (PKA): {shown(dose.dap_gy_m2, 1e4, 'Gy.cm2')}",
        f"Reference air kerma (Ka,r): {shown(dose.reference_air_kerma_gy, 1e3, 'mGy')}",
        f"Fluoroscopy time: {shown(dose.fluoroscopy_seconds, 1, 's')}" + (
            f" ({dose.fluoroscopy_time_source})" if dose.fluoroscopy_time_source else ""
        ),
    ]
    if dose.corrected_dap_gy_m2 is not None:
        lines.insert(1, f"  with the site's factor {dose.dap_correction:g}: {shown(dose.corrected_dap_gy_m2, 1e4, 'Gy.cm2')}")
    if dose.fluoroscopy_seconds is None and dose.estimated_fluoroscopy_seconds is not None:
        lines.append(f"  estimated from frames: {dose.estimated_fluoroscopy_seconds:.4g} s")
    for plane in dose.planes:
        lines.append(f"  plane {plane.plane or '?'}: {shown(plane.dap_gy_m2, 1e4, 'Gy.cm2')}, {shown(plane.fluoroscopy_seconds, 1, 's')}")
    lines.append(f"Irradiation events: {len(dose.events)}")
    return "\n".join(lines + [f"Warning: {w}" for w in dose.warnings])

"""``fluoroguide dose``."""

from __future__ import annotations

import argparse

from . import common


def configure(parser: argparse.ArgumentParser) -> None:
    """Options."""
    parser.add_argument("files", nargs="+", metavar="FILE", help="RDSR, or XA/RF images with dose in their headers")
    common.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the dose summary; null means: not in the files."""
    from ..record.dose import read_dose

    dose = read_dose(arguments.files)
    common.show(arguments, dose.to_dict(), describe(dose))
    return 0


def describe(dose: object) -> str:
    """The totals in words."""

    def shown(value: float | None, factor: float, unit: str) -> str:
        return "not in the files" if value is None else f"{value * factor:.4g} {unit}"

    lines = [
        f"Dose area product (PKA): {shown(dose.dap_gy_m2, 1e4, 'Gy.cm2')}",
        f"Reference air kerma (Ka,r): {shown(dose.reference_air_kerma_gy, 1e3, 'mGy')}",
        f"Fluoroscopy time: {shown(dose.fluoroscopy_seconds, 1, 's')}",
        f"Irradiation events: {len(dose.events)}",
    ]
    return "\n".join(lines + [f"Warning: {w}" for w in dose.warnings])

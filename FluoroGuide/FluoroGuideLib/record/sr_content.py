"""The content tree of the structured report (TID 1500): one measurement group per needle, drug, dose and score."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

PRIVATE = {
    "tip_mm": ("FG001", "Distance of needle tip from target", "mm"), "lateral_mm": ("FG002", "Distance of needle tip from planned path", "mm"),
    "along_mm": ("FG003", "Distance of needle tip past target along planned path", "mm"),
    "angle_deg": ("FG004", "Angle between planned and achieved needle", "deg"), "entry_mm": (
        "FG005", "Distance of needle line from planned entry", "mm",
    ),
    "tip_error_95_mm": ("FG006", "Radius of 95 % uncertainty of needle tip", "mm"), "axis_sigma_deg": (
        "FG007", "Standard deviation of needle direction", "deg",
    ),
    "probability_in_target": ("FG008", "Probability of needle tip in target", "1"), "length_mm": ("FG009", "Length of planned path", "mm"),
    "tolerance": ("FG010", "Tolerance of target", "mm"), "predicted_error_mm": (
        "FG011", "Radius of 95 % predicted registration error at target", "mm",
    ),
    "similarity": ("FG012", "Similarity of projected volume and X-ray", "1"),
    **{f"tip_{axis}": (f"FG02{k}", f"Needle tip {axis.upper()} in volume", "mm") for k, axis in enumerate("lps")},
    **{f"axis_{axis}": (f"FG03{k}", f"Needle direction {axis.upper()} in volume", "1") for k, axis in enumerate("lps")},
    **{f"target_{axis}": (f"FG04{k}", f"Planned target {axis.upper()} in volume", "mm") for k, axis in enumerate("lps")},
    **{f"entry_{axis}": (f"FG05{k}", f"Planned entry {axis.upper()} in volume", "mm") for k, axis in enumerate("lps")},
}
UNITS = {
    "mm": "millimeter", "deg": "degree", "1": "no units", "ml": "milliliter", "Gy.m2": "Gray square meter", "Gy": "Gray", "s": "second",
    "{score}": "score",
}


def document(data: dict, images: list[Dataset], uid_of: Callable[..., str]) -> Any:
    """The tree as highdicom's ``MeasurementReport``, from the record's plain data and its key images as data sets."""
    from highdicom import sr
    from pydicom.sr.codedict import codes

    make = _Maker(data, images, uid_of)
    observer = sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
            uid=uid_of("device"), name="FluoroGuide", manufacturer_name="FluoroGuide developers",
            model_name=f"FluoroGuide {data['software'].get('version', '')}".strip(),
        ),
    )
    groups = [*make.counts(), *map(make.placement, data["placements"]), *make.registrations(), *make.contrast(), *make.injectates()]
    groups += [*make.pain(), *make.dose()]
    return sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=observer), procedure_reported=codes.SCT.Fluoroscopy,
        imaging_measurements=groups, title=codes.DCM.ImagingMeasurementReport, referenced_images=images or None,
        language_of_content_item_and_descendants=sr.LanguageOfContentItemAndDescendants(sr.CodedConcept("en", "RFC5646", "English")),
    )


class _Maker:
    """Makes measurement groups of one record."""

    def __init__(self, data: dict, images: list[Dataset], uid_of: Callable[..., str]) -> None:
        from highdicom import sr
        from pydicom.sr.codedict import codes

        self.data, self.images, self.uid_of, self.sr, self.codes = data, images, uid_of, sr, codes
        self.frame_uid = uid_of(data["record_id"], "frame of reference")

    # ---- bricks -----------------------------------------------------------------------------------------------------
    def private(self, code: str, meaning: str) -> Any:
        return self.sr.CodedConcept(code, "99FLUOROGUIDE", meaning)

    def number(self, name: Any, value: float | None, unit: str, **more: Any) -> list:
        """One measurement, or none when the value is not told."""
        if value is None:
            return []
        from highdicom.sr import CodedConcept

        made = self.sr.Measurement(name=name, value=float(value), unit=CodedConcept(unit, "UCUM", UNITS[unit]), **more)
        for item in made:
            for measured in item.get("MeasuredValueSequence", []):
                measured.FloatingPointValue = float(value)  # Numeric Value has 16 characters only
        return [made]

    def own(self, key: str, value: float | None, **more: Any) -> list:
        code, meaning, unit = PRIVATE[key]
        return self.number(self.private(code, meaning), value, unit, **more)

    def said(self, name: Any, value: Any) -> Any:
        return self.sr.QualitativeEvaluation(name=name, value=value)

    def yes_no(self, name: Any, value: bool | None) -> list:
        if value is None:
            return []
        return [self.said(name, self.codes.SCT.Yes if value else self.codes.SCT.No)]

    def group(self, identifier: str, key: str, measurements: list, evaluations: list, finding: Any = None, **more: Any) -> list:
        """One group, or none when it would be empty."""
        if not measurements and not evaluations:
            return []
        tracking = self.sr.TrackingIdentifier(uid=self.uid_of(self.data["record_id"], key), identifier=identifier[:64])
        return [self.sr.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=tracking, finding_type=finding, measurements=measurements or None, qualitative_evaluations=evaluations or None,
            **more,
        )]

    # ---- groups -------------------------------------------------------------------------------------------------------
    def counts(self) -> list:
        """How many needles were recorded: a report of none says so."""
        return self.group(
            "procedure", "procedure", self.number(self.private("FG103", "Number of needles recorded"), len(self.data["placements"]), "1"), [],
        )

    def placement(self, p: dict) -> Any:
        """An achieved needle: deviations, uncertainty, coordinates, planned path."""
        d, path = p["deviation"], p["trajectory"]
        points = {"tip": p["tip_lps_mm"], "axis": p["axis_lps"], "target": path["target_lps_mm"], "entry": path["entry_lps_mm"]}
        where = self.sr.CoordinatesForMeasurement3D(
            graphic_type=self.sr.GraphicTypeValues3D.POINT, graphic_data=_points([p["tip_lps_mm"]]), frame_of_reference_uid=self.frame_uid,
        )
        items = self.own("tip_mm", d["tip_mm"], referenced_coordinates=[where])
        for key in ("lateral_mm", "along_mm", "angle_deg", "entry_mm", "probability_in_target"):
            items += self.own(key, d.get(key))
        items += self.own("tip_error_95_mm", p.get("tip_error_95_mm")) + self.own("axis_sigma_deg", p.get("axis_sigma_deg"))
        items += self.own("length_mm", path.get("length_mm")) + self.number(self.codes.DCM.NeedleLength, path.get("needle_length_mm"), "mm")
        items += self.number(self.codes.DCM.NeedleGauge, path.get("gauge"), "1")
        for name, point in points.items():
            for axis, value in zip("lps", point or (), strict=False):
                items += self.own(f"{name}_{axis}", value)
        said = self.yes_no(self.codes.DCM.NeedleInTarget, d.get("in_target"))
        said.append(self.said(self.private("FG060", "Measurement method"), self.private(*(
            ("FG061", "Manual") if p["method"] == "manual" else ("FG062", "Automatic")
        ))))
        sources = [self.sr.SourceImageForMeasurementGroup.from_source_image(image) for image in self.images]
        name = f"{path['name']} {p['placement_id'][:8]}" if len(path["name"]) <= 55 else f"{path['name'][:52]}... {p['placement_id'][:8]}"
        return self.group(name, p["placement_id"], items, said, self.codes.SCT.Needle, source_images=sources or None)[0]

    def registrations(self) -> list:
        """Predicted errors and similarity of each registration."""
        groups = []
        for k, r in enumerate(self.data["registrations"]):
            items = [m for s in r.get("similarity", []) for m in self.own("similarity", s)]
            for target in r.get("targets", []):
                items += self.own("predicted_error_mm", target.get("predicted_error_mm"))
            verdict = self.private(*{"pass": ("FG071", "Pass"), "warn": ("FG072", "Warn"), "fail": ("FG073", "Fail")}[r["verdict"]])
            groups += self.group(
                f"registration {k + 1}", f"registration {k}", items, [self.said(self.private("FG070", "Registration verdict"), verdict)],
            )
        return groups

    def contrast(self) -> list:
        """Contrast given, and whether it was vascular."""
        groups = []
        for k, c in enumerate(self.data["contrast"]):
            said = self.yes_no(self.private("FG080", "Vascular spread of contrast"), c.get("vascular"))
            groups += self.group(
                f"contrast {k + 1}: {c['agent']}", f"contrast {k}", self.number(self.codes.SCT.Volume, c.get("volume_ml"), "ml"), said,
                self.codes.DCM.ContrastAdministered,
            )
        return groups

    def injectates(self) -> list:
        """Drugs given."""
        groups = []
        for k, g in enumerate(self.data["injectate"]):
            items = self.number(self.codes.SCT.Volume, g.get("volume_ml"), "ml")
            groups += self.group(f"injectate {k + 1}: {g['drug']}", f"injectate {k}", items, [], self.private("FG090", "Drug injected"))
        return groups

    def pain(self) -> list:
        """Pain scores."""
        groups = []
        for k, p in enumerate(self.data["pain"]):
            items = self.number(self.codes.SCT.PainScore, p["score"], "{score}")
            groups += self.group(f"pain {p['when']} ({p['scale']})", f"pain {k}", items, [])
        return groups

    def dose(self) -> list:
        """Totals of the dose."""
        dose = self.data.get("dose")
        if not dose:
            return []
        dcm = self.codes.DCM
        items = self.number(dcm.DoseAreaProductTotal, dose.get("dap_gy_m2"), "Gy.m2") + self.number(
            dcm.DoseRPTotal, dose.get("reference_air_kerma_gy"), "Gy",
        )
        items += self.number(dcm.TotalFluoroTime, dose.get("fluoroscopy_seconds"), "s")
        items += self.number(self.private("FG101", "Dose area product times the site's correction factor"), dose.get("corrected_dap_gy_m2"), "Gy.m2")
        return self.group("dose", "dose", items, [], self.private("FG102", "Radiation dose of the procedure"))


def _points(points: list) -> Any:
    import numpy as np

    return np.asarray(points, float)


"""Whether volume, plan, X-ray and dose report belong to one patient, one volume and one side.

Identifiers never leave this file in the clear: patient id, birth date and sex become keyed digests (HMAC-SHA-256) at
once, and only digests are kept and compared.  The key is random per process unless one is given, so that a digest
says nothing outside the comparison; with the installation's secret digests can be compared between sessions.
Sentences name *which* item differs, never its value.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import FluoroGuideError
from .dicom_values import quiet_pydicom, text
from .functional_groups import FrameTags

_PROCESS_KEY = os.urandom(32)
_NO_ID = {"", "anonymous", "anonymized", "anonymised", "anon", "unknown", "none", "0", "na", "n/a"}
PLAN_KEY = "volume_identity"
"""Key of a plan's JSON under which :meth:`VolumeStamp.to_dict` is kept."""
OLD_VOLUME_DAYS = 180
SIDES = ("left", "right", "bilateral")


@dataclass(frozen=True)
class Identity:
    """Digests of who an object is of; empty text where the object does not say.

    Attributes
    ----------
    what
        ``"volume"``, ``"plan"``, ``"X-ray A"``, ``"dose report"``: the object's name for people.
    patient_id, issuer, birth_date, sex
        Keyed digests.
    time
        When it was made (ISO text, day or more), or empty.
    side
        One of :data:`SIDES`, or empty.
    study
        Keyed digest of the Study Instance UID.
    """

    what: str
    patient_id: str = ""
    issuer: str = ""
    birth_date: str = ""
    sex: str = ""
    time: str = ""
    side: str = ""
    study: str = ""

    def to_dict(self) -> dict:
        """Digests and facts as plain text."""
        return dict(vars(self))


@dataclass(frozen=True)
class VolumeStamp:
    """Which volume a plan was made on.

    Attributes
    ----------
    uid
        Series or SOP Instance UID, or empty for files without one.
    content_hash
        Of the voxels and their geometry (:func:`volume_hash`).
    """

    uid: str
    content_hash: str

    def to_dict(self) -> dict:
        """Plain text for the plan's JSON under :data:`PLAN_KEY`."""
        return {"uid": self.uid, "content_hash": self.content_hash}

    @classmethod
    def from_plan(cls, plan: Mapping | None) -> VolumeStamp | None:
        """The stamp in a plan's JSON; ``None`` when it has none."""
        data = (plan or {}).get(PLAN_KEY)
        if not isinstance(data, Mapping) or not data.get("content_hash"):
            return None
        return cls(str(data.get("uid", "")), str(data["content_hash"]))


@dataclass(frozen=True)
class Finding:
    """One result of the comparison: ``level`` is ``"block"``, ``"warn"`` or ``"ok"``."""

    level: str
    item: str
    sentence: str


@dataclass(frozen=True)
class Confirmation:
    """A person's word that a block may be passed; goes into the record."""

    items: tuple[str, ...]
    reason: str
    person: str
    time: str

    def to_dict(self) -> dict:
        """Plain values for the record."""
        return {"items": list(self.items), "reason": self.reason, "person": self.person, "time": self.time}


@dataclass(frozen=True)
class IdentityCheck:
    """The outcome: findings, and what was confirmed.

    ``blocked`` is true while a blocking finding has not been confirmed.
    """

    findings: tuple[Finding, ...]
    compared: tuple[str, ...]
    confirmations: tuple[Confirmation, ...] = field(default=())

    @property
    def blocking(self) -> tuple[Finding, ...]:
        """Blocking findings that nobody has confirmed."""
        passed = {item for c in self.confirmations for item in c.items}
        return tuple(f for f in self.findings if f.level == "block" and f.item not in passed)

    @property
    def blocked(self) -> bool:
        """Whether work must stop until someone confirms."""
        return bool(self.blocking)

    def confirmed(self, reason: str, person: str = "", items: Sequence[str] | None = None, time: dt.datetime | None = None) -> IdentityCheck:
        """A copy in which blocking findings (all, or those named) are passed for a reason.

        Raises
        ------
        FluoroGuideError
            No reason in words, or an item that does not block.
        """
        if len("".join(str(reason).split())) < 5:
            raise FluoroGuideError("A mismatch can only be passed with a reason in words", repr(reason), "Say why the objects belong together")
        open_items = tuple(f.item for f in self.blocking)
        chosen = open_items if items is None else tuple(items)
        unknown = [i for i in chosen if i not in open_items]
        if unknown or not chosen:
            raise FluoroGuideError("There is no such mismatch to confirm", ", ".join(unknown) or "none", "Open: " + (", ".join(open_items) or "none"))
        stamp = (time or dt.datetime.now(dt.UTC)).isoformat(timespec="seconds")
        confirmation = Confirmation(chosen, " ".join(str(reason).split()), person, stamp)
        return IdentityCheck(self.findings, self.compared, (*self.confirmations, confirmation))

    def require(self) -> None:
        """Raise while blocked.

        Raises
        ------
        FluoroGuideError
            Naming what does not fit together.
        """
        if self.blocked:
            told = " ".join(f.sentence for f in self.blocking)
            raise FluoroGuideError(told.rstrip("."), None, "Check patient, plan and images, or confirm with a reason")

    def to_dict(self) -> dict:
        """Plain values for the record: sentences and confirmations, no digests."""
        return {
            "compared": list(self.compared), "blocked": self.blocked, "findings": [dict(vars(f)) for f in self.findings],
            "confirmations": [c.to_dict() for c in self.confirmations],
        }


# ---- reading ----------------------------------------------------------------------------------------------------
def digest(kind: str, value: str, key: bytes | None = None) -> str:
    """HMAC-SHA-256 of a value, different for each kind; empty for an empty value."""
    return hmac.new(key or _PROCESS_KEY, f"{kind}\x1f{value}".encode(), hashlib.sha256).hexdigest() if value else ""


def identity_of(dataset: object, what: str, *, key: bytes | None = None) -> Identity:
    """The identity of a DICOM data set (volume slice, X-ray, dose report).

    Parameters
    ----------
    key
        Secret for the digests; by default one that lives as long as the process.
    """
    tags = FrameTags(dataset)
    with quiet_pydicom():
        patient = "".join(text(dataset, "PatientID").split()).casefold()
        birth = "".join(c for c in text(dataset, "PatientBirthDate") if c.isdigit())
        sex = text(dataset, "PatientSex").upper()
        return Identity(
            what, digest("id", "" if patient in _NO_ID else patient, key), digest("issuer", text(dataset, "IssuerOfPatientID").casefold(), key),
            digest("birth", birth if len(birth) == 8 else "", key), digest("sex", sex if sex in ("M", "F", "O") else "", key),
            _time(dataset), _side(tags), digest("study", text(dataset, "StudyInstanceUID"), key),
        )


def read_identity(path: str | Path, what: str, *, key: bytes | None = None) -> Identity:
    """The identity of a DICOM file, or of the first DICOM file in a folder; an empty one for files that are not DICOM.

    Raises
    ------
    FluoroGuideError
        No such file or folder.
    """
    dataset = _first_dataset(path)
    return Identity(what) if dataset is None else identity_of(dataset, what, key=key)


def series_uid(path: str | Path) -> str:
    """Series Instance UID of a DICOM file, or of the first DICOM file in a folder; empty for files that are not DICOM."""
    dataset = _first_dataset(path)
    return "" if dataset is None else text(dataset, "SeriesInstanceUID")


def _first_dataset(path: str | Path) -> object | None:
    from .dicom_file import open_dicom

    path = Path(path)
    if not path.exists():
        raise FluoroGuideError("The file does not exist", path.name, "Check the path")
    for candidate in sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]:
        try:
            return open_dicom(candidate, pixels=False).dataset
        except FluoroGuideError:
            continue
    return None


def _time(dataset: object) -> str:
    for name in ("Acquisition", "Content", "Series", "Study"):
        day, clock = text(dataset, name + "Date").replace(".", ""), text(dataset, name + "Time").replace(":", "")
        try:
            whole = len(clock) >= 6 and clock[:6].isdigit()
            return dt.datetime.strptime(day + (clock[:6] if whole else "000000"), "%Y%m%d%H%M%S").isoformat()
        except ValueError:
            continue
    return ""


def _side(tags: FrameTags) -> str:
    for keyword in ("FrameLaterality", "ImageLaterality", "Laterality"):
        value = text(tags, keyword).upper()
        if value in ("L", "R", "B"):
            return {"L": "left", "R": "right", "B": "bilateral"}[value]
    return ""


def volume_hash(image: object) -> str:
    """SHA-256 of a SimpleITK volume: voxels (as float32, so that the type on disk does not matter), size, spacing, origin, direction."""
    import SimpleITK as sitk

    content = hashlib.sha256()
    geometry = [*image.GetSize(), *image.GetSpacing(), *image.GetOrigin(), *image.GetDirection()]
    content.update((np.round(np.asarray(geometry, float), 4) + 0.0).astype("<f8").tobytes())  # + 0.0: no minus zero
    for plane in sitk.GetArrayViewFromImage(image):
        content.update(np.ascontiguousarray(plane, "<f4").tobytes())
    return content.hexdigest()


# ---- comparing --------------------------------------------------------------------------------------------------
def compare(
    identities: Sequence[Identity], *, planned_side: str | None = None, plan_stamp: VolumeStamp | None = None,
    volume_stamp: VolumeStamp | None = None,
) -> IdentityCheck:
    """Compare the objects of a case with one another.

    Parameters
    ----------
    identities
        Volume, X-rays, dose reports, as far as they are DICOM.
    planned_side
        The plan's laterality (``left``, ``right``, ``bilateral``, ``midline``) or ``None``.
    plan_stamp, volume_stamp
        The volume that the plan was made on, and the one that is loaded.

    Notes
    -----
    Blocks: different patient id (of the same issuer), birth date or sex; another volume than the plan's; a planned side
    that is not the side an image says it shows.  Warns: nothing to compare, an old volume, a volume newer than the
    X-ray, a dose report of another day.
    """
    findings: list[Finding] = []
    for attribute, item in (("patient_id", "patient id"), ("birth_date", "birth date"), ("sex", "sex")):
        findings.append(_same(identities, attribute, item))
    findings += _times(identities)
    findings += _stamps(plan_stamp, volume_stamp)
    findings += _sides(identities, planned_side)
    return IdentityCheck(tuple(findings), tuple(i.what for i in identities))


def _same(identities: Sequence[Identity], attribute: str, item: str) -> Finding:
    known = [i for i in identities if getattr(i, attribute)]
    if len(known) < 2:
        silent = [i.what for i in identities if not getattr(i, attribute)]
        return Finding("warn", item, f"The {item} could not be compared: missing in {', '.join(silent) or 'all objects'}.")
    first = known[0]
    for other in known[1:]:
        differs = getattr(other, attribute) != getattr(first, attribute)
        if differs and attribute == "patient_id" and first.issuer and other.issuer and first.issuer != other.issuer:
            return Finding("warn", item, f"{_names(first, other)} have patient ids of different issuers, which cannot be compared.")
        if differs:
            return Finding("block", item, f"{_names(first, other)} have different values for {item}.")
    return Finding("ok", item, f"The {item} is the same in {', '.join(i.what for i in known)}.")


def _names(first: Identity, other: Identity) -> str:
    return f"{first.what[:1].upper()}{first.what[1:]} and {other.what}"


def _times(identities: Sequence[Identity]) -> list[Finding]:
    found = []
    when = {i.what: dt.datetime.fromisoformat(i.time) for i in identities if i.time}
    xrays = {w: t for w, t in when.items() if w.startswith("X-ray")}
    if not xrays:
        return [Finding("warn", "study time", "No X-ray says when it was taken.")]
    first, last = min(xrays.values()), max(xrays.values())
    if last - first > dt.timedelta(hours=12):
        found.append(Finding("warn", "study time", f"The X-rays were taken {(last - first).total_seconds() / 3600:.0f} hours apart."))
    for what, time in when.items():
        if what == "volume" and time > last + dt.timedelta(hours=24):
            found.append(Finding("warn", "study time", "The volume is newer than the X-rays."))
        elif what == "volume" and first - time > dt.timedelta(days=OLD_VOLUME_DAYS):
            found.append(Finding("warn", "study time", f"The volume is {(first - time).days} days older than the X-rays."))
        elif what.startswith("dose report") and abs(time - last) > dt.timedelta(hours=24):
            found.append(Finding("warn", "study time", f"The {what} is of another day than the X-rays."))
    return found or [Finding("ok", "study time", "The times fit together.")]


def _stamps(plan_stamp: VolumeStamp | None, volume_stamp: VolumeStamp | None) -> list[Finding]:
    if plan_stamp is None or volume_stamp is None:
        return []
    if plan_stamp.content_hash != volume_stamp.content_hash:
        told = "The plan was made on another volume."
        if plan_stamp.uid and plan_stamp.uid == volume_stamp.uid:
            told = "The plan was made on this series, but its voxels or geometry have changed since."
        return [Finding("block", "plan's volume", told)]
    return [Finding("ok", "plan's volume", "The plan was made on this volume.")]


def _sides(identities: Sequence[Identity], planned_side: str | None) -> list[Finding]:
    if planned_side not in ("left", "right"):
        return []
    found = []
    for identity in identities:
        if identity.side in ("left", "right") and identity.side != planned_side:
            told = f"The plan is for the {planned_side} side, the {identity.what} shows the {identity.side} side."
            found.append(Finding("block", f"side of {identity.what}", told))
    return found or [Finding("ok", "side", f"No image contradicts the planned side ({planned_side}).")]


def side_of_targets(points_lps_mm: np.ndarray, midline_x_mm: float, least_mm: float = 10.0) -> str:
    """``"left"`` or ``"right"`` when all targets (N, 3) lie at least so far on one side of the midline, else empty (LPS: left is +x)."""
    x = np.atleast_2d(np.asarray(points_lps_mm, float))[:, 0] - midline_x_mm
    return "left" if (x > least_mm).all() else "right" if (x < -least_mm).all() else ""

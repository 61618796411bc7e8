"""C-arm views: where the source is, where each pixel is, and how points project.

Frame: the isocentre frame of ``DESIGN 3`` - origin at the isocentre, axes patient L, P, S, millimetres.  Pixels are
``(column, row)`` and the centre of the first pixel is (0, 0).

Signs of the positioner angles: DICOM PS3.3 C.8.7.5 (primary: LAO positive; secondary: CRA positive).  For primary a
and secondary b, seen from the detector::

    d = ( sin a cos b, -cos a cos b,  sin b)   isocentre -> detector
    u = ( cos a,        sin a,        0    )   columns increase
    v = ( sin a sin b, -cos a sin b, -cos b)   rows increase

(u, v, d) is left-handed: ``u x v = -d``.  A calibrated camera (OpenCV) has its z axis along +d.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from ..errors import FluoroGuideError
from .rigid import apply, inverse


def beam_axes(primary_deg: float, secondary_deg: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit vectors (u, v, d) in patient LPS for positioner angles in degrees: columns, rows, isocentre to detector."""
    a, b = np.radians([primary_deg, secondary_deg])
    d = np.array([np.sin(a) * np.cos(b), -np.cos(a) * np.cos(b), np.sin(b)])
    u = np.array([np.cos(a), np.sin(a), 0.0])
    v = np.array([np.sin(a) * np.sin(b), -np.cos(a) * np.sin(b), -np.cos(b)])
    return u, v, d


def angles_of_beam(direction: np.ndarray) -> tuple[float, float]:
    """Positioner angles (primary, secondary) in degrees of a beam direction (3,), isocentre to detector, LPS.

    At a purely cranial or caudal beam the primary angle is undetermined and 0 is returned.
    """
    x, y, z = np.asarray(direction, float) / np.linalg.norm(direction)
    primary = 0.0 if np.hypot(x, y) < 1e-9 else np.degrees(np.arctan2(x, -y))
    return float(primary), float(np.degrees(np.arcsin(np.clip(z, -1, 1))))


def describe_angles(primary_deg: float, secondary_deg: float) -> str:
    """``"LAO 30.0 CRA 20.0"`` in the usual words; 0 is written without a side."""
    first = "AP" if abs(primary_deg) < 0.05 else f"{'LAO' if primary_deg > 0 else 'RAO'} {abs(primary_deg):.1f}"
    if abs(secondary_deg) < 0.05:
        return first
    return f"{first} {'CRA' if secondary_deg > 0 else 'CAU'} {abs(secondary_deg):.1f}"


PATIENT_POSITIONS = ("HFS", "HFP", "FFS", "FFP")


def patient_angles(gantry_primary_deg: float, gantry_secondary_deg: float, patient_position: str) -> tuple[float, float, bool]:
    """Gantry angles to patient angles (degrees) for a patient position; the flag asks to turn the raw image by 180 degrees.

    HFS (a, b); HFP (a + 180, b); FFS (-a, -b) and FFP (180 - a, -b), both with the raw image turned (DESIGN 3).

    Raises
    ------
    FluoroGuideError
        An unknown patient position: it is never assumed.
    """
    a, b = gantry_primary_deg, gantry_secondary_deg
    table = {"HFS": (a, b, False), "HFP": (a + 180, b, False), "FFS": (-a, -b, True), "FFP": (180 - a, -b, True)}
    if patient_position not in table:
        raise FluoroGuideError(
            "The patient position is not known, so gantry angles cannot be turned into patient angles",
            patient_position or "none given", "Set patient_position to one of " + ", ".join(PATIENT_POSITIONS),
        )
    a, b, turned = table[patient_position]
    return (a + 180) % 360 - 180, b, turned


@dataclass(frozen=True, eq=False)
class CArmView:
    """One X-ray view: a point source and a plane of pixels, in isocentre LPS mm.

    Attributes
    ----------
    rows, columns
        Size of the image in pixels.
    source_mm
        Source (3,).
    first_pixel_mm
        Centre (3,) of pixel (0, 0).
    column_step_mm, row_step_mm
        Vectors (3,) from one pixel to the next along a row of the image (column + 1) and down a column (row + 1).
        They need not be perpendicular, so that a calibrated 3x4 matrix fits too.
    """

    rows: int
    columns: int
    source_mm: np.ndarray
    first_pixel_mm: np.ndarray
    column_step_mm: np.ndarray
    row_step_mm: np.ndarray

    def __post_init__(self) -> None:
        for name in ("source_mm", "first_pixel_mm", "column_step_mm", "row_step_mm"):
            value = np.array(getattr(self, name), float)
            if value.shape != (3,) or not np.isfinite(value).all():
                raise FluoroGuideError(f"The C-arm view's {name} is not three finite numbers", value)
            value.setflags(write=False)
            object.__setattr__(self, name, value)
        if self.rows < 1 or self.columns < 1:
            raise FluoroGuideError("The C-arm view has no pixels", f"{self.columns} x {self.rows}")
        if abs(self._signed_distance) < 1e-6:
            raise FluoroGuideError("The C-arm view's source lies in its detector plane", None, "Check SID and spacing.")

    # ---- constructors -------------------------------------------------------------------------------------------
    @classmethod
    def from_angles(
        cls, primary_deg: float, secondary_deg: float, *, sid_mm: float, sod_mm: float, rows: int, columns: int,
        pixel_spacing_mm: tuple[float, float], principal_point_px: tuple[float, float] | None = None,
        table_offset_mm: tuple[float, float, float] = (0.0, 0.0, 0.0),
    ) -> CArmView:
        """A view from patient positioner angles.

        Parameters
        ----------
        primary_deg, secondary_deg
            Patient angles in degrees, LAO and CRA positive (see :func:`patient_angles` for gantry angles).
        sid_mm, sod_mm
            Source to image (detector) and source to object (isocentre) distance.
        pixel_spacing_mm
            (row spacing, column spacing) **at the detector**, as DICOM ImagerPixelSpacing orders them.
        principal_point_px
            (column, row) where the perpendicular from the source meets the detector; the image centre by default.
        table_offset_mm
            The isocentre's position in the frame wanted, when the table moved between views.

        Raises
        ------
        FluoroGuideError
            A distance or spacing that is not positive, or a detector nearer than the isocentre.
        """
        for name, value in (("SID", sid_mm), ("SOD", sod_mm), ("row spacing", pixel_spacing_mm[0]), ("column spacing", pixel_spacing_mm[1])):
            if not isinstance(value, (int, float, np.number)) or not 0 < value < np.inf:
                raise FluoroGuideError(f"The {name} must be a positive number of mm", value, "Enter it in the C-arm card.")
        if sid_mm <= sod_mm:
            distances = f"SID {sid_mm} mm, SOD {sod_mm} mm"
            raise FluoroGuideError("The detector would lie between source and isocentre", distances, "Check both distances.")
        u, v, d = beam_axes(primary_deg, secondary_deg)
        column, row = ((columns - 1) / 2, (rows - 1) / 2) if principal_point_px is None else principal_point_px
        u, v = u * pixel_spacing_mm[1], v * pixel_spacing_mm[0]
        shift = np.asarray(table_offset_mm, float)
        return cls(rows, columns, shift - sod_mm * d, shift + (sid_mm - sod_mm) * d - column * u - row * v, u, v)

    @classmethod
    def from_projection_matrix(cls, matrix: np.ndarray, rows: int, columns: int, *, plane_distance_mm: float = 1000.0) -> CArmView:
        """A view from a calibrated 3x4 matrix, LPS mm (homogeneous) to homogeneous (column, row).

        The third row must be positive for points in front of the source.  A matrix does not say where the detector
        is; it is put ``plane_distance_mm`` from the source along the principal axis, which changes no projection.
        """
        matrix = np.asarray(matrix, float)
        if matrix.shape != (3, 4) or not np.isfinite(matrix).all() or abs(np.linalg.det(matrix[:, :3])) <= 1e-12 * np.abs(matrix[:, :3]).max() ** 3:
            raise FluoroGuideError("The projection matrix is not an invertible finite 3x4 matrix", matrix.shape, "Check the calibration file.")
        back = np.linalg.inv(matrix[:, :3])
        source = -back @ matrix[:, 3]
        scale = plane_distance_mm * np.linalg.norm(matrix[2, :3])
        return cls(rows, columns, source, source + scale * back[:, 2], scale * back[:, 0], scale * back[:, 1])

    # ---- derived quantities -------------------------------------------------------------------------------------
    @property
    def _normal(self) -> np.ndarray:
        n = np.cross(self.row_step_mm, self.column_step_mm)
        return n / np.linalg.norm(n)

    @property
    def _signed_distance(self) -> float:
        return float((self.first_pixel_mm - self.source_mm) @ self._normal)

    @property
    def beam(self) -> np.ndarray:
        """Unit vector (3,), perpendicular to the detector, pointing from the source to it (``d``)."""
        return self._normal * np.sign(self._signed_distance)

    @property
    def sid_mm(self) -> float:
        """Source to image distance, perpendicular to the detector."""
        return abs(self._signed_distance)

    @property
    def sod_mm(self) -> float:
        """Distance along the beam from the source to the plane through the isocentre (the frame's origin)."""
        return float(-self.source_mm @ self.beam)

    @property
    def angles_deg(self) -> tuple[float, float]:
        """(primary, secondary) patient angles of the detector's normal, degrees."""
        return angles_of_beam(self.beam)

    @property
    def pixel_spacing_mm(self) -> tuple[float, float]:
        """(row spacing, column spacing) at the detector."""
        return float(np.linalg.norm(self.row_step_mm)), float(np.linalg.norm(self.column_step_mm))

    @property
    def principal_point_px(self) -> tuple[float, float]:
        """(column, row) where the perpendicular from the source meets the detector."""
        column, row = self.project(self.source_mm + self.beam)[0]
        return float(column), float(row)

    @property
    def detector_center_mm(self) -> np.ndarray:
        """Centre (3,) of the image."""
        return self.pixel_mm(((self.columns - 1) / 2, (self.rows - 1) / 2))[0]

    @property
    def projection_matrix(self) -> np.ndarray:
        """3x4 matrix, LPS mm to homogeneous (column, row, 1); its third row is the depth from the source in units of SID."""
        basis = np.column_stack([self.column_step_mm, self.row_step_mm, self.first_pixel_mm - self.source_mm])
        back = np.linalg.inv(basis)
        return np.column_stack([back, -back @ self.source_mm])

    # ---- projection ---------------------------------------------------------------------------------------------
    def depth_mm(self, points_mm: np.ndarray) -> np.ndarray:
        """Distance (N,) of points (N, 3) in front of the source, along the beam; negative behind it."""
        return (np.atleast_2d(points_mm) - self.source_mm) @ self.beam

    def project(self, points_mm: np.ndarray) -> np.ndarray:
        """Pixels (N, 2) as (column, row) of isocentre points (N, 3); NaN for points not in front of the source."""
        homogeneous = np.atleast_2d(np.asarray(points_mm, float)) @ self.projection_matrix[:, :3].T + self.projection_matrix[:, 3]
        with np.errstate(divide="ignore", invalid="ignore"):
            pixels = homogeneous[:, :2] / homogeneous[:, 2:]
        pixels[homogeneous[:, 2] <= 0] = np.nan
        return pixels

    def project_jacobian(self, points_mm: np.ndarray) -> np.ndarray:
        """d(column, row) / d(point), shape (N, 2, 3), pixels per mm."""
        matrix = self.projection_matrix
        homogeneous = np.atleast_2d(np.asarray(points_mm, float)) @ matrix[:, :3].T + matrix[:, 3]
        pixels = homogeneous[:, :2] / homogeneous[:, 2:]
        return (matrix[None, :2, :3] - pixels[:, :, None] * matrix[None, 2:, :3]) / homogeneous[:, 2, None, None]

    def pixel_mm(self, pixels: np.ndarray) -> np.ndarray:
        """Points (N, 3) on the detector of pixels (N, 2) given as (column, row)."""
        pixels = np.atleast_2d(np.asarray(pixels, float))
        return self.first_pixel_mm + pixels[:, :1] * self.column_step_mm + pixels[:, 1:] * self.row_step_mm

    def ray_directions(self, pixels: np.ndarray) -> np.ndarray:
        """Unit vectors (N, 3) from the source through pixels (N, 2) given as (column, row)."""
        rays = self.pixel_mm(pixels) - self.source_mm
        return rays / np.linalg.norm(rays, axis=1, keepdims=True)

    def mm_per_pixel_at(self, point_mm: np.ndarray) -> float:
        """Object-plane size in mm of one pixel (geometric mean of both directions) at the depth of a point (3,)."""
        spacing = np.sqrt(np.prod(self.pixel_spacing_mm))
        return float(spacing * self.depth_mm(point_mm)[0] / self.sid_mm)

    # ---- changed copies -----------------------------------------------------------------------------------------
    def moved(self, matrix: np.ndarray) -> CArmView:
        """The view carried along by a rigid motion (4x4) of space."""
        rotation = np.asarray(matrix, float)[:3, :3]
        return dataclasses.replace(
            self, source_mm=apply(matrix, self.source_mm), first_pixel_mm=apply(matrix, self.first_pixel_mm),
            column_step_mm=rotation @ self.column_step_mm, row_step_mm=rotation @ self.row_step_mm,
        )

    def in_volume(self, pose: np.ndarray) -> CArmView:
        """The view in the volume's own LPS frame, for a pose volume -> isocentre (4x4)."""
        return self.moved(inverse(pose))

    def resampled(self, rows: int, columns: int) -> CArmView:
        """The same detector area with another number of pixels (outer borders kept, so half-pixel shifts are right)."""
        fr, fc = self.rows / rows, self.columns / columns
        corner = self.first_pixel_mm - 0.5 * self.row_step_mm - 0.5 * self.column_step_mm
        row_step, column_step = self.row_step_mm * fr, self.column_step_mm * fc
        return CArmView(rows, columns, self.source_mm, corner + 0.5 * row_step + 0.5 * column_step, column_step, row_step)

    def cropped(self, first_column: int, first_row: int, columns: int, rows: int) -> CArmView:
        """A rectangle of the detector, in whole pixels."""
        first = self.pixel_mm((first_column, first_row))[0]
        return dataclasses.replace(self, rows=rows, columns=columns, first_pixel_mm=first)

    # ---- plain data ---------------------------------------------------------------------------------------------
    def to_dict(self) -> dict:
        """Plain numbers for JSON; :meth:`from_dict` reads them back without loss."""
        data = dataclasses.asdict(self)
        return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in data.items()}

    @classmethod
    def from_dict(cls, data: dict) -> CArmView:
        """The view written by :meth:`to_dict`."""
        return cls(**{f.name: data[f.name] for f in dataclasses.fields(cls)})

"""Simulated fluoroscopy with known truth, from a CT or from a phantom.

The projectors are not those of registration: closed forms for phantoms, RTK (or a plain march) for CT; resolution,
attenuation law, noise, scatter and grey values differ too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ..anatomy.attenuation import WATER_ATTENUATION_PER_MM
from ..errors import FluoroGuideError
from ..geometry.carm import CArmView, describe_angles
from ..geometry.rigid import apply, check_rigid
from .metal import Needle, Wire, steel_path_mm
from .motion import move_parts, move_surroundings
from .physics import SimulatedImage, SimulationOptions, expose
from .voxel_paths import VoxelPaths

__all__ = [
    "Needle", "SimulatedImage", "SimulationOptions", "Wire", "move_parts", "move_surroundings", "prepare", "simulate_case", "simulate_view",
]


class _PhantomPaths:
    """The closed forms of a phantom in the simulator's unit, mm of water."""

    projector = "closed form"

    def __init__(self, phantom: object) -> None:
        self._phantom = phantom

    def integrals(self, view: CArmView, pose: np.ndarray) -> dict[str, np.ndarray]:
        return {k: v / np.float32(WATER_ATTENUATION_PER_MM) for k, v in self._phantom.line_integrals(view, pose).items()}


def prepare(volume: object, views: Sequence[CArmView], pose: np.ndarray, options: SimulationOptions, rng: np.random.Generator) -> object:
    """What :func:`simulate_view` needs of a volume, made once for several views: pass it in the volume's place.

    Parameters
    ----------
    volume
        SimpleITK CT in HU, or a phantom with ``line_integrals(view, pose)`` (:class:`~.phantom.LumbarPhantom`).
    views, pose
        All views to come: they decide how far a truncated body is continued.
    """
    if isinstance(volume, (VoxelPaths, _PhantomPaths)):
        return volume
    if hasattr(volume, "line_integrals"):
        return _PhantomPaths(volume)
    return VoxelPaths(
        volume, extend_body=options.extend_body, views_lps=[v.in_volume(pose) for v in views], soft_mismatch=options.soft_mismatch,
        projector=options.projector, rng=rng,
    )


def simulate_view(
    volume: object, view: CArmView, pose: np.ndarray, needles: Sequence[Needle | Wire] = (), options: SimulationOptions | None = None,
    rng: np.random.Generator | int | None = None,
) -> SimulatedImage:
    """One simulated run.

    Parameters
    ----------
    volume
        SimpleITK CT in HU, a phantom, or what :func:`prepare` made of one.
    view
        Isocentre LPS mm.
    pose
        4x4, volume LPS -> isocentre.
    needles
        Needles and wires in volume LPS.
    rng
        Random generator or seed (0 when not given).

    Raises
    ------
    FluoroGuideError
        A pose that is not rigid or puts the volume behind the source, or options that cannot be met.
    """
    options = options or SimulationOptions()
    rng = np.random.default_rng(0 if rng is None else rng)
    pose = check_rigid(pose)
    source = prepare(volume, [view], pose, options, rng)
    paths = source.integrals(view, pose)
    if not any(p.any() for p in paths.values()):
        raise FluoroGuideError("No ray of the view meets the volume", describe_angles(*view.angles_deg), "Check the pose and the distances")
    steel = steel_path_mm(needles, view, pose)
    frames, mask, shutter, facts = expose(paths, steel, view, options, rng)
    line_integral = ((paths["soft"] + paths["bone"]) * WATER_ATTENUATION_PER_MM).astype(np.float32)
    return SimulatedImage(frames, line_integral, mask, steel > 0.02, view, options, shutter, {**facts, "projector": source.projector})


def simulate_case(
    volume: object, angles: Sequence[tuple[float, float]], pose: np.ndarray, output_dir: str | Path, *, needles: Sequence[Needle | Wire] = (),
    needle: Needle | None = None, options: SimulationOptions | None = None, seed: int = 0, sid_mm: float = 1050.0, sod_mm: float = 700.0,
    rows: int = 512, columns: int = 512, pixel_spacing_mm: tuple[float, float] = (0.6, 0.6), volume_name: str = "",
    progress: Callable[[float], None] | None = None,
) -> Path:
    """A case in a folder: ``view_A.dcm``, ``view_B.dcm``, ... (DICOM XA) and ``truth.json``.

    Parameters
    ----------
    volume, pose, needles, options
        As for :func:`simulate_view`.
    angles
        (primary, secondary) patient angles per view, degrees, LAO and CRA positive.
    needle
        A single needle; the same as ``needles=[needle]``.
    seed
        Decides everything random.
    sid_mm, sod_mm, rows, columns, pixel_spacing_mm
        The C-arm; spacing (row, column) at the detector.
    volume_name
        A name for people, without patient identifiers, for ``truth.json``.
    progress
        Called with the share done, 0..1.

    Returns
    -------
    Path of ``truth.json``.
    """
    from ..imaging.dicom_xa import write_xa

    options = options or SimulationOptions.preset("fluoroscopy")
    needles = [*needles, *([needle] if needle is not None else [])]
    pose = check_rigid(pose)
    if not 1 <= len(angles) <= 26:
        raise FluoroGuideError("A case needs 1 to 26 views", len(angles), "Give one (primary, secondary) pair per view")
    carm = {"sid_mm": sid_mm, "sod_mm": sod_mm, "rows": rows, "columns": columns, "pixel_spacing_mm": tuple(pixel_spacing_mm)}
    views = [CArmView.from_angles(a, b, **carm) for a, b in angles]
    rng = np.random.default_rng(seed)
    source = prepare(volume, views, pose, options, rng)
    output = Path(output_dir)
    output.mkdir(parents=True, exist_ok=True)
    study, described = _study_uid(), []
    for n, (view, (primary, secondary)) in enumerate(zip(views, angles, strict=True)):
        image = simulate_view(source, view, pose, needles, options, rng)
        name = f"view_{chr(ord('A') + n)}.dcm"
        write_xa(
            output / name, image.frames, primary_deg=primary, secondary_deg=secondary, sid_mm=sid_mm, sod_mm=sod_mm,
            pixel_spacing_mm=tuple(pixel_spacing_mm), kvp=image.facts["kvp"], frame_time_ms=options.frame_time_ms if options.frames > 1 else None,
            intensity_relationship=options.gray, bits_stored=8 if options.gray == "DISP" else options.bits, shutter=image.shutter,
            patient_orientation=patient_orientation(view), dap_dgy_cm2=image.facts["dap_dgy_cm2"], tube_current_ma=image.facts["tube_current_ma"],
            exposure_time_ms=image.facts["exposure_time_ms"], study_uid=study, instance_number=n + 1,
        )
        if options.tell_polarity:
            _tell_polarity(output / name)
        described.append({"file": name, "primary_deg": primary, "secondary_deg": secondary, **carm, "view": view.to_dict(), **image.facts})
        if progress:
            progress((n + 1) / len(views))
    return _write_truth(output / "truth.json", pose, described, needles, options, seed, volume_name)


def patient_orientation(view: CArmView) -> tuple[str, str]:
    """DICOM Patient Orientation (0020,0020): where rows and columns of the image run, ``("L", "F")`` for an AP view.

    Letters in falling order of their share; shares below 0.1 are left out.
    """
    def letters(direction: np.ndarray) -> str:
        unit = direction / np.linalg.norm(direction)
        names = [("L", "R"), ("P", "A"), ("H", "F")]
        return "".join(names[i][0 if unit[i] > 0 else 1] for i in np.argsort(-np.abs(unit)) if abs(unit[i]) > 0.1)

    return letters(view.column_step_mm), letters(view.row_step_mm)


def _tell_polarity(path: Path) -> None:
    """Add Pixel Intensity Relationship Sign 1: lower values mean less X-ray intensity (PS3.3 C.8.11.3.1.2)."""
    import pydicom

    dataset = pydicom.dcmread(path)
    dataset.PixelIntensityRelationshipSign = 1
    dataset.save_as(path)


def _study_uid() -> str:
    from pydicom.uid import generate_uid

    return str(generate_uid())


def _write_truth(
    path: Path, pose: np.ndarray, views: list[dict], needles: Sequence[Needle | Wire], options: SimulationOptions, seed: int, volume_name: str,
) -> Path:
    from .. import __version__

    metal = []
    for thing in needles:
        entry = thing.to_dict()
        for key in [k for k in entry if k.endswith("_lps_mm")]:
            entry[key.replace("_lps_mm", "_isocenter_mm")] = apply(pose, np.array(entry[key])).tolist()
        metal.append({"kind": type(thing).__name__.lower(), **entry})
    truth = {
        "simulated": True, "pose_matrix": pose.tolist(), "pose_maps": "volume LPS mm to isocentre LPS mm", "volume": volume_name, "views": views,
        "needles": [m for m in metal if m["kind"] == "needle"], "wires": [m for m in metal if m["kind"] == "wire"],
        "options": options.to_dict(), "seed": seed, "version": __version__,
    }
    path.write_text(json.dumps(truth, indent=1), encoding="utf-8")
    return path

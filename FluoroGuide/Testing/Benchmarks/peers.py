"""The projectors that are compared: ours and other people's, behind one call.

Each factory takes a SimpleITK image of attenuation (1/mm; axes along L, P, S) and a :class:`CArmView` in the image's own
LPS frame, and returns a function that renders one DRR (rows, columns) as line integrals.  A peer that is not installed
raises ``ImportError``.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from harness import child_seconds

from FluoroGuideLib.geometry.carm import CArmView
from FluoroGuideLib.projection.joseph import Projector, pixel_distances

Render = Callable[[], np.ndarray]
IDENTITY = np.eye(4)


# ---- ours -------------------------------------------------------------------------------------------------------------
def ours(image: object, view: CArmView) -> Render:
    """Projector.project, compiled kernels."""
    projector, distances = Projector(image, "numba"), pixel_distances(view)
    return lambda: projector.project(view, IDENTITY, None, distances)


def ours_with_jacobian(image: object, view: CArmView) -> Render:
    """The same with the exact derivative by six pose parameters."""
    projector, distances = Projector(image, "numba"), pixel_distances(view)
    return lambda: projector.project_with_jacobian(view, IDENTITY, np.zeros(3), None, distances)[0]


def ours_numpy(image: object, view: CArmView) -> Render:
    """The numpy kernels, which run where numba is not installed."""
    projector, distances = Projector(image, "numpy"), pixel_distances(view)
    return lambda: projector.project(view, IDENTITY, None, distances)


def ours_numpy_with_jacobian(image: object, view: CArmView) -> Render:
    """The numpy kernels with the derivative."""
    projector, distances = Projector(image, "numpy"), pixel_distances(view)
    return lambda: projector.project_with_jacobian(view, IDENTITY, np.zeros(3), None, distances)[0]


# ---- ITK --------------------------------------------------------------------------------------------------------------
def itk_image(image: object, origin: bool = True) -> object:
    """A SimpleITK image as ``itk.Image[F, 3]``; without its origin on request."""
    import itk
    import SimpleITK as sitk

    result = itk.image_from_array(sitk.GetArrayFromImage(image).astype(np.float32))
    result.SetSpacing(image.GetSpacing())
    if origin:
        result.SetOrigin(image.GetOrigin())
    return result


def rtk_joseph(image: object, view: CArmView) -> Render:
    """itk-rtk, JosephForwardProjectionImageFilter; the filter and its geometry are made in each call, as a new pose needs."""
    import itk

    rtk = itk.RTK
    volume, kind = itk_image(image), itk.Image[itk.F, 3]
    point, vector = itk.Point[itk.D, 3], itk.Vector[itk.D, 3]
    column_mm, row_mm = (float(np.linalg.norm(s)) for s in (view.column_step_mm, view.row_step_mm))

    def render() -> np.ndarray:
        empty = itk.image_from_array(np.zeros((1, view.rows, view.columns), np.float32))  # the filter works in its place
        empty.SetSpacing([column_mm, row_mm, 1.0])
        geometry = rtk.ThreeDCircularProjectionGeometry.New()
        geometry.AddProjection(
            point(view.source_mm.tolist()), point(view.first_pixel_mm.tolist()), vector((view.column_step_mm / column_mm).tolist()),
            vector((view.row_step_mm / row_mm).tolist()),
        )
        projector = rtk.JosephForwardProjectionImageFilter[kind, kind].New()
        projector.SetInput(0, empty)
        projector.SetInput(1, volume)
        projector.SetGeometry(geometry)
        projector.Update()
        return itk.array_from_image(projector.GetOutput())[0]

    return render


def itk_siddon(image: object, view: CArmView) -> Render:
    """ITK SiddonJacobsRayCastInterpolateImageFunction (package itk-twoprojectionregistration) in a ResampleImageFilter.

    It takes the corner of the volume's first voxel as the origin whatever the image says, and returns the integral divided by the
    ray's length: both are undone here.  Its world has the source at (0, -distance, 0), the beam along +y, image columns
    along +x and image rows along +z; the transform maps the volume there.
    """
    import itk

    if not hasattr(itk, "SiddonJacobsRayCastInterpolateImageFunction"):
        raise ImportError("itk-twoprojectionregistration")
    volume, kind = itk_image(image, origin=False), itk.Image[itk.F, 3]
    column_mm, row_mm = (float(np.linalg.norm(s)) for s in (view.column_step_mm, view.row_step_mm))
    rotation = np.array([view.column_step_mm / column_mm, view.beam, view.row_step_mm / row_mm])
    corner = rotation @ (view.first_pixel_mm - view.source_mm)
    first_corner = np.array(image.GetOrigin()) - 0.5 * np.array(image.GetSpacing())
    shift = rotation @ (first_corner - view.source_mm) + [0.0, -view.sod_mm, 0.0]
    lengths = pixel_distances(view)

    def render() -> np.ndarray:
        transform = itk.Euler3DTransform[itk.D].New()
        transform.SetMatrix(itk.matrix_from_array(rotation))
        transform.SetTranslation(shift.tolist())
        interpolator = itk.SiddonJacobsRayCastInterpolateImageFunction[kind, itk.D].New()
        interpolator.SetProjectionAngle(0.0)
        interpolator.SetFocalPointToIsocenterDistance(view.sod_mm)
        interpolator.SetThreshold(0.0)
        interpolator.SetTransform(transform)
        interpolator.Initialize()
        resample = itk.ResampleImageFilter[kind, kind].New()
        resample.SetInput(volume)
        resample.SetInterpolator(interpolator)
        resample.SetSize([view.columns, view.rows, 1])
        resample.SetOutputSpacing([column_mm, row_mm, 1.0])
        resample.SetOutputOrigin([corner[0], corner[2], -view.sid_mm])
        resample.Update()
        return itk.array_from_image(resample.GetOutput())[0] * lengths

    return render


def sitk_frustum(image: object, view: CArmView) -> Render:
    """SimpleITK alone: the volume resampled on a grid of (column, row, part of the ray), then summed along the ray.

    The map from grid to space is linear in each coordinate alone, so a displacement field of 2x2x2 nodes holds it exactly.
    """
    import SimpleITK as sitk

    spacing = min(image.GetSpacing())
    size = np.array(image.GetSize())
    index = np.stack(np.meshgrid(*[(-0.5, n - 0.5) for n in size], indexing="ij"), -1).reshape(-1, 3)
    corners = np.array([image.TransformContinuousIndexToPhysicalPoint(i.tolist()) for i in index])
    part = view.depth_mm(corners) / view.sid_mm
    near, far = max(float(part.min()), 1e-3), float(part.max())
    steps = int(np.ceil((far - near) * view.sid_mm / spacing))
    step = (far - near) / steps
    lengths = pixel_distances(view) * np.float32(step)

    def render() -> np.ndarray:
        # one pixel of margin around: points on the field's very border would count as outside
        c, r, k = np.meshgrid((-1.0, view.columns), (-1.0, view.rows), (-1.0, steps), indexing="ij")
        grid = np.stack([c, r, k], -1)
        pixel = view.first_pixel_mm + c[..., None] * view.column_step_mm + r[..., None] * view.row_step_mm
        there = view.source_mm + (near + (k[..., None] + 0.5) * step) * (pixel - view.source_mm)
        field = sitk.GetImageFromArray((there - grid).transpose(2, 1, 0, 3).copy(), isVector=True)
        field.SetOrigin((-1.0, -1.0, -1.0))
        field.SetSpacing((view.columns + 1.0, view.rows + 1.0, steps + 1.0))
        transform = sitk.DisplacementFieldTransform(sitk.Cast(field, sitk.sitkVectorFloat64))
        samples = sitk.Resample(
            image, [view.columns, view.rows, steps], transform, sitk.sitkLinear, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), np.eye(3).ravel().tolist(), 0.0,
        )
        return sitk.GetArrayFromImage(sitk.SumProjection(samples, 2))[0] * lengths

    return render


# ---- torch ------------------------------------------------------------------------------------------------------------
def diffdrr_siddon(image: object, view: CArmView) -> Render:
    """DiffDRR's Siddon renderer on the CPU, forward only."""
    from diffdrr.renderers import Siddon

    return _diffdrr(image, view, Siddon())


def diffdrr_trilinear(image: object, view: CArmView) -> Render:
    """DiffDRR's trilinear renderer with its default of 500 points, on the CPU, forward only."""
    from diffdrr.renderers import Trilinear

    return _diffdrr(image, view, Trilinear())


def _diffdrr(image: object, view: CArmView, renderer: object) -> Render:
    """The renderer works in voxel indices (x, y, z) of a volume [x, y, z]."""
    import SimpleITK as sitk
    import torch

    volume = torch.from_numpy(sitk.GetArrayFromImage(image).astype(np.float32).transpose(2, 1, 0).copy())
    origin, spacing = np.array(image.GetOrigin()), np.array(image.GetSpacing())

    def index(points_mm: np.ndarray) -> object:
        return torch.from_numpy(((points_mm - origin) / spacing).astype(np.float32))[None]

    lengths = torch.from_numpy(pixel_distances(view).ravel())[None, None]

    def render() -> np.ndarray:
        rows, columns = np.mgrid[: view.rows, : view.columns]
        target = index(view.pixel_mm(np.column_stack([columns.ravel(), rows.ravel()])))
        source = index(view.source_mm[None])
        with torch.no_grad():
            return renderer(volume, source, target, lengths).numpy().reshape(view.rows, view.columns)

    return render


def nanodrr(image: object, view: CArmView) -> Render:
    """nanodrr's reference backend on the CPU with its default of 500 samples per ray, forward only."""
    import SimpleITK as sitk
    import torch
    from nanodrr.data import Subject
    from nanodrr.drr import DRR

    values = torch.from_numpy(sitk.GetArrayFromImage(image).astype(np.float32))[None, None]
    world = np.eye(4)
    world[:3, :3], world[:3, 3] = np.diag(image.GetSpacing()), image.GetOrigin()
    voxel_to_world = torch.from_numpy(world.astype(np.float32))
    world_to_voxel = torch.from_numpy(np.linalg.inv(world).astype(np.float32))
    voxel_to_grid = Subject._make_voxel_to_grid(values.shape)
    subject = Subject(values, torch.zeros_like(values), voxel_to_world, world_to_voxel, voxel_to_grid, torch.zeros(3), 0, convert_to_mu=False)
    column_mm, row_mm = (float(np.linalg.norm(s)) for s in (view.column_step_mm, view.row_step_mm))
    column, row = view.principal_point_px
    shift = ((column - (view.columns - 1) / 2) * column_mm, (row - (view.rows - 1) / 2) * row_mm)
    module = DRR.from_carm_intrinsics(view.sid_mm, column_mm, row_mm, *shift, view.rows, view.columns, dtype=torch.float32)
    camera = np.eye(4)
    camera[:3] = np.column_stack([view.column_step_mm / column_mm, view.row_step_mm / row_mm, view.beam, view.source_mm])
    matrix = torch.from_numpy(camera.astype(np.float32))[None]

    def render() -> np.ndarray:
        with torch.no_grad():
            return module(subject, matrix).numpy().reshape(view.rows, view.columns)

    return render


# ---- plastimatch ------------------------------------------------------------------------------------------------------
def plastimatch_exact(image: object, view: CArmView) -> Render:
    """The program plastimatch, exact ray trace on the CPU.

    File based: the time of the same run with a detector of one pixel (start, reading the volume) is subtracted.  The isocentre
    is the frame's origin and the principal point the middle of the detector, as in all views here.
    """
    import SimpleITK as sitk

    if shutil.which("plastimatch") is None:
        raise ImportError("plastimatch")
    folder = tempfile.TemporaryDirectory(prefix="bench-")
    sitk.WriteImage(sitk.Cast(image, sitk.sitkFloat32), f"{folder.name}/volume.mha")
    normal, up = -view.beam, -view.row_step_mm / np.linalg.norm(view.row_step_mm)
    size = view.rows * np.linalg.norm(view.row_step_mm), view.columns * np.linalg.norm(view.column_step_mm)

    def run(rows: int, columns: int) -> float:
        began = child_seconds()
        command = [
            "plastimatch", "drr", "-A", "cpu", "-i", "exact", "-P", "none", "-t", "pfm", "-o", "0 0 0",
            "-n", " ".join(map(str, normal)), "--vup", " ".join(map(str, up)), "--sad", str(view.sod_mm), "--sid", str(view.sid_mm),
            "-r", f"{rows} {columns}", "-z", "{} {}".format(*size), "-I", f"{folder.name}/volume.mha", "-O", f"{folder.name}/out",
        ]
        subprocess.run(command, check=True, capture_output=True)
        return child_seconds() - began

    def render() -> np.ndarray:
        run(view.rows, view.columns)
        raw = next(Path(folder.name).glob("out*.pfm")).read_bytes()
        values = np.frombuffer(raw[-4 * view.rows * view.columns :], "<f4").reshape(view.rows, view.columns)
        return values * 10.0  # it counts lengths in cm

    render.cpu_seconds = lambda: run(view.rows, view.columns) - run(1, 1)
    render.folder = folder  # kept alive with the function
    return render


PEERS: dict[str, Callable[[object, CArmView], Render]] = {
    "FluoroGuide": ours,
    "FluoroGuide with 6-dof Jacobian": ours_with_jacobian,
    "FluoroGuide, numpy": ours_numpy,
    "FluoroGuide, numpy, with Jacobian": ours_numpy_with_jacobian,
    "itk-rtk Joseph": rtk_joseph,
    "ITK SiddonJacobs": itk_siddon,
    "SimpleITK frustum": sitk_frustum,
    "plastimatch exact": plastimatch_exact,
    "nanodrr (torch CPU)": nanodrr,
    "DiffDRR trilinear (torch CPU)": diffdrr_trilinear,
    "DiffDRR Siddon (torch CPU)": diffdrr_siddon,
}
REFERENCE = "itk-rtk Joseph"


def available(image: object, view: CArmView, without: tuple[str, ...] = ()) -> tuple[dict[str, Render], list[str]]:
    """The peers that can be made here, and the names of those that are not installed."""
    made, missing = {}, []
    for name, factory in PEERS.items():
        if name in without:
            continue
        try:
            made[name] = factory(image, view)
        except ImportError:
            missing.append(name)
    return made, missing

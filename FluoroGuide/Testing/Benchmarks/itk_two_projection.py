"""ITK's TwoProjectionImageRegistrationMethod as its own example uses it: normalised correlation, Powell, one resolution."""

from __future__ import annotations

import numpy as np
from peers import itk_image

from FluoroGuideLib.geometry.rigid import apply
from FluoroGuideLib.imaging.xray import XrayImage
from FluoroGuideLib.registration.similarity import block_mean
from FluoroGuideLib.registration.volume import resampled

PIXEL_MM, VOXEL_MM = 5.0, 3.0


class ItkTwoProjection:
    """Volume and pictures prepared for ITK: 3 mm voxels, 64 x 64 pixels of 5 mm on the detector.

    Its views turn about the patient's long axis only (secondary angle 0) at one source distance.  World of its projector:
    the isocentre is the transform's centre, the source at -distance along y turned by the projection angle; an angle of
    the C-arm's primary + 180 degrees gives our beam with image columns and rows reversed.
    """

    def __init__(self, attenuation: object, images: list[XrayImage], target_lps_mm: np.ndarray) -> None:
        import itk

        if not hasattr(itk, "TwoProjectionImageRegistrationMethod"):
            raise ImportError("itk-twoprojectionregistration")
        self.itk, self.kind = itk, itk.Image[itk.F, 3]
        moving = resampled(attenuation, VOXEL_MM)
        self.volume = itk_image(moving, origin=False)
        self.target = target_lps_mm
        self.center = target_lps_mm - np.array(moving.GetOrigin()) + 0.5 * VOXEL_MM  # it puts the first voxel's corner at 0
        self.pictures = [self._picture(image) for image in images]

    def _picture(self, image: XrayImage) -> tuple[object, float, float]:
        """ITK image, projection angle in radians, distance of the source."""
        factor = round(PIXEL_MM / image.view.pixel_spacing_mm[0])
        pixels, mask, view = block_mean(image, factor)
        pixels = np.where(mask, pixels, pixels[mask].mean())
        picture = self.itk.image_from_array(np.ascontiguousarray(pixels[::-1, ::-1], np.float32)[None])
        (row_mm, column_mm), (column, row) = view.pixel_spacing_mm, view.principal_point_px
        picture.SetSpacing([column_mm, row_mm, 1.0])
        picture.SetOrigin([-(view.columns - 1 - column) * column_mm, -(view.rows - 1 - row) * row_mm, -view.sid_mm])
        return picture, np.radians(view.angles_deg[0] + 180.0), view.sod_mm

    def _transform(self, pose: np.ndarray) -> object:
        transform = self.itk.Euler3DTransform[self.itk.D].New()
        transform.SetComputeZYX(True)
        transform.SetCenter(self.center.tolist())
        transform.SetMatrix(self.itk.matrix_from_array(np.ascontiguousarray(pose[:3, :3])))
        transform.SetTranslation(apply(pose, self.target).tolist())
        return transform

    def register(self, start: np.ndarray) -> np.ndarray:
        """Final pose (4x4)."""
        itk, kind = self.itk, self.kind
        transform = self._transform(start)
        metric = itk.NormalizedCorrelationTwoImageToOneImageMetric[kind, kind].New()
        metric.ComputeGradientOff()
        metric.SetSubtractMean(True)
        optimizer = itk.PowellOptimizer.New()
        optimizer.SetMaximize(False)
        optimizer.SetMaximumIteration(10)
        optimizer.SetMaximumLineIteration(4)
        optimizer.SetStepLength(4.0)
        optimizer.SetStepTolerance(0.02)
        optimizer.SetValueTolerance(0.001)
        scales = itk.OptimizerParameters[itk.D](6)
        for i in range(6):
            scales[i] = 180.0 / np.pi if i < 3 else 1.0
        optimizer.SetScales(scales)
        method = itk.TwoProjectionImageRegistrationMethod[kind, kind].New()
        method.SetMetric(metric)
        method.SetOptimizer(optimizer)
        method.SetTransform(transform)
        method.SetMovingImage(self.volume)
        for number, (picture, angle, distance) in enumerate(self.pictures, 1):
            interpolator = itk.SiddonJacobsRayCastInterpolateImageFunction[kind, itk.D].New()
            interpolator.SetProjectionAngle(angle)
            interpolator.SetFocalPointToIsocenterDistance(distance)
            interpolator.SetThreshold(0.0)
            interpolator.SetTransform(transform)
            interpolator.Initialize()
            getattr(method, f"SetInterpolator{number}")(interpolator)
            getattr(method, f"SetFixedImage{number}")(picture)
            getattr(method, f"SetFixedImageRegion{number}")(picture.GetBufferedRegion())
        method.SetInitialTransformParameters(transform.GetParameters())
        method.StartRegistration()
        transform.SetParameters(method.GetLastTransformParameters())
        pose = np.eye(4)
        pose[:3, :3] = itk.array_from_matrix(transform.GetMatrix())
        pose[:3, 3] = np.array(transform.GetTranslation()) - pose[:3, :3] @ self.target
        return pose

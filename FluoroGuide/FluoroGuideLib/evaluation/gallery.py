"""Pictures of single runs: each X-ray with the edges of the volume where it is (green) and where it was found (orange)."""

from __future__ import annotations

import numpy as np

from .study import Settings, Subject
from .trials import moving_volume, scene_of

TRUE_COLOR, FOUND_COLOR = (0, 200, 130), (255, 140, 0)
SIDE = 420


def picture(subject: Subject, settings: Settings, row: dict) -> bytes:
    """PNG of a finished run, made again from its scene; views side by side."""
    import io

    from PIL import Image

    moving, scene = moving_volume(subject), scene_of(subject, settings, row["scene"])
    relative = np.vstack([np.array([float(v) for v in row["pose_error"].split()]).reshape(3, 4), [0, 0, 0, 1]])
    found, projector, beyond = scene.truth @ relative, moving.projector(1.5), moving.beyond()
    tiles = []
    for image in scene.images[: row["views"]]:
        tile = np.repeat(_eight_bit(image)[..., None], 3, axis=2)
        for pose, color in ((scene.truth, TRUE_COLOR), (found, FOUND_COLOR)):
            known = image.mask if beyond is None else image.mask & (beyond.project(image.view, pose) <= 0)  # not the scan's own ends
            tile[_edges(projector.project(image.view, pose), known)] = color
        picture_of = Image.fromarray(tile)
        picture_of.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        tiles.append(picture_of)
    sheet = Image.new("RGB", (sum(t.width for t in tiles) + 6 * (len(tiles) - 1), max(t.height for t in tiles)), "white")
    left = 0
    for tile in tiles:
        sheet.paste(tile, (left, 0))
        left += tile.width + 6
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _eight_bit(image: object) -> np.ndarray:
    low, high = np.percentile(image.pixels[image.mask], (0.5, 99.5)) if image.mask.any() else (0.0, 1.0)
    gray = np.clip((image.pixels - low) / max(high - low, 1e-9), 0, 1)
    return (np.where(image.mask, 0.85, 0.35) * 255 * gray).astype(np.uint8)


def _edges(drr: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Strong edges of a projection, one pixel wide."""
    import SimpleITK as sitk

    smooth = sitk.GetArrayFromImage(sitk.GradientMagnitudeRecursiveGaussian(sitk.GetImageFromArray(drr.astype(np.float32)), 2.0))
    strong = float(np.percentile(smooth[mask], 93)) if mask.any() else 0.0
    if strong <= 0:
        return np.zeros(drr.shape, bool)
    canny = sitk.CannyEdgeDetection(sitk.GetImageFromArray(drr.astype(np.float32)), 0.4 * strong, strong, [4.0, 4.0])
    return (sitk.GetArrayFromImage(canny) > 0) & mask

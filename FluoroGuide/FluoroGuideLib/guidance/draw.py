"""Overlays as PNG pictures, without Slicer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..errors import FluoroGuideError
from ..imaging.xray import XrayImage
from .shapes import VERMILLION, Shape

LEGEND = {
    "needle": "planned needle, ticks 10 mm from the target", "achieved": "achieved needle", "target": "target", "outline": "outline",
    "bone": "bone of the registered volume", "safety": "keep clear",
    "error": "95 % registration error", "edges": "edges of the registered volume",
}


def draw_overlay_png(image: XrayImage, shapes: Sequence[Shape], path: str | Path, drr_edges: np.ndarray | None = None) -> None:
    """Draw shapes on an X-ray and write an 8-bit RGB PNG; small images are enlarged by a whole factor to 700 pixels or more.

    Parameters
    ----------
    image
        The X-ray; shown bone bright, between its 0.5 and 99.5 % quantiles in the mask, dimmed outside the field.
    shapes
        From :func:`plan_overlay`, in the pixels of ``image.view``.
    path
        File to write.
    drr_edges
        (rows, columns), bool or 0..1: edges of the projected volume, drawn in vermillion.

    Raises
    ------
    FluoroGuideError
        ``drr_edges`` of another size, or a path that cannot be written.
    """
    from PIL import Image

    rows, columns = image.pixels.shape
    enlarge = max(1, int(np.ceil(700 / max(rows, columns))))
    picture = Image.fromarray(_eight_bit(image)).resize((columns * enlarge, rows * enlarge), Image.Resampling.BICUBIC).convert("RGBA")
    legend = {s.role: s.color for s in shapes if s.role in LEGEND}
    if drr_edges is not None:
        if np.shape(drr_edges) != (rows, columns):
            raise FluoroGuideError("The projected edges have another size than the X-ray", f"{np.shape(drr_edges)} and {(rows, columns)}")
        alpha = Image.fromarray((np.clip(np.asarray(drr_edges, float), 0, 1) * 200).astype(np.uint8)).resize(picture.size, Image.Resampling.BILINEAR)
        picture.paste(Image.new("RGBA", picture.size, VERMILLION), (0, 0), alpha)
        legend["edges"] = VERMILLION
    picture.alpha_composite(_line_layer(shapes, picture.size, enlarge))
    _write_texts(picture, shapes, enlarge, legend)
    try:
        picture.convert("RGB").save(path, format="PNG")
    except OSError as error:
        raise FluoroGuideError(f"{Path(path).name} cannot be written", error.strerror, "Choose a folder that exists and has space") from None


def _eight_bit(image: XrayImage) -> np.ndarray:
    """uint8 (rows, columns) for the eye."""
    shown = image.pixels[image.mask] if image.mask.any() else image.pixels[np.isfinite(image.pixels)]
    low, high = np.percentile(shown, (0.5, 99.5)) if shown.size else (0.0, 1.0)
    gray = np.clip((np.nan_to_num(image.pixels, nan=low) - low) / max(high - low, 1e-12), 0, 1) * 235
    return np.where(_outside(image.mask), 0.25 * gray, gray).astype(np.uint8)


def _outside(mask: np.ndarray) -> np.ndarray:
    """Masked pixels that reach the picture's border: shutters and beyond the field, not metal or saturated bone inside it."""
    from scipy.ndimage import label

    parts, _ = label(~mask)
    border = np.unique(np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]]))
    return np.isin(parts, border[border > 0])


def _line_layer(shapes: Sequence[Shape], size: tuple[int, int], enlarge: int) -> object:
    """RGBA picture of all polylines with a dark rim, anti-aliased by drawing three times as large."""
    from PIL import Image, ImageDraw

    fine = 3
    layer = Image.new("RGBA", (size[0] * fine, size[1] * fine), (0, 0, 0, 0))
    draw = ImageDraw.Draw(layer)
    pen = fine * max(1.0, max(size) / 1024)
    for rim in (True, False):
        for shape in shapes:
            if len(shape.pixels) < 2 or (rim and shape.role == "hidden"):  # hidden parts stay in the background
                continue
            # The centre of pixel 0 lies half an (enlarged) pixel inside the picture.
            points = [tuple(p) for p in (np.asarray(shape.pixels) + 0.5) * enlarge * fine - 0.5]
            width = max(1, round(shape.width * pen + (1.2 * pen if rim else 0)))
            draw.line(points, fill=(0, 0, 0, 255) if rim else shape.color, width=width, joint="curve")
    return layer.resize(size, Image.Resampling.BOX)


def _write_texts(picture: object, shapes: Sequence[Shape], enlarge: int, legend: Mapping[str, tuple]) -> None:
    from PIL import ImageDraw, ImageFont

    draw, size = ImageDraw.Draw(picture), picture.size
    height = max(11, round(max(size) / 62))
    font = ImageFont.load_default(height)
    taken: list[tuple[float, float, float, float]] = []

    def write(x: float, y: float, text: str, color: tuple, anchor: str) -> None:
        box = draw.textbbox((x, y), text, font=font, anchor=anchor)
        x += max(2 - box[0], 0) - max(box[2] - size[0] + 2, 0)
        # Texts move down until they cover no other: two targets of one joint lie close together.
        while any(box[0] < t[2] and t[0] < box[2] and y - height / 2 < t[3] and t[1] < y + height / 2 for t in taken) and y < size[1] - 2 * height:
            y += height / 2
        box = draw.textbbox((x, y), text, font=font, anchor=anchor)
        taken.append((box[0], y - height / 2, box[2], y + height / 2))
        draw.text((x, y), text, font=font, fill=color, anchor=anchor, stroke_width=max(1, height // 8), stroke_fill=(0, 0, 0, 255))

    for line, (role, color) in enumerate(reversed(legend.items())):
        write(height / 2, size[1] - height * (0.8 + 1.3 * line), f"- {LEGEND[role]}", color, "lm")
    for shape in sorted((s for s in shapes if s.text), key=lambda s: s.role not in ("status", "orientation")):
        x, y = (np.asarray(shape.pixels[0]) + 0.5) * enlarge
        if shape.role == "orientation":
            write(x, y, shape.text, shape.color, "mm")
        elif shape.role == "status":
            write(x, y + height / 2, shape.text, shape.color, "lm")
        else:
            write(x + height, y, shape.text, shape.color, "lm")

#!/usr/bin/env python3
"""Make the pictures of README, tutorial, sample data and extension index from the phantom (no patient's image): ``make pictures``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps

ROOT = Path(__file__).resolve().parents[1]
THUMBNAIL = (260, 280)
PICTURES = {"overlay.png": "overlay_A.png", "views.png": "views_3d_bone.png", "ct.png": "views_ct_axial.png"}


def main() -> int:
    """Run the demo offline and keep reduced copies in ``Docs/pictures``."""
    made = ROOT / "build" / "pictures"
    subprocess.run([sys.executable, "-m", "FluoroGuideLib", "demo", "--offline", "--output", str(made)], cwd=ROOT / "FluoroGuide", check=True)
    folder = ROOT / "Docs" / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in PICTURES.items():
        picture = Image.open(made / source).convert("RGB")
        picture.thumbnail((640, 640), Image.Resampling.LANCZOS)
        picture.save(folder / name, optimize=True)
        print(folder / name)
    thumbnails(folder)
    return subprocess.run([sys.executable, str(ROOT / "tools" / "panel_pictures.py")], check=False).returncode


def thumbnails(folder: Path) -> None:
    """The pictures that Slicer's Sample Data module shows: the phantom's overlay, and for the CT (whose image is not ours to spread) the icon."""
    icons = ROOT / "FluoroGuide" / "Resources" / "Icons"
    phantom = ImageOps.fit(Image.open(folder / "overlay.png").convert("RGB"), THUMBNAIL)
    phantom.save(icons / "SampleLumbarPhantom.png", optimize=True)
    card, icon = Image.new("RGB", THUMBNAIL, "#22303c"), Image.open(icons / "FluoroGuide.png").convert("RGBA").resize((128, 128))
    card.paste(icon, ((THUMBNAIL[0] - 128) // 2, 50), icon)
    ImageDraw.Draw(card).text((THUMBNAIL[0] / 2, 220), "Thorax CT", fill="white", anchor="mm", font_size=28)
    card.save(icons / "SampleThoraxCT.png", optimize=True)


if __name__ == "__main__":
    sys.exit(main())

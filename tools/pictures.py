#!/usr/bin/env python3
"""Make the pictures of README and extension index from the demo on the phantom (no patient's image): ``make pictures``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
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
    return 0


if __name__ == "__main__":
    sys.exit(main())

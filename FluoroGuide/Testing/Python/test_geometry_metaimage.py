"""MetaImage headers that crash ITK's reader are refused in one sentence; sound ones pass."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from FluoroGuideLib.errors import FluoroGuideError
from FluoroGuideLib.geometry.metaimage import check_metaimage

sitk = pytest.importorskip("SimpleITK")


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """Written by ITK itself."""
    image = sitk.GetImageFromArray(np.arange(120, dtype=np.int16).reshape(4, 5, 6))
    image.SetSpacing((0.7, 0.8, 2.5))
    sitk.WriteImage(image, str(tmp_path / "v.mha"))
    return tmp_path / "v.mha"


def test_what_itk_writes_is_sound(sound: Path) -> None:
    check_metaimage(sound, "volume")
    for suffix in ("v.nrrd", "v.png"):
        check_metaimage(sound.with_name(suffix), "volume")  # other kinds are not looked at, not even opened


@pytest.mark.parametrize(("old", "new"), [
    (b"NDims = 3", b"NDims = 1e99"),  # this one crashed ITK's MetaIO
    (b"NDims = 3", b"NDims = 2"), (b"NDims = 3\n", b""), (b"DimSize = 6 5 4", b"DimSize = 6 5"),
    (b"Offset = 0 0 0", b"Offset = 0 nan 0"), (b"ElementSpacing = 0.6", b"ElementSpacing = 1e9"),
])
def test_no_numbers_and_wrong_counts_are_refused(sound: Path, old: bytes, new: bytes) -> None:
    data = sound.read_bytes()
    assert old in data
    sound.write_bytes(data.replace(old, new, 1))
    with pytest.raises(FluoroGuideError, match="volume's header") as caught:
        check_metaimage(sound, "volume")
    assert "\n" not in str(caught.value)


def test_volumes_segmentations_and_pictures_are_checked(sound: Path) -> None:
    from FluoroGuideLib.anatomy.attenuation import read_volume
    from FluoroGuideLib.anatomy.segments import read_segmentation
    from FluoroGuideLib.imaging.sources import open_xray

    sound.write_bytes(sound.read_bytes().replace(b"NDims = 3", b"NDims = 1e99"))
    for read in (read_volume, read_segmentation, open_xray):
        with pytest.raises(FluoroGuideError, match="header holds a geometry"):
            read(sound)

"""Planning on real CTs: SI joint, hip and L5/S1 facet of the pelvis, the L1 pedicle of the thorax.

Where the positions ought to be was read off the pictures in three planes (pelvis) or follows from the label image itself
(thorax); the clearance that a suggestion claims is checked by brute force.
"""

from __future__ import annotations

import hashlib
import inspect
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from test_planning_safety import brute_mm

from FluoroGuideLib.anatomy import parts
from FluoroGuideLib.anatomy.skin import body_mask
from FluoroGuideLib.errors import FluoroGuideError
from FluoroGuideLib.planning.approach import Room
from FluoroGuideLib.planning.carms import carm
from FluoroGuideLib.planning.landmarks import TargetSuggestion, facet, hip, pedicle, si_joint
from FluoroGuideLib.planning.procedures import load_library
from FluoroGuideLib.planning.safety import Structure, structures_from_labels
from FluoroGuideLib.planning.suggest import Rules, suggest

# Bridged joints of this specimen (osteophytes at L5/S1, the scan's lower end cuts the hips): one point per bone and
# joint, placed by eye in three planes, LPS mm.
SEEDS = {
    "vertebrae_L5": [(230, 305, 1005), (262, 305, 1005), (230, 301, 1000), (265, 301, 1000)],
    "sacrum": [(222, 293, 1005), (272, 297, 1005), (220, 291, 1000), (275, 293, 1000), (264, 310, 987), (232, 310, 987), (208, 288, 960)],
    "hip_right": [(150, 268, 905), (160, 221, 905)],
    "hip_left": [(345, 268, 905), (338, 221, 905)],
}
NAMES = parts.PELVIS_LABELS


@pytest.fixture(scope="module")
def pelvis(data_dir: Path, request: pytest.FixtureRequest) -> tuple[sitk.Image, sitk.Image, sitk.Image]:
    """The pelvis CT, its bone parts and its body (kept between runs: they take about 20 s of one processor)."""
    image = sitk.ReadImage(str(data_dir / "ct_pelvis_visible_human_female" / "vhf_pelvis_1mm.nii.gz"))
    key = hashlib.sha256((inspect.getsource(parts) + repr(SEEDS)).encode()).hexdigest()[:16]
    kept = Path(request.config.cache.mkdir("pelvis_parts")) / f"{key}.nrrd"
    if not kept.is_file():
        sitk.WriteImage(parts.pelvis_parts(image, SEEDS).labels, str(kept), True)
    return image, sitk.ReadImage(str(kept)), body_mask(image)


@pytest.mark.slow
def test_bone_parts_of_the_pelvis(pelvis: tuple[sitk.Image, sitk.Image, sitk.Image]) -> None:
    image, labels, _ = pelvis
    array = sitk.GetArrayViewFromImage(labels)

    def at(i: int, j: int, k: int) -> str | None:
        """The commonest bone within 2 voxels of an index read off the pictures."""
        near = array[max(k - 2, 0):k + 3, j - 2:j + 3, i - 2:i + 3]
        return NAMES.get(int(np.bincount(near[near > 0], minlength=1).argmax())) if (near > 0).any() else None

    assert at(226, 180, 110) == "vertebrae_L5"
    assert at(228, 190, 85) == "sacrum"
    assert at(228, 243, 45) == "sacrum"
    assert at(300, 225, 75) == "hip_left"
    assert at(162, 220, 75) == "hip_right"
    assert at(327, 153, 2) == "femur_left"
    assert at(129, 156, 2) == "femur_right"
    # Facet joints at z = 1005 (slice 105): articular process of S1 in front and outside, of L5 behind and inside.
    assert (at(202, 205, 105), at(210, 217, 105)) == ("sacrum", "vertebrae_L5")
    assert (at(252, 209, 105), at(242, 217, 105)) == ("sacrum", "vertebrae_L5")
    assert at(225, 100, 60) is None
    # The hips are mirror images in size to a few per cent, and no bone voxel above 400 HU of the trunk stays unlabelled.
    sizes = np.bincount(array.ravel(), minlength=8)
    assert 0.8 < sizes[2] / sizes[3] < 1.25
    hard = sitk.GetArrayViewFromImage(image)[20:120, 120:240, 150:310] > 400
    assert (array[20:120, 120:240, 150:310][hard] > 0).mean() > 0.97
    assert array[:, :90, :80].max() == 0  # the hands


PELVIS = {
    # name -> (function, where it should be within 12 mm, patient position, cone)
    "si_joint_left": (lambda lab: si_joint(lab, NAMES, "left"), (303, 325, 963), "HFP", 35),
    "si_joint_right": (lambda lab: si_joint(lab, NAMES, "right"), (200, 319, 961), "HFP", 35),
    "facet_left": (lambda lab: facet(lab, NAMES, "vertebrae_L5", "sacrum", "left"), (267, 304, 997), "HFP", 40),
    "facet_right": (lambda lab: facet(lab, NAMES, "vertebrae_L5", "sacrum", "right"), (227, 302, 996), "HFP", 40),
    "hip_left": (lambda lab: hip(lab, NAMES, "left"), (352, 224, 903), "HFS", 40),
    "hip_right": (lambda lab: hip(lab, NAMES, "right"), (145, 228, 903), "HFS", 40),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PELVIS)
def test_pelvis_targets_and_suggestions(pelvis: tuple[sitk.Image, sitk.Image, sitk.Image], name: str) -> None:
    image, labels, body = pelvis
    make, expected, position, angle = PELVIS[name]
    target: TargetSuggestion = make(labels)
    assert np.linalg.norm(target.position_lps_mm - expected) < 12
    assert 0.3 < target.confidence < 1
    assert "Confirm it in three planes" in target.text
    side = -1 if position == "HFS" else 1
    assert side * target.outward_lps[1] > 0.6
    keep_away = _neighbours(labels, target)
    room = Room(carm(), position)
    rules = Rules(target.outward_lps, angle, gauge=22, needle_length_mm=127)
    began = time.process_time()
    found = suggest(target.position_lps_mm, image, body, keep_away, room, rules)
    assert time.process_time() - began < 2.0
    for item in found[:2]:
        assert item.clearance_mm >= 5.0 - 1e-9
        claimed = item.safety.clearances[0]
        structure = next(s for s in keep_away if s.name == claimed.name)
        if claimed.distance_mm < 55:
            near = _near(structure, item.trajectory.target_lps_mm, claimed.distance_mm + 110)
            assert claimed.distance_mm == pytest.approx(brute_mm(near, item.trajectory) - 0.35, abs=0.25)
        assert item.view.reachable
        assert len(item.reasons) >= 4


def _neighbours(labels: sitk.Image, target: TargetSuggestion) -> list[Structure]:
    """Bones that are not part of the joint, as something to keep away from."""
    found = structures_from_labels(labels, NAMES, 5.0)
    return [s for s in found if s.tree is not None and s.tree.query(target.position_lps_mm)[0] > 12]


def _near(structure: Structure, point: np.ndarray, reach_mm: float) -> sitk.Image:
    """The structure's surface within reach, so that brute force stays affordable."""
    array = np.zeros(structure.mask.GetSize()[::-1], np.uint8)
    ijk = structure.surface_ijk[np.linalg.norm(structure.tree.data - point, axis=1) < reach_mm]
    array[ijk[:, 2], ijk[:, 1], ijk[:, 0]] = 1
    image = sitk.GetImageFromArray(array)
    image.CopyInformation(structure.mask)
    return image


@pytest.fixture(scope="module")
def thorax() -> tuple[sitk.Image, sitk.Image, dict[int, str], sitk.Image]:
    """The sample CT, its labels, their names, and the body."""
    from FluoroGuideLib.evaluation.sample import thorax_ct

    try:
        image, labels, names = thorax_ct()
    except FluoroGuideError as error:
        pytest.skip(f"the sample CT is not at hand: {error.what}")
    return image, labels, names, body_mask(image)


@pytest.mark.slow
@pytest.mark.parametrize("side", ["left", "right"])
def test_transpedicular_l1_on_the_thorax(thorax: tuple, side: str) -> None:
    image, labels, names, body = thorax
    target = pedicle(labels, names, "vertebrae_L1", side)
    inside = int(labels[labels.TransformPhysicalPointToIndex(target.position_lps_mm.tolist())])
    assert names[inside] == "vertebrae_L1"  # the target lies in the vertebra, and so does the whole way from the bone's entry
    for share in np.linspace(0.1, 1, 10):
        point = target.entry_lps_mm + share * (target.position_lps_mm - target.entry_lps_mm)
        assert names.get(int(labels[labels.TransformPhysicalPointToIndex(point.tolist())])) == "vertebrae_L1"
    assert 30 < target.area_mm2 < 250
    procedure = load_library().get("vertebroplasty_transpedicular")
    structures, missing = procedure.structures(labels, names)
    assert missing == []
    rules = Rules(target.outward_lps, 12, True, gauge=13, needle_length_mm=150, through_lps_mm=target.outline_lps_mm[1])
    room = Room(carm(), "HFP")
    began = time.process_time()
    found = suggest(target.position_lps_mm, image, body, structures, room, rules, step_deg=1)
    assert time.process_time() - began < 2.0
    best = found[0]
    assert best.safety.bone_mm > 3
    cord = next(c for c in best.safety.clearances if c.name == "spinal_cord")
    structure = next(s for s in structures if s.name == "spinal_cord")
    brute = brute_mm(_near(structure, target.position_lps_mm, 50), best.trajectory) - 1.2  # 13 gauge: 2.4 mm
    assert cord.distance_mm == pytest.approx(brute, abs=0.3)
    assert cord.distance_mm >= 2.0
